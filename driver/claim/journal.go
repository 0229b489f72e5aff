// Journal keeps the entries on disk. A change is durable when Put or Delete returns.
//
// All changes that arrive while one is being written go into the next write
// together (group commit), so that eight claims prepared at once cost one or two
// writes and not eight. Whoever came first for a write makes it.
//
// Memory runs ahead of the disk by one write at most. What that is about to give
// free is nobody else's before it is on disk, so that a write which fails can always
// be taken back.

package claim

import (
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"
)

// Journal is the durable set of entries, by claim, with the tombstones of those
// that left it a short while ago.
type Journal struct {
	path  string
	disk  disk
	codec *codec
	// recoveries are what was out of the ordinary when it was opened.
	recoveries []Recovery
	// later are the claims that a later version of the agent prepared, as far as
	// their CDI specs can be read.
	later map[types.UID]*laterClaim

	mu      sync.Mutex
	entries map[types.UID]*Entry // replaced entry by entry, never written through
	// durable are the entries by the last write that succeeded.
	durable map[types.UID]*Entry
	// unsettled says that a write failed, or was never tried, after which the disk may
	// say something else than durable.
	unsettled  bool
	unprepared map[types.UID]Tombstone
	incomplete bool
	changed    chan struct{} // closed at every change
	// next is the write that changes made now will be part of; writing says
	// that an earlier one is under way.
	next    *write
	writing bool

	gathering gathering
	// continues and taken belong to whoever is writing. Taken are files that were set aside
	// and whose entries the next write brings to disk.
	continues continuation
	taken     []takenAside
}

