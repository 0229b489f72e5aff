package claim

// The disk fails at every point of a write, in every operation that writes.

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"k8s.io/apimachinery/pkg/types"

	"github.com/hostler-dev/hostler/driver/gpu/gputest"
)

// point is one thing that the journal asks of a disk.
type point string

const (
	atCreate  point = "create"
	atWrite   point = "write"
	atSync    point = "sync the file"
	atRename  point = "rename"
	atSyncDir point = "sync the directory"
	atSlot    point = "write a slot"
	atLink    point = "give a second name"
)

// points of a write that replaces the file.
var points = []point{atCreate, atWrite, atSync, atRename, atSyncDir}

// failingDisk is a disk that fails at a point, or on which nothing happens any more
// from that point on, as if the machine had crashed.
type failingDisk struct {
	realDisk
	mu sync.Mutex
	// at is where it fails, with err; short writes half before that. Nowhere if "".
	at    point
	err   error
	short bool
	// half: what fails or is cut off at a slot has been written half.
	half bool
	// after is how often the point works before it fails.
	after int
	// crash lets it fail for ever after; before says whether the point's own work is not done.
	crash, before bool
	crashed       bool
	// seen counts the passes of each point; gate, if set, is waited for before a rename.
	seen map[point]int
	gate chan struct{}
}

var errCrashed = errors.New("the machine has crashed")

// pass returns whether the work of the point is done, and how it ends.
func (d *failingDisk) pass(p point) (work bool, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.seen == nil {
		d.seen = map[point]int{}
	}
	d.seen[p]++
	switch {
	case d.crashed:
		return false, errCrashed
	case d.at != p || d.seen[p] <= d.after:
		return true, nil
	case d.crash:
		d.crashed = true
		return !d.before, errCrashed
	}
	return false, d.err
}

func (d *failingDisk) Create(path string) (diskFile, error) {
	work, err := d.pass(atCreate)
	if !work {
		return nil, err
	}
	file, fault := d.realDisk.Create(path)
	if err = errors.Join(err, fault); err != nil {
		return nil, err
	}
	return &failingFile{diskFile: file, disk: d}, nil
}

func (d *failingDisk) Rename(from, to string) error {
	if d.gate != nil {
		<-d.gate
	}
	work, err := d.pass(atRename)
	if work {
		err = errors.Join(err, d.realDisk.Rename(from, to))
	}
	return err
}

func (d *failingDisk) Link(file, name string) error {
	work, err := d.pass(atLink)
	if work {
		err = errors.Join(err, d.realDisk.Link(file, name))
	}
	return err
}

func (d *failingDisk) Remove(path string) error {
	if d.crashed {
		return errCrashed
	}
	return d.realDisk.Remove(path)
}

func (d *failingDisk) SyncDirectory(path string) error {
	work, err := d.pass(atSyncDir)
	if work {
		err = errors.Join(err, d.realDisk.SyncDirectory(path))
	}
	return err
}

func (d *failingDisk) Overwrite(path string, offset int64, data []byte) error {
	work, err := d.pass(atSlot)
	switch {
	case work:
		return errors.Join(err, d.realDisk.Overwrite(path, offset, data))
	case d.half: // nobody can tell that from a slot that is being written
		return errors.Join(err, d.realDisk.Overwrite(path, offset, data[:len(data)/2]))
	}
	return err
}

type failingFile struct {
	diskFile
	disk *failingDisk
}

func (f *failingFile) Write(p []byte) (int, error) {
	work, err := f.disk.pass(atWrite)
	if !work {
		n, fault := f.diskFile.Write(p[:len(p)/2])
		if f.disk.short {
			return n, fault
		}
		return n, errors.Join(err, fault)
	}
	n, fault := f.diskFile.Write(p)
	return n, errors.Join(err, fault)
}

func (f *failingFile) Sync() error {
	work, err := f.disk.pass(atSync)
	if work {
		err = errors.Join(err, f.diskFile.Sync())
	}
	return err
}

// writing is an operation that writes the journal. It is begun in a room where before
// was done, and done is whether it has had its effect.
type writing struct {
	name   string
	before func(*room) error
	act    func(*room) error
	done   func(*room) bool
}

func writings() []writing {
	c, again := allocated("c", onGPU(part1g0), onNIC("nic-0000-19-00-0")), allocated("c", onGPU(part1g0), onNIC("nic-0000-19-00-0"))
	again.Status.ReservedFor = append(again.Status.ReservedFor, again.Status.ReservedFor[0])
	again.Status.ReservedFor[1].UID, again.Status.ReservedFor[1].Name = "pod-second", "second"
	prepare := func(r *room) error { _, err := r.prepare(c); return err }
	entry := func(r *room) *Entry { return r.journal.Entry(c.UID) }
	return []writing{
		{"prepare", func(*room) error { return nil }, prepare, func(r *room) bool { return entry(r) != nil }},
		{"repeated prepare, with one more pod", prepare, func(r *room) error { _, err := r.prepare(again); return err },
			func(r *room) bool { return entry(r) != nil && len(entry(r).Pods) == 2 }},
		{"unprepare", prepare, func(r *room) error { return r.Unprepare(context.Background(), c.UID) }, func(r *room) bool { return entry(r) == nil }},
		{"leave a partition to be removed later", func(r *room) error {
			err := prepare(r)
			r.die()
			return err
		}, func(r *room) error { return r.Unprepare(context.Background(), c.UID) }, func(r *room) bool { return entry(r) != nil && entry(r).Released }},
	}
}

