package claim

// Going back to an earlier version of the agent, and forward again, with a kill at
// every moment of every opening of the journal on the way.

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/types"
	"pgregory.net/rapid"

	"github.com/hostler-dev/hostler/driver/cdi"
)

// asideNode is where agents of two versions take turns, with no CDI spec left: what
// the journals do not say is lost.
type asideNode struct {
	t         *testing.T
	directory string
}

func (n asideNode) path() string { return filepath.Join(n.directory, "journal") }

func (n asideNode) specs() cdi.Directory {
	return cdi.Directory{Path: filepath.Join(n.directory, "cdi")}
}

// open has an agent open the journal, to be killed at that moment, 0 for never.
func (n asideNode) open(at int) (*Journal, *killer) {
	n.t.Helper()
	k := &killer{at: at}
	j, err := openOn(quiet(), removingDisk{mortalDisk{killer: k}}, n.path(), n.specs())
	if err != nil && !k.isDead() {
		n.t.Fatal(err)
	}
	return j, k
}

// removingDisk has moments before and after a file is removed, too.
type removingDisk struct{ mortalDisk }

func (d removingDisk) Remove(path string) error {
	return d.killer.between("removing "+filepath.Base(path), func() error { return d.realDisk.Remove(path) })
}

// onlyLater is a claim that version 1 cannot express, of a VF that nobody else has.
func onlyLater(claim string) *Entry {
	return &Entry{ClaimUID: types.UID(claim), BootID: boot, Devices: []Device{{Name: "nic-of-" + claim, VF: &VFChange{PF: "0000:1d:00.0"}}}}
}

// relabel has all journals, and the slots beside them, be of another version than they were.
func (n asideNode) relabel(pattern, from, to string) {
	n.t.Helper()
	files, err := filepath.Glob(filepath.Join(n.directory, pattern))
	if err != nil {
		n.t.Fatal(err)
	}
	relabelled := func(raw []byte) []byte {
		_, body, _ := strings.Cut(string(raw), "\n")
		return mustEncode(strings.ReplaceAll(body, journalGroup+"/"+from, journalGroup+"/"+to))
	}
	for _, file := range files {
		raw := mustRead(n.t, file)
		if !strings.HasSuffix(file, recentPath("")) {
			raw = relabelled(raw)
		} else {
			for slot := range 2 {
				place := raw[slot*slotSize : (slot+1)*slotSize]
				header, rest, _ := bytes.Cut(place, []byte("\n"))
				length, err := strconv.Atoi(strings.TrimPrefix(string(header), slotHeader))
				if err != nil {
					continue // an empty one
				}
				changed := relabelled(rest[:length])
				clear(place)
				copy(place, fmt.Appendf(nil, "%s%d\n%s", slotHeader, len(changed), changed))
			}
		}
		if err := os.WriteFile(file, raw, 0o600); err != nil {
			n.t.Fatal(err)
		}
	}
}

// upgrade is the later version's time. What it did last is in the slots alone.
func (n asideNode) upgrade() {
	n.t.Helper()
	j, _ := n.open(0)
	if err := errors.Join(j.Put(onlyLater("gone")), j.Put(onlyLater("stays")), j.Checkpoint(), j.Delete("gone"), j.Put(onlyLater("late"))); err != nil {
		n.t.Fatal(err)
	}
	n.relabel("journal*", "v2", "v3")
}

// work is an earlier version's time, in which it writes all files that are its own.
func (n asideNode) work(j *Journal) {
	n.t.Helper()
	plain := func(uid types.UID) *Entry { return &Entry{ClaimUID: uid, BootID: boot} }
	if err := errors.Join(j.Put(plain("plain")), j.Checkpoint(), j.Put(plain("a")), j.Delete("a"), j.Put(plain("b")), j.Delete("b")); err != nil {
		n.t.Fatal(err)
	}
}

// forward has the later version come back.
func (n asideNode) forward(name, want string) {
	n.t.Helper()
	n.relabel("journal.v3-*", "v3", "v2")
	j, _ := n.open(0)
	if got := claimsOf(j); got != want {
		n.t.Errorf("%s: the later version finds claims %q, and left or met %q", name, got, want)
	}
	n.isTidy(name)
}

