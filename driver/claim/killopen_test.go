package claim

// The agent is killed at every moment of its start, too, where that finds the journal
// damaged, or gone, and rebuilds it from CDI specs, or from the API server if these are
// gone with it. The next agent finds what is needed to go on, and the administrator the
// file that was set aside.

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/hostler-dev/hostler/driver/cdi"
)

// open is the start of an agent that is killed at that moment, and what it died of.
func (w *world) open(at int) *killer {
	k := &killer{at: at}
	path := filepath.Join(w.directory, "state", "journal")
	// A dead agent's error is heard by nobody, and with an error it can go on, too.
	_, _ = openOn(quiet(), mortalDisk{killer: k}, path, cdi.Directory{Path: filepath.Join(w.directory, "cdi")})
	return k
}

// doomed are the kinds whose agents are killed, see TestKilledAtEveryMoment.
func doomed() []kind {
	if raceDetector {
		return []kind{everything()}
	}
	return append(killed(), everything())
}

func TestKilledWhileTheJournalIsRebuilt(t *testing.T) {
	for _, damage := range []struct {
		name   string
		happen func(path string) error
		aside  bool
	}{
		{"damaged", func(path string) error { return os.WriteFile(path, []byte("damaged"), 0o600) }, true},
		{"cut short", func(path string) error { return os.Truncate(path, 40) }, true},
		{"deleted", os.Remove, false},
		{"deleted, and what continues it", func(path string) error { return errors.Join(os.Remove(path), os.Remove(recentPath(path))) }, false},
	} {
		for _, k := range doomed() {
			for at := 1; ; at++ {
				w := newWorld(t, inMemory(t))
				w.bus()
				start := w.still()
				prepared(w, k)
				before := w.still()
				path := filepath.Join(w.directory, "state", "journal")
				if err := damage.happen(path); err != nil {
					t.Fatal(err)
				}
				first := w.open(at)
				name := fmt.Sprintf("%s, %s, killed at moment %d (%s)", k.name, damage.name, at, first.last)
				a := w.start(0)
				if err := errors.Join(a.recover(k), a.reconcile(k.claim("c")), prepare(a, k)); err != nil {
					t.Fatalf("%s: the next agent: %v", name, err)
				}
				if diff := cmp.Diff(before, w.still()); diff != "" {
					t.Fatalf("%s: the claim is not as it was (-before +after):\n%s", name, diff)
				}
				if asides, err := filepath.Glob(path + ".damaged-*"); err != nil || (len(asides) > 0) != damage.aside {
					t.Fatalf("%s: set aside is %v (%v)", name, asides, err)
				}
				w.ends(t, a, k, start, name)
				if !first.dead {
					if at < 6 {
						t.Errorf("%s: only %d moments to be killed at", name, at-1)
					}
					break
				}
			}
		}
	}
}

// With the specs gone, too, the claims are prepared anew, and the agent may be killed
// at any moment of that. No hardware was changed for these kinds, whose doing nobody
// could tell any more.
func TestKilledWhileTheAPIServerIsAskedForClaims(t *testing.T) {
	for _, k := range killed() {
		if k.changesHardware() || raceDetector && k.name != "nic pf" {
			continue
		}
		for at := 1; ; at++ {
			w := newWorld(t, inMemory(t))
			start := w.still()
			if err := prepare(w.start(0), k); err != nil {
				t.Fatal(err)
			}
			before := w.still()
			w.wipe()
			if err := os.WriteFile(filepath.Join(w.directory, "state", "journal"), []byte("damaged"), 0o600); err != nil {
				t.Fatal(err)
			}
			first := w.start(at)
			err := first.recover(k)
			name := fmt.Sprintf("%s, killed at moment %d (%s)", k.name, at, first.last)
			if first.dead == (err == nil) {
				t.Fatalf("%s: dead: %t, %v", name, first.dead, err)
			}
			a := w.start(0)
			if err := errors.Join(a.recover(k), a.reconcile(k.claim("c"))); err != nil {
				t.Fatalf("%s: the next agent: %v", name, err)
			}
			if diff := cmp.Diff(before, w.still()); diff != "" || a.journal.Incomplete() {
				t.Fatalf("%s: not complete: %t; the claim (-before +after):\n%s", name, a.journal.Incomplete(), diff)
			}
			w.ends(t, a, k, start, name)
			if !first.dead {
				if at < 15 {
					t.Errorf("%s: only %d moments to be killed at", name, at-1)
				}
				break
			}
		}
	}
}

// An agent that is killed in the middle of writing a file leaves a part of it, which
// ends with the claim.
func TestKilledInTheMiddleOfAFile(t *testing.T) {
	k := kind{devices: [][2]string{onNIC("nic-0000-19-00-0")}, configs: []string{`NICConfig {"attach": "Multus"}`}}
	for _, directory := range []string{"cdi", "metadata", filepath.Join("devinfo", "dp")} {
		w := newWorld(t, t.TempDir())
		start := w.still()
		prepared(w, k)
		files, err := filepath.Glob(filepath.Join(w.directory, directory, "*.json"))
		if err != nil || len(files) != 1 {
			t.Fatalf("%s has %v (%v)", directory, files, err)
		}
		part := filepath.Join(filepath.Dir(files[0]), "."+filepath.Base(files[0])+".tmp")
		if err := os.WriteFile(part, []byte("{"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := unprepare(w.start(0), k); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(start, w.still()); diff != "" {
			t.Errorf("%s in the end (-want +got):\n%s", directory, diff)
		}
	}
}

// ends unprepares the kind's claim, after which the machine has to be as it was at the start.
func (w *world) ends(t *testing.T, a *agent, k kind, start still, name string) {
	t.Helper()
	if err := errors.Join(unprepare(a, k), a.reconcile()); err != nil {
		t.Fatalf("%s: in the end: %v", name, err)
	}
	if diff := cmp.Diff(start, w.still()); diff != "" {
		t.Fatalf("%s: the machine in the end (-want +got):\n%s", name, diff)
	}
	if err := os.RemoveAll(w.directory); err != nil {
		t.Fatal(err)
	}
}
