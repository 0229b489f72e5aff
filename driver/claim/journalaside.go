// Files that were set aside, and claims of later versions: how an agent that goes
// back to an earlier version, and forward again, loses nothing. A journal that is set
// aside gets a second name, and so do its slots. It stays the journal until the first write
// takes its place: up to then nothing was done on this node that it does not say, and
// whoever can read it finds all of it where it was.

package claim

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"k8s.io/apimachinery/pkg/types"
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

// setAside gives the journal, which cannot be used, a second name, and returns that.
func (j *Journal) setAside(ctx context.Context, fault error) (string, error) {
	what := asideDamaged
	var later *versionError
	if errors.As(fault, &later) {
		what = later.Version
	}
	aside := fmt.Sprintf("%s.%s-%s", j.path, what, time.Now().UTC().Format("20060102T150405.000000000Z"))
	for _, file := range j.asides(ctx, "") {
		if sameFile(file, j.path) && j.asideKind(file) == what { // by an agent that could not write after that
			aside = file
		}
	}
	// The slots first, so that where the file is they are, too.
	for _, suffix := range []string{recentPath(""), ""} {
		err := j.disk.Link(j.path+suffix, aside+suffix)
		if err == nil || errors.Is(err, fs.ErrExist) || suffix != "" && errors.Is(err, fs.ErrNotExist) {
			continue
		}
		return "", fmt.Errorf("the journal %s: %w; it cannot be set aside: %w; %s", j.path, fault, err, remedy(err, filepath.Dir(j.path)))
	}
	return aside, nil
}

func sameFile(a, b string) bool {
	one, err := os.Lstat(a)
	other, fault := os.Lstat(b)
	return err == nil && fault == nil && os.SameFile(one, other)
}

// leaveSlots has slots that were set aside be those of no other journal: what is written
// over them would be in both files.
func (j *Journal) leaveSlots() error {
	stat, err := os.Lstat(recentPath(j.path))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if system, is := stat.Sys().(*syscall.Stat_t); is && system.Nlink == 1 {
		return nil
	}
	return discard(j.disk, recentPath(j.path))
}

// Withheld reports whether the journal cannot say at present that the claim is not
// prepared: a later version of the agent may have done it, or the journal was lost and
// the API server has not been asked yet.
func (j *Journal) Withheld(claim types.UID) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.incomplete || j.later[claim] != nil
}