// isTidy looks whether anything of what was set aside is left.
func (n asideNode) isTidy(name string) {
	n.t.Helper()
	if left, err := filepath.Glob(n.path() + ".*-*"); err != nil || len(left) > 0 {
		n.t.Errorf("%s: left: %v, %v", name, left, err)
	}
}

// killed calls test with a node for each moment of what opening it passes, on which an
// agent was killed then.
func killedAtOpening(t *testing.T, atLeast int, given func(asideNode), test func(n asideNode, name string)) {
	t.Helper()
	fresh := func() asideNode {
		n := asideNode{t, inMemory(t)}
		given(n)
		return n
	}
	_, unkilled := fresh().open(0)
	if unkilled.moments < atLeast {
		t.Errorf("only %d moments to be killed at, want %d", unkilled.moments, atLeast)
	}
	for at := 1; at <= unkilled.moments; at++ {
		n := fresh()
		_, k := n.open(at)
		if !k.isDead() {
			t.Fatalf("moment %d: it lives", at)
		}
		test(n, fmt.Sprintf("killed at moment %d (%s)", at, k.last))
	}
}

func TestKilledWhileALaterJournalIsSetAside(t *testing.T) {
	killedAtOpening(t, 9, asideNode.upgrade, func(n asideNode, name string) {
		j, _ := n.open(0)
		if !j.Incomplete() {
			n.t.Errorf("%s: the next agent takes nothing for lost: %v", name, j.Recoveries())
		}
		n.work(j)
		n.forward(name, "late plain stays")
	})
}

// The later version is the next to run. Until another has written one, the journal is its
// own with all that it says: a leftover, for which there is no spec, and which version 1 can
// express, is in no other place.
func TestKilledWhileSettingAsideAndThenForward(t *testing.T) {
	given := func(n asideNode) {
		j, _ := n.open(0)
		if err := j.Put(&Entry{ClaimUID: "left", BootID: boot, Released: true, Devices: []Device{{Name: "partition"}}}); err != nil {
			t.Fatal(err)
		}
		n.upgrade()
	}
	own := 0
	killedAtOpening(t, 9, given, func(n asideNode, name string) {
		want := "late left stays"
		if raw, err := os.ReadFile(n.path()); err == nil && !bytes.Contains(raw, []byte("/v3")) {
			want = "late stays"
		} else {
			own++
		}
		n.relabel("journal*", "v3", "v2")
		n.forward(name, want)
	})
	if own < 5 {
		t.Errorf("only %d times the journal was still the later version's", own)
	}
}

func TestKilledWhileAJournalIsTakenBack(t *testing.T) {
	for earlier, given := range map[string]func(asideNode){
		"one that knows slots": func(n asideNode) {
			n.upgrade()
			j, _ := n.open(0)
			n.work(j)
			n.relabel("journal.v3-*", "v3", "v2")
		},
		"one that knows none, and leaves them where they are": func(n asideNode) {
			n.upgrade()
			slots := mustRead(n.t, recentPath(n.path()))
			if err := errors.Join(os.Rename(n.path(), n.path()+".v3-20261121T060000.000000000Z"), os.Remove(recentPath(n.path()))); err != nil {
				n.t.Fatal(err)
			}
			j, _ := n.open(0)
			n.work(j)
			if err := errors.Join(j.Checkpoint(), os.WriteFile(recentPath(n.path()), slots, 0o600)); err != nil {
				n.t.Fatal(err)
			}
			n.relabel("journal.*", "v3", "v2")
		},
	} {
		t.Run(earlier, func(t *testing.T) {
			killedAtOpening(t, 10, given, func(n asideNode, name string) { n.forward(name, "late plain stays") })
		})
	}
}