// failingRoom has done what comes before the operation, and has a disk that then
// fails. Where that is at a slot, the journal has slots.
func failingRoom(t *testing.T, directory string, device *gputest.GPU, w writing, d *failingDisk) *room {
	t.Helper()
	r := newMIGRoom(t, directory, boot, device)
	if err := w.before(r); err != nil {
		t.Fatal(err)
	}
	if d.at == atSlot {
		if err := r.journal.Checkpoint(); err != nil {
			t.Fatal(err)
		}
	}
	r.journal.disk = d
	return r
}

// onDisk are the entries that the next agent would read.
func onDisk(t *testing.T, r *room) []*Entry {
	t.Helper()
	j, err := ReadJournal(r.path)
	if err != nil {
		t.Fatal(err)
	}
	return j.Entries()
}

func TestDiskFailsOnce(t *testing.T) {
	for _, w := range writings() {
		for _, f := range []struct {
			point
			err   error
			short bool
			word  string
		}{
			{atCreate, syscall.ENOSPC, false, "free space on the file system of"},
			{atCreate, syscall.EROFS, false, "remount"},
			{atWrite, syscall.ENOSPC, false, "free space on the file system of"},
			{atWrite, nil, true, "short write"},
			{atSync, syscall.EIO, false, "dmesg"},
			{atRename, syscall.EIO, false, "dmesg"},
			{atSyncDir, syscall.EIO, false, "dmesg"},
		} {
			t.Run(fmt.Sprintf("%s: %s: %v", w.name, f.point, f.err), func(t *testing.T) {
				d := &failingDisk{at: f.point, err: f.err, short: f.short}
				r := failingRoom(t, t.TempDir(), migDevice(), w, d)
				err := w.act(r)
				if err == nil || !strings.Contains(err.Error(), f.word) || !strings.Contains(err.Error(), filepath.Dir(r.path)) {
					t.Fatalf("%v; want the directory and %q", err, f.word)
				}
				if w.done(r) {
					t.Error("what is not on disk is taken for done")
				}
				if f.point != atSyncDir { // the new file may be there then, or may not
					sameEntries(t, "memory (-disk +memory)", onDisk(t, r), r.journal.Entries())
				}
				if left, err := filepath.Glob(r.path + ".tmp"); err != nil || len(left) > 0 {
					t.Errorf("left over: %v, %v", left, err)
				}
				d.at = ""
				if err := w.act(r); err != nil {
					t.Fatalf("the next try: %v", err)
				}
				if !w.done(r) {
					t.Error("the next try had no effect")
				}
				sameEntries(t, "memory after the next try (-disk +memory)", onDisk(t, r), r.journal.Entries())
			})
		}
	}
}

// An operation of which it is not known whether it is on disk is settled by reconciliation.
func TestUnknownEndIsSettled(t *testing.T) {
	for _, w := range writings() {
		d := &failingDisk{at: atSyncDir, err: syscall.EIO}
		r := failingRoom(t, t.TempDir(), migDevice(), w, d)
		if err := w.act(r); err == nil {
			t.Fatalf("%s: no error", w.name)
		}
		d.at = ""
		if err := r.journal.Settle(); err != nil {
			t.Fatal(err)
		}
		sameEntries(t, w.name+" (-disk +memory)", onDisk(t, r), r.journal.Entries())
		wrote := d.seen[atRename]
		if err := r.journal.Settle(); err != nil || d.seen[atRename] != wrote {
			t.Errorf("%s: a settled journal is written again, %v", w.name, err)
		}
	}
}

// A slot that cannot be written holds nothing up: then the file is replaced, and the
// slots are made anew.
func TestBadSlot(t *testing.T) {
	for _, w := range writings() {
		for _, half := range []bool{false, true} {
			d := &failingDisk{at: atSlot, err: syscall.EIO, half: half}
			r := failingRoom(t, t.TempDir(), migDevice(), w, d)
			if err := w.act(r); err != nil {
				t.Fatalf("%s: %v", w.name, err)
			}
			if !w.done(r) {
				t.Errorf("%s: had no effect", w.name)
			}
			sameEntries(t, w.name+" (-disk +memory)", onDisk(t, r), r.journal.Entries())
			d.at = ""
			if err := r.journal.Checkpoint(); err != nil {
				t.Fatal(err)
			}
			if _, err := os.Stat(recentPath(r.path)); err != nil {
				t.Errorf("%s: the slots are not made anew: %v", w.name, err)
			}
		}
	}
}

