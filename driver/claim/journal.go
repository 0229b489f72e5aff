// Journal keeps the entries on disk. A change is durable when Put or Delete returns.
//
// All changes that arrive while one is being written go into the next write
// together (group commit), so that eight claims prepared at once cost one or two
// writes and not eight. The file is replaced as a whole: written beside,
// synced, renamed, and the directory synced.

package claim

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"

	"github.com/hostler-dev/hostler/driver/cdi"
)

// Journal is the durable set of entries, by claim.
type Journal struct {
	path string

	mu      sync.Mutex
	entries map[types.UID]*Entry // replaced entry by entry, never written through
	changed chan struct{}        // closed at every change
	// next is the write that changes made now will be part of; writing says
	// that an earlier one is under way.
	next    *write
	writing bool
}

// write is one replacement of the file, awaited by everyone whose change it carries.
type write struct {
	done chan struct{}
	err  error
}

// OpenJournal reads the journal at path. One that is damaged is set aside under
// a name that says so. That one and a missing one are rebuilt from the CDI specs,
// each of which carries the entry that it was made from: a broken file is no
// reason to stop serving a node.
func OpenJournal(ctx context.Context, path string, specs cdi.Directory) (*Journal, error) {
	j := &Journal{path: path, entries: map[types.UID]*Entry{}, changed: make(chan struct{})}
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return nil, fmt.Errorf("create the state directory: %w; check paths.state in the agent's configuration", err)
	}
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		// The first start, or somebody deleted it under running pods.
		return j, j.rebuild(ctx, specs)
	}
	if err != nil {
		return nil, fmt.Errorf("read the journal: %w; the agent needs read and write access to this file", err)
	}
	entries, damage := decodeJournal(raw)
	if damage != nil {
		aside := fmt.Sprintf("%s.damaged-%s", path, time.Now().UTC().Format("20060102T150405.000000000Z"))
		if err := os.Rename(path, aside); err != nil {
			return nil, fmt.Errorf("the journal %s is damaged (%w) and cannot be set aside: %w", path, damage, err)
		}
		klog.FromContext(ctx).Error(damage, "The journal is damaged; it is set aside and rebuilt from the CDI specs", "journal", path, "setAside", aside)
		return j, j.rebuild(ctx, specs)
	}
	for i := range entries {
		j.entries[entries[i].ClaimUID] = &entries[i]
	}
	return j, nil
}

// ReadJournal is a look at the journal by somebody who does not own it: nothing
// is created, set aside or kept open. A missing file is an empty journal.
func ReadJournal(path string) (*Journal, error) {
	j := &Journal{path: path, entries: map[types.UID]*Entry{}, changed: make(chan struct{})}
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return j, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the journal: %w", err)
	}
	entries, err := decodeJournal(raw)
	if err != nil {
		return nil, fmt.Errorf("the journal %s is damaged: %w; the agent rebuilds it when it starts", path, err)
	}
	for i := range entries {
		j.entries[entries[i].ClaimUID] = &entries[i]
	}
	return j, nil
}

// rebuild takes the entries from the CDI specs. A spec that is damaged too is
// left to reconciliation, which removes what no entry claims.
func (j *Journal) rebuild(ctx context.Context, specs cdi.Directory) error {
	claims, err := specs.List()
	if err != nil {
		return err
	}
	for _, claim := range claims {
		raw, err := specs.Entry(claim)
		entry := &Entry{}
		if err == nil {
			err = json.Unmarshal(raw, entry)
		}
		if err == nil && entry.ClaimUID != claim {
			err = fmt.Errorf("its entry is of claim %q", entry.ClaimUID)
		}
		if err != nil {
			klog.FromContext(ctx).Error(err, "A CDI spec is of no use for rebuilding the journal", "claimUID", claim)
			continue
		}
		if err := j.Put(entry); err != nil {
			return err
		}
	}
	return nil
}

// Entries returns all entries in the order of claim UIDs.
func (j *Journal) Entries() []*Entry {
	j.mu.Lock()
	defer j.mu.Unlock()
	return sortedEntries(j.entries)
}

// Entry returns the entry of a claim, nil if there is none.
func (j *Journal) Entry(claim types.UID) *Entry {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.entries[claim]
}

// Changed returns a channel that is closed at the next change of the entries.
// Call it again after each change.
func (j *Journal) Changed() <-chan struct{} {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.changed
}

// Put adds or replaces an entry, unless it conflicts with the others. It
// returns when the entry is on disk. If it cannot be written, the entry is
// taken back.
func (j *Journal) Put(entry *Entry) error {
	j.mu.Lock()
	if err := conflict(entry, j.entries); err != nil {
		j.mu.Unlock()
		return err
	}
	before := j.entries[entry.ClaimUID]
	j.entries[entry.ClaimUID] = entry
	err := j.commit()
	if err == nil {
		return nil
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.entries[entry.ClaimUID] == entry {
		if delete(j.entries, entry.ClaimUID); before != nil {
			j.entries[entry.ClaimUID] = before
		}
		j.announce()
	}
	return err
}

// Delete removes an entry. It returns when that is on disk; an entry that is
// not there costs nothing.
func (j *Journal) Delete(claim types.UID) error {
	j.mu.Lock()
	before, ok := j.entries[claim]
	if !ok {
		j.mu.Unlock()
		return nil
	}
	delete(j.entries, claim)
	err := j.commit()
	if err == nil {
		return nil
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if _, replaced := j.entries[claim]; !replaced {
		j.entries[claim] = before
		j.announce()
	}
	return err
}

func (j *Journal) announce() {
	close(j.changed)
	j.changed = make(chan struct{})
}

// commit is called with the lock held, after a change, and releases it. The
// first to come writes for all who came until it began.
func (j *Journal) commit() error {
	j.announce()
	if j.next == nil {
		j.next = &write{done: make(chan struct{})}
	}
	mine := j.next
	if j.writing {
		j.mu.Unlock()
		<-mine.done
		return mine.err
	}
	j.writing = true
	for j.next != nil {
		// Claims of one call arrive together: let the others in first.
		j.mu.Unlock()
		runtime.Gosched()
		j.mu.Lock()
		current := j.next
		j.next = nil
		entries := sortedEntries(j.entries)
		j.mu.Unlock()
		current.err = j.save(entries)
		close(current.done)
		j.mu.Lock()
	}
	j.writing = false
	j.mu.Unlock()
	return mine.err
}

func (j *Journal) save(entries []*Entry) error {
	raw, err := encodeJournal(entries)
	if err != nil {
		return fmt.Errorf("encode the journal: %w", err)
	}
	if err := replaceFile(j.path, raw); err != nil {
		return fmt.Errorf("write the journal: %w; check free space and permissions of %s", err, filepath.Dir(j.path))
	}
	return nil
}

func sortedEntries(entries map[types.UID]*Entry) []*Entry {
	return slices.SortedFunc(maps.Values(entries), func(a, b *Entry) int {
		return strings.Compare(string(a.ClaimUID), string(b.ClaimUID))
	})
}

// replaceFile puts data in place of path so that after a crash, at any moment
// and of the whole machine, either the old or the new content is there.
func replaceFile(path string, data []byte) error {
	temporary := path + ".tmp"
	f, err := os.OpenFile(temporary, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(temporary, path); err != nil {
		return err
	}
	directory, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(directory.Sync(), directory.Close())
}