// write is one writing of all that the journal says, awaited by everyone whose
// change it carries.
type write struct {
	claims []types.UID
	// changes says that somebody wants more of it than that the file is replaced;
	// whole says that somebody wants this.
	changes, whole bool
	// meanwhile is called when the disk is about to be busy with it.
	meanwhile []func()
	// turn gets a value when it is this write's turn: one of those who await it makes it.
	turn chan struct{}
	done chan struct{}
	err  error
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
func (j *Journal) Put(entry *Entry) error { return j.put(entry, nil) }

// put is Put, which begins meanwhile when the disk is about to be busy with the entry. It
// must not wait for anything, and is not called if the entry conflicts.
func (j *Journal) put(entry *Entry, meanwhile func()) error {
	j.mu.Lock()
	if err := j.conflict(entry); err != nil {
		j.mu.Unlock()
		return err
	}
	j.entries[entry.ClaimUID] = entry
	if next := j.upcoming(); meanwhile != nil {
		next.meanwhile = append(next.meanwhile, meanwhile)
	}
	return j.commit(entry.ClaimUID)
}

// Delete removes an entry. It returns when that is on disk; an entry that is
// not there costs nothing. If it cannot be written, the entry is back.
func (j *Journal) Delete(claim types.UID) error {
	j.mu.Lock()
	if _, ok := j.entries[claim]; !ok {
		j.mu.Unlock()
		return nil
	}
	delete(j.entries, claim)
	return j.commit(claim)
}

// Checkpoint has the journal's file say by itself, without the slots beside it, what
// the journal says, and the slots be there for what comes after it.
func (j *Journal) Checkpoint() error {
	j.mu.Lock()
	return j.join(true)
}

// Settle writes the journal if the disk may say something else than was last
// reported: after a write whose end is not known.
func (j *Journal) Settle() error {
	j.mu.Lock()
	if !j.unsettled {
		j.mu.Unlock()
		return nil
	}
	return j.commit()
}

// save writes the journal as it is, with tombstones that no entry's end brings to disk.
func (j *Journal) save() error {
	j.mu.Lock()
	return j.commit()
}

// conflict returns why the entry cannot join the others. To these belong also
// those on disk that are about to be replaced or to go, and what a later version
// of the agent gave away.
func (j *Journal) conflict(entry *Entry) error {
	if err := conflict(entry, j.entries); err != nil {
		return err
	}
	before := j.entries[entry.ClaimUID]
	against := func(other *Entry) error {
		both := map[types.UID]*Entry{other.ClaimUID: other}
		if before != nil {
			both[entry.ClaimUID] = before
		}
		return conflict(entry, both)
	}
	for claim, other := range j.durable {
		if claim != entry.ClaimUID && j.entries[claim] != other {
			if err := against(other); err != nil {
				return err
			}
		}
	}
	for claim, other := range j.later {
		if claim != entry.ClaimUID && other.entry.BootID == entry.BootID {
			if err := against(other.entry); err != nil {
				return err
			}
		}
	}
	return nil
}

func (j *Journal) announce() {
	close(j.changed)
	j.changed = make(chan struct{})
}

// commit is called with the lock held, after a change of the claims, and releases
// it. It returns when the change is on disk or has been taken back.
func (j *Journal) commit(claims ...types.UID) error {
	j.announce()
	j.gathering.arrived(claims...)
	return j.join(false, claims...)
}

// join takes part in the next write, and makes it where nobody else does. It is called
// with the lock held and releases it.
func (j *Journal) join(whole bool, claims ...types.UID) error {
	mine := j.upcoming()
	mine.claims = append(mine.claims, claims...)
	mine.whole, mine.changes = mine.whole || whole, mine.changes || !whole
	if j.writing {
		j.mu.Unlock()
		select {
		case <-mine.done:
			return mine.err
		case <-mine.turn:
		}
		j.mu.Lock()
	}
	j.writing = true
	// Claims of one call arrive together: let the others in first.
	j.mu.Unlock()
	j.gathering.wait()
	j.mu.Lock()
	j.next = nil
	entries, unprepared, incomplete := maps.Clone(j.entries), j.tombstones(time.Now()), j.incomplete
	j.mu.Unlock()
	for _, begin := range mine.meanwhile {
		begin()
	}
	touched, err := j.write(mine, &record{Entries: sortedEntries(entries), Unprepared: unprepared, Incomplete: incomplete})
	if err == nil {
		j.dropAsides()
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	mine.err = err
	if err == nil {
		j.durable, j.unsettled = entries, false
	} else {
		j.takeBack(mine.claims)
		j.unsettled = j.unsettled || touched
	}
	if mine.changes {
		j.announce()
	}
	close(mine.done)
	if j.writing = j.next != nil; j.writing {
		j.next.turn <- struct{}{}
	}
	return err
}

// upcoming is the write that changes made now are part of.
func (j *Journal) upcoming() *write {
	if j.next == nil {
		j.next = &write{turn: make(chan struct{}, 1), done: make(chan struct{})}
	}
	return j.next
}

// write brings the record to disk. It says whether the disk may say something else
// than before. Where one of its two ways fails, the other is tried: a slot may be
// bad, and a full disk has the slots' space all the same.
func (j *Journal) write(w *write, r *record) (touched bool, err error) {
	if !w.whole {
		return j.change(r)
	}
	if w.changes || j.continues.generation == "" || j.continues.sequence > 0 {
		touched, err = j.replace(r)
		if err != nil && !touched && w.changes {
			tried, fault := j.overwrite(r)
			if tried && fault == nil {
				return true, nil
			}
			return tried, errors.Join(err, fault)
		}
		if err != nil {
			return touched, err
		}
	}
	if err := j.makeSlots(); err != nil {
		j.continues = continuation{}
		klog.Background().Info("The journal's second file cannot be made; until it can, changes of claims take longer", "file", recentPath(j.path), "reason", err.Error())
	}
	return touched, nil
}

// change writes the record into a slot, or replaces the file if that cannot be.
func (j *Journal) change(r *record) (touched bool, err error) {
	tried, fault := j.overwrite(r)
	if tried && fault == nil {
		return true, nil
	}
	if touched, err = j.replace(r); err != nil {
		return touched || tried, errors.Join(err, fault)
	}
	if fault != nil {
		// The file says all now. The slots are made anew before they are used again.
		klog.Background().Error(fault, "The journal's second file is left")
		if err := discard(j.disk, recentPath(j.path)); err != nil {
			j.continues = continuation{}
		}
	}
	return true, nil
}

// takeBack has memory say of the claims what the disk says, but for those that
// the next write changes anyway, and whose state it decides.
func (j *Journal) takeBack(claims []types.UID) {
	for _, claim := range claims {
		if j.next != nil && slices.Contains(j.next.claims, claim) {
			continue
		}
		if delete(j.entries, claim); j.durable[claim] != nil {
			j.entries[claim] = j.durable[claim]
		}
	}
}

// replace writes the record as the journal's file, of a generation that nothing continues yet.
func (j *Journal) replace(r *record) (touched bool, err error) {
	r.Generation, r.Sequence = newGeneration(), 0
	raw, err := j.codec.encode(r)
	if err != nil {
		return false, fmt.Errorf("encode the journal: %w", err)
	}
	if touched, err = replaceFile(j.disk, j.path, raw); err != nil {
		if touched { // the slots' file may be the one of before, or have none
			j.continues = continuation{}
		}
		return touched, fmt.Errorf("write the journal %s: %w; %s", j.path, err, remedy(err, filepath.Dir(j.path)))
	}
	j.continues = continuation{generation: r.Generation, version: r.oldestVersion()}
	if err := j.leaveSlots(); err != nil {
		j.continues = continuation{}
		klog.Background().Error(err, "Slots that were set aside cannot be left; until they can, changes of claims take longer", "file", recentPath(j.path))
	}
	return touched, nil
}

func sortedEntries(entries map[types.UID]*Entry) []*Entry {
	return slices.SortedFunc(maps.Values(entries), func(a, b *Entry) int {
		return strings.Compare(string(a.ClaimUID), string(b.ClaimUID))
	})
}
