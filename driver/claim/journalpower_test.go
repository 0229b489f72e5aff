package claim

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/types"
	"pgregory.net/rapid"

	"github.com/hostler-dev/hostler/driver/cdi"
)

// powerLife is a journal on a disk that fails, and what the next agent may find.
type powerLife struct {
	t       *rapid.T
	disk    *powerDisk
	path    string
	journal *Journal
	// state are the claims as they were acknowledged; allowed are these, and what an
	// error has left open since.
	state   []string
	allowed map[string]bool
}

func (l *powerLife) open() {
	var err error
	l.journal, err = openOn(context.Background(), l.disk, l.path, cdi.Directory{Path: filepath.Join(l.disk.directory, "cdi")})
	if err != nil {
		l.t.Fatal(err)
	}
}

// change adds a claim or takes it away. Claims d are of the journal's second version.
func (l *powerLife) change(claim string) {
	entry := &Entry{ClaimUID: types.UID(claim)}
	if claim == "d" {
		entry.Devices = []Device{{Name: "vf", VF: &VFChange{PF: "0000:1d:00.0"}}}
	}
	want := slices.Clone(l.state)
	var err error
	if i := slices.Index(want, claim); i >= 0 {
		want, err = slices.Delete(want, i, i+1), l.journal.Delete(entry.ClaimUID)
	} else {
		want, err = append(want, claim), l.journal.Put(entry)
	}
	slices.Sort(want)
	now := strings.Join(want, " ")
	if err == nil {
		l.state, l.allowed = want, map[string]bool{}
	}
	l.allowed[now] = true
}

// restart has the next agent read what there is.
func (l *powerLife) restart() {
	l.open()
	got := claimsOf(l.journal)
	if recoveries := l.journal.Recoveries(); len(recoveries) > 0 {
		l.t.Fatalf("the next agent finds the journal %v", recoveries)
	}
	if !l.allowed[got] {
		l.t.Fatalf("the next agent finds the claims %q, and not one of %q", got, slices.Sorted(maps.Keys(l.allowed)))
	}
	l.state = strings.Fields(got)
}

// What was acknowledged is there, and nothing else but what an error left open, after
// any order of changes, disk errors, kills and power failures.
func TestJournalOutlivesErrorsKillsAndPowerFailures(t *testing.T) {
	root, lives := t.TempDir(), 0
	rapid.Check(t, func(r *rapid.T) {
		lives++
		directory := filepath.Join(root, fmt.Sprint(lives))
		if err := os.Mkdir(directory, 0o700); err != nil {
			r.Fatal(err)
		}
		l := &powerLife{t: r, disk: newPowerDisk(r, directory), path: filepath.Join(directory, "journal"), allowed: map[string]bool{"": true}}
		l.open()
		for range rapid.IntRange(1, 25).Draw(r, "operations") {
			l.disk.killed, l.disk.fails = -1, -1
			switch rapid.IntRange(0, 9).Draw(r, "trouble") {
			case 0, 1:
				l.disk.fails = rapid.IntRange(0, 6).Draw(r, "fails after")
			case 2:
				l.disk.killed = rapid.IntRange(0, 8).Draw(r, "killed after")
			}
			killed := l.disk.killed >= 0
			if claim := rapid.SampledFrom([]string{"a", "b", "c", "d", ""}).Draw(r, "claim"); claim != "" {
				l.change(claim)
			} else {
				_ = l.journal.Checkpoint() // on this disk it may fail
			}
			l.disk.killed, l.disk.fails = -1, -1
			power := rapid.IntRange(0, 7).Draw(r, "power failure") == 0
			if power {
				if err := l.disk.powerFails(); err != nil {
					r.Fatal(err)
				}
			}
			if killed || power || rapid.IntRange(0, 7).Draw(r, "restart") == 0 {
				l.restart()
			}
		}
		if err := os.RemoveAll(directory); err != nil {
			r.Fatal(err)
		}
	})
}
