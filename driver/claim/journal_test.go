package claim

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"k8s.io/apimachinery/pkg/types"

	"github.com/hostler-dev/hostler/driver/cdi"
)

func openJournal(t *testing.T, path string) *Journal {
	t.Helper()
	j, err := OpenJournal(t.Context(), path, cdi.Directory{Path: filepath.Join(t.TempDir(), "none")})
	if err != nil {
		t.Fatal(err)
	}
	return j
}

func sameEntries(t *testing.T, what string, want, got []*Entry) {
	t.Helper()
	if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Prefix{}, netip.Addr{}), cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

func TestJournalSurvivesRestart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state", "journal")
	j := openJournal(t, path)
	full, err := plan(with(allocated("a", onNIC("nic-0000-18-00-0"), onGPU("gpu-0000-17-00-0")), claim, `NICConfig {"addresses": ["10.1.0.5/24"], "routes": [{"destination": "10.2.0.0/16"}]}`))
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range []*Entry{full, {ClaimUID: "b"}, {ClaimUID: "c"}} {
		if err := j.Put(entry); err != nil {
			t.Fatal(err)
		}
	}
	if err := j.Delete("b"); err != nil {
		t.Fatal(err)
	}
	sameEntries(t, "after a restart", j.Entries(), openJournal(t, path).Entries())
	if len(j.Entries()) != 2 {
		t.Errorf("%d entries, want 2", len(j.Entries()))
	}
}

func TestDamagedJournalIsSetAsideAndRebuilt(t *testing.T) {
	for name, damage := range map[string]func([]byte) []byte{
		"cut short":          func(b []byte) []byte { return b[:len(b)/2] },
		"empty":              func([]byte) []byte { return nil },
		"one letter changed": func(b []byte) []byte { return bytes.Replace(b, []byte("GPU-a"), []byte("GPU-z"), 1) },
		"not a journal":      func([]byte) []byte { return []byte("{}\n") },
		"of another kind":    func([]byte) []byte { return mustEncode(`{"apiVersion":"journal.hostler.dev/v1","kind":"Diary"}`) },
		"of a version that cannot be": func([]byte) []byte {
			return mustEncode(`{"apiVersion":"journal.hostler.dev/../../v9","kind":"Journal"}`)
		},
	} {
		t.Run(name, func(t *testing.T) {
			directory := t.TempDir()
			r := newRoom(t, directory, boot)
			for _, c := range []string{"gpu-0000-17-00-0", "gpu-0000-27-00-0"} {
				if _, err := r.prepare(allocated(c, onGPU(c))); err != nil {
					t.Fatal(err)
				}
			}
			raw, err := os.ReadFile(r.path)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(r.path, damage(slices.Clone(raw)), 0o600); err != nil {
				t.Fatal(err)
			}
			again := newRoom(t, directory, boot)
			sameEntries(t, "rebuilt from the CDI specs", r.journal.Entries(), again.journal.Entries())
			if aside, _ := filepath.Glob(r.path + ".damaged-*"); len(aside) != 1 {
				t.Errorf("set aside: %v", aside)
			}
			sameEntries(t, "after one more restart", r.journal.Entries(), newRoom(t, directory, boot).journal.Entries())
		})
	}
}

func TestDeletedJournalIsRebuilt(t *testing.T) {
	directory := t.TempDir()
	r := newRoom(t, directory, boot)
	if _, err := r.prepare(allocated("c", onGPU("gpu-0000-17-00-0"))); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(r.path); err != nil {
		t.Fatal(err)
	}
	sameEntries(t, "rebuilt from the CDI specs", r.journal.Entries(), newRoom(t, directory, boot).journal.Entries())
}

func TestJournalThatCannotBeWritten(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state", "journal")
	j := openJournal(t, path)
	if err := j.Put(&Entry{ClaimUID: "kept"}); err != nil {
		t.Fatal(err)
	}
	// A directory in the temporary file's place fails for root, too.
	if err := os.Mkdir(path+".tmp", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := j.Put(&Entry{ClaimUID: "new"}); err == nil {
		t.Error("an entry was accepted that is not on disk")
	}
	if err := j.Delete("kept"); err == nil {
		t.Error("an entry was deleted that is still on disk")
	}
	if entries := j.Entries(); len(entries) != 1 || entries[0].ClaimUID != "kept" {
		t.Errorf("entries in memory differ from those on disk: %v", entries)
	}
}

func TestConcurrentChangesAreAllDurable(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state", "journal")
	j := openJournal(t, path)
	var all sync.WaitGroup
	errs := make([]error, 64)
	for i := range errs {
		all.Go(func() {
			uid := types.UID(fmt.Sprint(i))
			errs[i] = j.Put(&Entry{ClaimUID: uid})
			if i%2 == 0 {
				errs[i] = errors.Join(errs[i], j.Delete(uid))
			}
		})
	}
	all.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	if got := openJournal(t, path).Entries(); len(got) != 32 {
		t.Errorf("%d entries on disk, want 32", len(got))
	}
}