// The machine crashes at each point. What the next agent finds is the journal of
// before or of after, and the kubelet's next call completes the operation.
func TestCrashAtEveryPoint(t *testing.T) {
	for _, w := range writings() {
		for _, p := range append(points, atSlot) {
			for _, before := range []bool{true, false} {
				t.Run(fmt.Sprintf("%s: %s, before it: %v", w.name, p, before), func(t *testing.T) {
					directory, device := t.TempDir(), migDevice()
					d := &failingDisk{at: p, crash: true, before: before, half: true}
					r := failingRoom(t, directory, device, w, d)
					was := r.journal.Entries()
					if err := w.act(r); !errors.Is(err, errCrashed) {
						t.Fatal(err)
					}
					next := newMIGRoom(t, directory, boot, device)
					next.silent = r.silent
					renamed := p == atSyncDir || (p == atRename || p == atSlot) && !before
					if !renamed {
						sameEntries(t, "what the next agent reads", was, next.journal.Entries())
					}
					if err := w.act(next); err != nil {
						t.Fatalf("the next agent: %v", err)
					}
					if w.name == "unprepare" && len(next.journal.Entries()) > 0 || w.name != "unprepare" && !w.done(next) {
						t.Errorf("the next agent's entries: %v", next.journal.Entries())
					}
				})
			}
		}
	}
}

// Whoever waits for somebody else's write gets its error, too, and none of their
// changes reaches the disk by the write after it.
func TestFollowersOfAFailedWrite(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state", "journal")
	j := openJournal(t, path)
	if err := j.Put(&Entry{ClaimUID: "kept"}); err != nil {
		t.Fatal(err)
	}
	d := &failingDisk{gate: make(chan struct{}), at: atRename, err: syscall.EIO}
	j.disk = d
	results := make(chan error)
	begin := func(work func() error) { go func() { results <- work() }() }
	waiting := func(n int) { // for the next write
		for {
			j.mu.Lock()
			ready := j.writing && (j.next == nil && n == 0 || j.next != nil && len(j.next.claims) == n)
			j.mu.Unlock()
			if ready {
				return
			}
			runtime.Gosched()
		}
	}
	begin(func() error { return j.Put(&Entry{ClaimUID: "first"}) })
	waiting(0)
	for i := range 7 {
		begin(func() error { return j.Put(&Entry{ClaimUID: types.UID(fmt.Sprint("follower ", i))}) })
	}
	begin(func() error { return j.Delete("kept") })
	waiting(8)
	close(d.gate)
	for range 9 {
		if err := <-results; !errors.Is(err, syscall.EIO) {
			t.Errorf("%v, want the disk's error", err)
		}
	}
	d.at = ""
	if err := j.Put(&Entry{ClaimUID: "after"}); err != nil {
		t.Fatal(err)
	}
	var claims []types.UID
	for _, entry := range openJournal(t, path).Entries() {
		claims = append(claims, entry.ClaimUID)
	}
	if want := []types.UID{"after", "kept"}; !slices.Equal(claims, want) {
		t.Errorf("on disk are %v, want %v", claims, want)
	}
	if d.seen[atRename] != 3 {
		t.Errorf("%d writes, want the first, one for all followers, and one after", d.seen[atRename])
	}
}

// A device whose claim is about to leave the journal is free when that is on disk.
func TestDeviceIsFreeOnceThatIsOnDisk(t *testing.T) {
	gpu := machine().GPUs[0]
	entry := func(uid types.UID) *Entry {
		return &Entry{ClaimUID: uid, BootID: boot, Devices: []Device{{Name: gpu.Name, GPU: &gpu}}}
	}
	path := filepath.Join(t.TempDir(), "state", "journal")
	j := openJournal(t, path)
	if err := j.Put(entry("first")); err != nil {
		t.Fatal(err)
	}
	d := &failingDisk{gate: make(chan struct{}), at: atRename, err: syscall.EIO}
	j.disk = d
	deleted := make(chan error)
	changed := j.Changed()
	go func() { deleted <- j.Delete("first") }()
	<-changed
	var held *HeldError
	if err := j.Put(entry("second")); !errors.As(err, &held) {
		t.Errorf("%v; the device is not free yet", err)
	}
	close(d.gate)
	if err := <-deleted; err == nil {
		t.Error("deleted on a disk that fails")
	}
	if err := j.Put(entry("second")); !errors.As(err, &held) {
		t.Errorf("%v; the first claim still has the device", err)
	}
	d.at = ""
	if err := errors.Join(j.Delete("first"), j.Put(entry("second"))); err != nil {
		t.Error(err)
	}
}