func TestKilledWhileADamagedJournalIsSetAside(t *testing.T) {
	damage := func(n asideNode) {
		j, _ := n.open(0)
		n.work(j)
		if err := os.WriteFile(n.path(), []byte("damaged"), 0o600); err != nil {
			n.t.Fatal(err)
		}
	}
	killedAtOpening(t, 9, damage, func(n asideNode, name string) {
		j, _ := n.open(0)
		if !j.Incomplete() {
			t.Errorf("%s: nobody asks the API server for what it said", name)
		}
		asides, err := filepath.Glob(n.path() + ".damaged-*Z")
		if err != nil || len(asides) != 1 || string(mustRead(t, asides[0])) != "damaged" {
			t.Fatalf("%s: set aside are %v, %v", name, asides, err)
		}
		if _, err := os.Stat(recentPath(asides[0])); err != nil {
			t.Errorf("%s: the slots are not beside it: %v", name, err)
		}
	})
}

// What an administrator removes by hand takes its slots with it.
func TestSlotsWhoseFileIsGoneAreRemoved(t *testing.T) {
	n := asideNode{t, inMemory(t)}
	slots := recentPath(n.path() + ".v3-20261121T060000.000000000Z")
	if err := os.WriteFile(slots, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if j, _ := n.open(0); j.Incomplete() {
		t.Error("a journal is taken for lost")
	}
	if _, err := os.Stat(slots); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("still there: %v", err)
	}
}

func TestOpeningEndsWhereAJournalCannotBeSetAside(t *testing.T) {
	for after, what := range []string{"its slots", "its file"} {
		n := asideNode{t, inMemory(t)}
		n.upgrade()
		d := &failingDisk{at: atLink, after: after, err: errors.New("input/output error")}
		if _, err := openOn(context.Background(), d, n.path(), n.specs()); err == nil || !strings.Contains(err.Error(), "set aside") {
			t.Errorf("%s: %v; the next write would go over them", what, err)
		}
		d.at = ""
		j, err := openOn(context.Background(), d, n.path(), n.specs())
		if err != nil {
			t.Fatal(err)
		}
		n.work(j)
		n.forward("mended", "late plain stays")
	}
}

// The machine may lose its power at any moment of it, on a disk that has written back
// what it likes of what was not synced.
func TestPowerFailsWhileALaterJournalIsSetAside(t *testing.T) {
	root, lives := inMemory(t), 0
	rapid.Check(t, func(r *rapid.T) {
		lives++
		n := asideNode{t, filepath.Join(root, fmt.Sprint(lives))}
		if err := os.Mkdir(n.directory, 0o700); err != nil {
			r.Fatal(err)
		}
		n.upgrade()
		d := newPowerDisk(r, n.directory)
		files, err := filepath.Glob(n.path() + "*")
		if err != nil {
			r.Fatal(err)
		}
		for _, file := range files {
			d.names[file] = &inode{durable: mustRead(t, file)}
		}
		d.history = []map[string]*inode{maps.Clone(d.names)}
		d.killed = rapid.IntRange(0, 12).Draw(r, "killed after")
		_, _ = openOn(quiet(), d, n.path(), n.specs()) // what a dead agent answers, nobody hears
		if err := d.powerFails(); err != nil {
			r.Fatal(err)
		}
		if rapid.Bool().Draw(r, "the later version is next") {
			n.relabel("journal*", "v3", "v2")
			n.forward("after a power failure", "late stays")
		} else {
			j, _ := n.open(0)
			n.work(j)
			n.forward("after a power failure", "late plain stays")
		}
		if t.Failed() {
			r.Fatal("see above")
		}
		if err := os.RemoveAll(n.directory); err != nil {
			r.Fatal(err)
		}
	})
}

// A disk that failed once made the journal a damaged one, and then let nobody write another.
// Now it reads well, as a later version's.
func TestLaterJournalThatWasTakenForDamagedIsTakenBack(t *testing.T) {
	n := asideNode{t, inMemory(t)}
	n.upgrade()
	damaged := n.path() + "." + asideDamaged + "-20260101T000000.000000000Z"
	for _, suffix := range []string{"", recentPath("")} {
		if err := os.Link(n.path()+suffix, damaged+suffix); err != nil {
			t.Fatal(err)
		}
	}
	j, _ := n.open(0)
	n.work(j)
	n.relabel("journal.v3-*", "v3", "v2")
	if j, _ := n.open(0); claimsOf(j) != "late plain stays" {
		t.Errorf("the later version finds claims %q", claimsOf(j))
	}
}
