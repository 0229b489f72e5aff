package claim

// Changes of many claims at once, on a disk that fails now and then, while some who are
// expected never come: each is told what has become of its change, and that is what the
// journal and the disk say. In a bubble of time, where whoever is never woken shows at once.

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"pgregory.net/rapid"
)

// change is what happens to a claim after a while.
type change struct {
	What string
	// Expected is how often the claim is announced before, by a call of the kubelet and by the Runner.
	Expected int
	After    time.Duration
}

func changes(r *rapid.T) []change {
	return rapid.SliceOfN(rapid.Custom(func(r *rapid.T) change {
		return change{
			What:     rapid.SampledFrom([]string{"put", "put", "delete", "nothing", "settle", "checkpoint"}).Draw(r, "what"),
			Expected: rapid.IntRange(0, 2).Draw(r, "expected"),
			After:    rapid.SampledFrom([]time.Duration{0, 0, gatherLimit / 2, 2 * gatherLimit}).Draw(r, "after"),
		}
	}), 1, 8).Draw(r, "changes")
}

// unreliable is a disk that fails when told so, before or after it has done what was asked.
type unreliable struct {
	realDisk
	mu     sync.Mutex
	faults []int
}

func (d *unreliable) between(work func() error) error {
	d.mu.Lock()
	fault := 0
	if len(d.faults) > 0 {
		fault, d.faults = d.faults[0], d.faults[1:]
	}
	d.mu.Unlock()
	if fault == 1 {
		return syscall.EIO
	}
	if err := work(); err != nil || fault == 0 {
		return err
	}
	return syscall.EIO
}

func (d *unreliable) Rename(from, to string) error {
	return d.between(func() error { return d.realDisk.Rename(from, to) })
}

func (d *unreliable) Overwrite(path string, offset int64, data []byte) error {
	return d.between(func() error { return d.realDisk.Overwrite(path, offset, data) })
}

func (d *unreliable) SyncDirectory(path string) error {
	return d.between(func() error { return d.realDisk.SyncDirectory(path) })
}

// live has the changes happen to the claim one after the other. It returns what the
// journal has to say of it in the end.
func live(j *Journal, claim types.UID, changes []change) (want *Entry, fault error) {
	for i, c := range changes {
		var arrived []func()
		for range c.Expected {
			arrived = append(arrived, j.Expect(claim))
		}
		time.Sleep(c.After)
		var err error
		switch entry := (&Entry{ClaimUID: claim, PodClaimName: fmt.Sprint(i)}); c.What {
		case "put":
			begun := false
			if err = j.put(entry, func() { begun = true }); err == nil {
				want = entry
			}
			if !begun {
				fault = errors.Join(fault, fmt.Errorf("change %d of claim %s: what was to go on beside it was not begun", i, claim))
			}
		case "delete":
			if err = j.Delete(claim); err == nil {
				want = nil
			}
		case "settle":
			err = j.Settle()
		case "checkpoint":
			err = j.Checkpoint()
		}
		if err != nil && !errors.Is(err, syscall.EIO) {
			fault = errors.Join(fault, err)
		}
		if got := j.Entry(claim); got != want {
			fault = errors.Join(fault, fmt.Errorf("change %d (%s, %q) of claim %s: the journal says %+v, want %+v", i, c.What, fmt.Sprint(err), claim, got, want))
		}
		if i%3 > 0 { // the others never say that they will not come
			for _, done := range arrived {
				done()
			}
		}
	}
	return want, fault
}

func TestEachIsToldWhatBecameOfItsChange(t *testing.T) {
	root, lives := inMemory(t), 0
	rapid.Check(t, func(r *rapid.T) {
		lives++
		path := filepath.Join(root, fmt.Sprint(lives), "journal")
		if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil {
			r.Fatal(err)
		}
		claims := make([][]change, rapid.IntRange(1, 5).Draw(r, "claims"))
		for i := range claims {
			claims[i] = changes(r)
		}
		d := &unreliable{faults: rapid.SliceOfN(rapid.SampledFrom([]int{0, 0, 0, 1, 2}), 0, 30).Draw(r, "faults")}
		var fault error
		synctest.Test(t, func(*testing.T) { fault = liveTogether(d, path, claims) })
		if fault != nil {
			r.Fatal(fault)
		}
		if err := os.RemoveAll(filepath.Dir(path)); err != nil {
			r.Fatal(err)
		}
	})
}

func liveTogether(d *unreliable, path string, claims [][]change) (fault error) {
	j, err := newJournal(d, path)
	if err != nil {
		return err
	}
	var mu sync.Mutex
	var all sync.WaitGroup
	wanted := map[types.UID]*Entry{}
	for i, changes := range claims {
		all.Go(func() {
			claim := types.UID(fmt.Sprint(i))
			want, err := live(j, claim, changes)
			mu.Lock()
			defer mu.Unlock()
			if fault = errors.Join(fault, err); want != nil {
				wanted[claim] = want
			}
		})
	}
	all.Wait()
	d.faults = nil
	if fault = errors.Join(fault, j.Settle()); fault != nil {
		return fault
	}
	next, err := ReadJournal(path)
	if err != nil {
		return err
	}
	if got, want := fmt.Sprint(named(next.Entries())), fmt.Sprint(named(sortedEntries(wanted))); got != want {
		return fmt.Errorf("the disk says %s, want %s", got, want)
	}
	return nil
}

// named tells which entry of its claim each is.
func named(entries []*Entry) (names []string) {
	for _, entry := range entries {
		names = append(names, string(entry.ClaimUID)+" "+entry.PodClaimName)
	}
	return names
}
