// Files that were set aside, and claims of later versions: how an agent that goes
// back to an earlier version, and forward again, loses nothing. A journal is set aside by
// two renames, its file's and then its slots'. Between these there is no journal, which
// is how the next agent knows that the slots are still to follow.

package claim

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"
)

// LaterError says that a claim was prepared by a later version of the agent.
type LaterError struct {
	// Claim by name, Version of its journal entry, and the CDI spec that has this.
	Claim, Version, Spec string
	UID                  types.UID
}

func (e *LaterError) Error() string {
	return fmt.Sprintf("claim %s was prepared by a later version of the agent, which alone can undo that (%s has an entry of version %s); let that version run on this node again, or run its `hostler release --claim %s`, or reboot the node", e.Claim, e.Spec, e.Version, e.UID)
}

// laterClaim is a claim that a later version prepared.
type laterClaim struct {
	// entry is what could be made of it: at least the claim's UID.
	entry         *Entry
	version, spec string
}

func (l *laterClaim) name() string {
	if l.entry.ClaimName == "" {
		return string(l.entry.ClaimUID)
	}
	return l.entry.ClaimNamespace + "/" + l.entry.ClaimName
}

// Later returns a *LaterError if a later version of the agent prepared the claim and
// the machine has not been rebooted since, nil if not.
func (j *Journal) Later(claim types.UID, bootID string) error {
	later := j.later[claim]
	if later == nil || later.entry.BootID != "" && later.entry.BootID != bootID || j.Entry(claim) != nil {
		return nil
	}
	return &LaterError{Claim: later.name(), Version: later.version, Spec: later.spec, UID: claim}
}

// setAside puts the journal, which cannot be used, out of the way, and returns where it is now.
func (j *Journal) setAside(fault error) (string, error) {
	what := "damaged"
	var later *versionError
	if errors.As(fault, &later) {
		what = later.Version
	}
	aside := fmt.Sprintf("%s.%s-%s", j.path, what, time.Now().UTC().Format("20060102T150405.000000000Z"))
	err := j.disk.Rename(j.path, aside)
	if err == nil {
		err = j.slotsFollow(aside)
	}
	if err != nil {
		return "", fmt.Errorf("the journal %s: %w; it cannot be set aside: %w; %s", j.path, fault, err, remedy(err, filepath.Dir(j.path)))
	}
	return aside, nil
}

// resumeAside is for a journal that is missing. It returns the file that was set aside
// last, "" if none is there, with its slots beside it: left where they were, they
// would be written over.
func (j *Journal) resumeAside(ctx context.Context) (string, error) {
	asides := j.asides(ctx, "")
	if len(asides) == 0 {
		return "", nil
	}
	last := asides[len(asides)-1]
	if _, err := os.Lstat(recentPath(last)); err == nil {
		return last, nil
	}
	if err := j.slotsFollow(last); err != nil {
		return "", fmt.Errorf("the journal was set aside as %s, but its second file cannot be: %w; %s", last, err, remedy(err, filepath.Dir(j.path)))
	}
	return last, nil
}

// slotsFollow sets the slots aside, if there are any.
func (j *Journal) slotsFollow(aside string) error {
	if _, err := os.Lstat(recentPath(j.path)); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return j.disk.Rename(recentPath(j.path), recentPath(aside))
}

// asides are the files that were set aside, or what has the suffix beside them, the latest last.
func (j *Journal) asides(ctx context.Context, suffix string) []string {
	// The pattern is constant but for the path, whose special characters would at
	// worst hide the files.
	files, err := filepath.Glob(j.path + ".*-*Z" + suffix)
	if err != nil {
		klog.FromContext(ctx).Error(err, "Journals that were set aside cannot be listed", "journal", j.path)
	}
	since := func(file string) string { return file[strings.LastIndex(file, "-")+1:] }
	slices.SortStableFunc(files, func(a, b string) int { return strings.Compare(since(a), since(b)) })
	return files
}

// takeAsides takes from files that earlier versions of the agent set aside what
// they could not handle; all else they rebuilt themselves, and may have given back
// since. It returns the files that are not needed any more.
func (j *Journal) takeAsides(ctx context.Context) (done []string, taken bool) {
	for _, file := range j.asides(ctx, "") {
		raw, err := os.ReadFile(file)
		if err != nil {
			klog.FromContext(ctx).Error(err, "A journal that was set aside cannot be read", "file", file)
			continue
		}
		r, err := j.codec.decode(raw)
		if err != nil {
			continue // what it was set aside for
		}
		if r, err = j.withSlots(file, r); err != nil {
			klog.FromContext(ctx).Error(err, "A journal that was set aside cannot be read", "file", file)
			continue
		}
		needed, held, count := false, false, 0
		for _, entry := range r.Entries {
			if entry.oldestVersion() == version1 {
				continue
			}
			needed = true
			if j.entries[entry.ClaimUID] != nil {
				continue
			}
			if err := j.conflict(entry); err != nil {
				LoggerFor(ctx, err).Error(err, "An entry of a journal that was set aside cannot be taken back while another claim holds its devices; what was set on them for it may still be", "file", file, "claimUID", entry.ClaimUID)
				held = true
				continue
			}
			j.entries[entry.ClaimUID] = entry
			count++
		}
		if count > 0 {
			taken = true
			j.recovered(ctx, "JournalTakenBack", fmt.Sprintf("%d claims were taken from %s, which an earlier version of the agent had set aside; those that are over are undone now.", count, file))
		}
		if needed && !held {
			done = append(done, file)
		}
	}
	return done, taken
}

// Withheld reports whether the journal cannot say at present that the claim is not
// prepared: a later version of the agent may have done it, or the journal was lost and
// the API server has not been asked yet.
func (j *Journal) Withheld(claim types.UID) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.incomplete || j.later[claim] != nil
}

// withSlots returns what the file that was set aside says together with its slots.
// Agents that know none left these where they were, where the next write would go.
func (j *Journal) withSlots(file string, r *record) (*record, error) {
	latest, err := j.codec.latest(r, recentPath(file))
	if err != nil || latest != r {
		return latest, err
	}
	if latest, err = j.codec.latest(r, recentPath(j.path)); err != nil || latest == r {
		return latest, err
	}
	return latest, errors.Join(j.disk.Rename(recentPath(j.path), recentPath(file)), j.disk.SyncDirectory(filepath.Dir(j.path)))
}

// dropAsides removes the files whose entries are in the journal now, durably, and slots
// whose file is gone.
func (j *Journal) dropAsides(ctx context.Context, files []string) {
	for _, file := range files {
		if err := errors.Join(j.disk.Remove(file), discard(j.disk, recentPath(file))); err != nil {
			klog.FromContext(ctx).Error(err, "A journal that has been taken back cannot be removed", "file", file)
			continue
		}
		klog.FromContext(ctx).Info("Removed a journal that has been taken back", "file", file)
	}
	for _, slots := range j.asides(ctx, recentPath("")) {
		if _, err := os.Lstat(strings.TrimSuffix(slots, recentPath(""))); !errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err := discard(j.disk, slots); err != nil {
			klog.FromContext(ctx).Error(err, "What is left of a journal that was set aside cannot be removed", "file", slots)
		}
	}
}
