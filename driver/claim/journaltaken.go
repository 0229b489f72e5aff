// What becomes of files that were set aside. One that a later version wrote is read at each
// start, until an agent can read it: that one takes back what nobody else could handle, and the file
// goes with the write that has brought this to disk. One that was damaged is never
// read, even if it could be by then, as after an input error that has passed: what it said
// was rebuilt from CDI specs and the API server, and may be long over.

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

	"k8s.io/klog/v2"
)

// asideDamaged is in the name of a file that was damaged, in place of the version that wrote it.
const asideDamaged = "damaged"

// asidesKept is how many files are kept that were damaged, and of each later version. A later
// version leaves one each time that an earlier one follows it, and takes it back when it returns.
const asidesKept = 4

// takenAside is a file of which entries were taken back, and those that are left in it.
type takenAside struct {
	file string
	held []*Entry
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

// asideKind is the version that wrote the file which was set aside, or asideDamaged.
func (j *Journal) asideKind(file string) string {
	name := strings.TrimPrefix(file, j.path+".")
	return name[:strings.LastIndex(name, "-")]
}

// takeAsides takes from files that earlier versions of the agent set aside what
// they could not handle; all else they rebuilt themselves, and may have given back
// since. It notes which files the next write makes needless. What was set aside last
// says it best.
func (j *Journal) takeAsides(ctx context.Context) (taken bool) {
	for _, file := range slices.Backward(j.asides(ctx, "")) {
		if j.asideKind(file) == asideDamaged {
			continue
		}
		r, err := j.readAside(file)
		var later *versionError
		if errors.As(err, &later) {
			continue // what it was set aside for
		}
		if err != nil {
			klog.FromContext(ctx).Error(err, "A journal that was set aside cannot be read; what a later version of the agent did for its claims may have to be undone by hand", "file", file)
			continue
		}
		count, held := 0, []*Entry(nil)
		for _, entry := range r.Entries {
			if entry.oldestVersion() == version1 || j.entries[entry.ClaimUID] != nil {
				continue
			}
			if err := j.conflict(entry); err != nil {
				LoggerFor(ctx, err).Error(err, "An entry of a journal that was set aside cannot be taken back while another claim holds its devices; what was set on them for it may still be", "file", file, "claimUID", entry.ClaimUID)
				held = append(held, entry)
				continue
			}
			j.entries[entry.ClaimUID] = entry
			count++
		}
		if count > 0 {
			taken = true
			j.recovered(ctx, "JournalTakenBack", fmt.Sprintf("%d claims were taken from %s, which an earlier version of the agent had set aside; those that are over are undone now.", count, file))
		}
		j.taken = append(j.taken, takenAside{file, held})
	}
	return taken
}

// readAside returns what the file that was set aside says together with its slots.
func (j *Journal) readAside(file string) (*record, error) {
	raw, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	r, err := j.codec.decode(raw)
	if err != nil {
		return nil, err
	}
	return j.withSlots(file, r)
}

// withSlots adds to what the file says what its slots do. Agents that know none left these
// where they were, where the next write would go.
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

// dropAsides removes the files whose entries are in the journal now, durably, or leaves in
// them what is not: whatever stayed there would be taken back again after its end. It is
// called by whoever writes.
func (j *Journal) dropAsides() {
	j.taken = slices.DeleteFunc(j.taken, func(t takenAside) bool {
		err := j.dropAside(t)
		if err != nil {
			klog.Background().Error(err, "A journal that has been taken back cannot be removed; that is tried again with each write", "file", t.file)
			return false
		}
		klog.Background().Info("Removed from a journal that was set aside what has been taken back", "file", t.file, "left", len(t.held))
		return true
	})
}

func (j *Journal) dropAside(t takenAside) error {
	if len(t.held) == 0 {
		return errors.Join(discard(j.disk, t.file), discard(j.disk, recentPath(t.file)))
	}
	raw, err := j.codec.encode(&record{Entries: t.held}) // of no generation, so that slots continue it no more
	if err != nil {
		return err
	}
	if _, err := replaceFile(j.disk, t.file, raw); err != nil {
		return err
	}
	return discard(j.disk, recentPath(t.file))
}

// tidyAsides removes files that nobody will ask for: those that were damaged, and those of a
// version, but for the latest few, slots whose file is gone, and what a killed agent was writing.
func (j *Journal) tidyAsides(ctx context.Context) {
	var needless []string
	kept := map[string]int{}
	for _, file := range slices.Backward(j.asides(ctx, "")) {
		kind := j.asideKind(file)
		if kept[kind]++; kept[kind] > asidesKept {
			needless = append(needless, file, recentPath(file))
			klog.FromContext(ctx).Info("Removing a journal that was set aside: there are later ones", "file", file, "kept", asidesKept)
		}
	}
	for _, slots := range j.asides(ctx, recentPath("")) {
		if _, err := os.Lstat(strings.TrimSuffix(slots, recentPath(""))); errors.Is(err, fs.ErrNotExist) {
			needless = append(needless, slots)
		}
	}
	for _, file := range append(needless, j.asides(ctx, temporaryPath(""))...) {
		if err := discard(j.disk, file); err != nil {
			klog.FromContext(ctx).Error(err, "What is left of a journal that was set aside cannot be removed", "file", file)
		}
	}
}
