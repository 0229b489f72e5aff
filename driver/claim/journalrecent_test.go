package claim

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"k8s.io/apimachinery/pkg/types"
	"pgregory.net/rapid"

	"github.com/hostler-dev/hostler/topology"
)

// slotted is a journal that has slots, and its path.
func slotted(t *testing.T) (*Journal, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "state", "journal")
	j := openJournal(t, path)
	if err := j.Checkpoint(); err != nil {
		t.Fatal(err)
	}
	return j, path
}

func contents(t *testing.T, path string) []byte {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// claimsAt are those that the next agent would find.
func claimsAt(t *testing.T, path string) string {
	t.Helper()
	j, err := ReadJournal(path)
	if err != nil {
		t.Fatal(err)
	}
	return claimsOf(j)
}

func claimsOf(j *Journal) string {
	var claims []string
	for _, entry := range j.Entries() {
		claims = append(claims, string(entry.ClaimUID))
	}
	return strings.Join(claims, " ")
}

func put(t *testing.T, j *Journal, claims ...types.UID) {
	t.Helper()
	for _, claim := range claims {
		if err := j.Put(&Entry{ClaimUID: claim}); err != nil {
			t.Fatal(err)
		}
	}
}

func TestChangesGoToSlotsUntilTheFileIsReplaced(t *testing.T) {
	j, path := slotted(t)
	before := contents(t, path)
	put(t, j, "a", "b", "c")
	if !bytes.Equal(contents(t, path), before) {
		t.Error("the file was replaced")
	}
	if got := claimsAt(t, path); got != "a b c" {
		t.Errorf("the next agent finds %q", got)
	}
	if err := j.Checkpoint(); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(recentPath(path)); err != nil {
		t.Fatal(err)
	}
	if got := claimsAt(t, path); got != "a b c" {
		t.Errorf("without the slots the file says %q", got)
	}
	put(t, j, "d") // to a file that is not there
	if got := claimsAt(t, path); got != "a b c d" {
		t.Errorf("once the slots were gone, the next agent finds %q", got)
	}
	replaced := contents(t, path)
	for range 2 {
		if err := j.Checkpoint(); err != nil || !bytes.Equal(contents(t, path), replaced) {
			t.Errorf("a file that says all is replaced: %v", err)
		}
	}
}

// Whatever of the last slot reaches the disk, the journal is that of before or of after.
func TestTornSlot(t *testing.T) {
	j, path := slotted(t)
	put(t, j, "a", "b")
	old := contents(t, recentPath(path))
	put(t, j, "c")
	fresh := contents(t, recentPath(path))
	rapid.Check(t, func(r *rapid.T) {
		torn := bytes.Clone(old)
		for range rapid.IntRange(1, 3).Draw(r, "pieces") { // a disk writes sectors in any order
			from := rapid.IntRange(0, 20).Draw(r, "from") * 64
			to := from + rapid.IntRange(0, 20).Draw(r, "length")*64
			for _, slot := range []int{0, slotSize} {
				copy(torn[slot+from:slot+to], fresh[slot+from:slot+to])
			}
		}
		if err := os.WriteFile(recentPath(path), torn, 0o600); err != nil {
			r.Fatal(err)
		}
		next, err := ReadJournal(path)
		if err != nil {
			r.Fatal(err)
		}
		if got := claimsOf(next); got != "a b" && got != "a b c" {
			r.Fatalf("the next agent finds %q", got)
		}
	})
}

func TestSlotsOfAnotherFileDoNotCount(t *testing.T) {
	for name, replace := range map[string]func(*Journal) ([]byte, error){
		"an earlier version of the agent has replaced the file": func(j *Journal) ([]byte, error) {
			return j.codec.encode(&record{Entries: []*Entry{{ClaimUID: "theirs"}}})
		},
		"an administrator has brought back one of before": func(j *Journal) ([]byte, error) {
			return j.codec.encode(&record{Entries: []*Entry{{ClaimUID: "theirs"}}, Generation: "another"})
		},
	} {
		j, path := slotted(t)
		put(t, j, "a", "b")
		raw, err := replace(j)
		if err = errors.Join(err, os.WriteFile(path, raw, 0o600)); err != nil {
			t.Fatal(err)
		}
		if got := claimsAt(t, path); got != "theirs" {
			t.Errorf("%s: the next agent finds %q", name, got)
		}
		next := openJournal(t, path)
		put(t, next, "more")
		if got := claimsAt(t, path); got != "more theirs" {
			t.Errorf("%s, and one more claim: %q", name, got)
		}
	}
}

// The slots are in the file's own version, by which an earlier agent knows whether it
// can read all of it.
func TestOtherVersionReplacesTheFile(t *testing.T) {
	j, path := slotted(t)
	put(t, j, "a")
	if err := j.Put(&Entry{ClaimUID: "later", Devices: []Device{{Name: "vf", VF: &VFChange{PF: "0000:1d:00.0"}}}}); err != nil {
		t.Fatal(err)
	}
	if raw := contents(t, path); !bytes.Contains(raw, []byte("journal.hostler.dev/v2")) || !bytes.Contains(raw, []byte(`"later"`)) {
		t.Errorf("the file says %s", raw)
	}
	if err := j.Delete("later"); err != nil {
		t.Fatal(err)
	}
	if raw := contents(t, path); !bytes.Contains(raw, []byte("journal.hostler.dev/v1")) {
		t.Errorf("without that claim the file says %s", raw)
	}
}

func TestJournalThatFitsIntoNoSlot(t *testing.T) {
	j, path := slotted(t)
	long := &Entry{ClaimUID: "long", Ending: strings.Repeat("x", slotSize)}
	if err := j.Put(long); err != nil {
		t.Fatal(err)
	}
	put(t, j, "a")
	if got := claimsAt(t, path); got != "a long" {
		t.Errorf("the next agent finds %q", got)
	}
}

func TestSecondFileThatCannotBe(t *testing.T) {
	j, path := slotted(t)
	if err := errors.Join(os.Remove(recentPath(path)), os.Mkdir(recentPath(path), 0o700)); err != nil {
		t.Fatal(err)
	}
	for i, claims := range []string{"a", "a b", "a b c"} {
		put(t, j, types.UID(rune('a'+i)))
		if err := j.Checkpoint(); err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(recentPath(path)); err != nil {
			t.Fatal(err)
		}
		if got := claimsAt(t, path); got != claims {
			t.Errorf("the file says %q", got)
		}
		if err := os.Mkdir(recentPath(path), 0o700); err != nil {
			t.Fatal(err)
		}
	}
}

// A change that comes with the replacement of the file needs no space either.
func TestChangeOnAFullDiskThatReplacesTheFile(t *testing.T) {
	j, path := slotted(t)
	put(t, j, "a")
	j.disk = &failingDisk{at: atCreate, err: syscall.ENOSPC}
	j.mu.Lock()
	j.entries["b"] = &Entry{ClaimUID: "b"}
	j.next = &write{turn: make(chan struct{}, 1), done: make(chan struct{}), whole: true}
	if err := j.commit("b"); err != nil {
		t.Fatal(err)
	}
	if got := claimsAt(t, path); got != "a b" {
		t.Errorf("the next agent finds %q", got)
	}
}

// An agent of before slots sets the file aside and leaves them where they are.
func TestSlotsOfAFileThatWasSetAside(t *testing.T) {
	j, path := slotted(t)
	vf := func(claim types.UID, name string) *Entry {
		return &Entry{ClaimUID: claim, BootID: boot, Devices: []Device{{Name: name, NIC: &topology.NIC{Name: name}, VF: &VFChange{PF: "0000:1d:00.0"}}}}
	}
	if err := errors.Join(j.Put(vf("ended", "vf-0")), j.Put(vf("held", "vf-1")), j.Delete("ended")); err != nil {
		t.Fatal(err)
	}
	aside := path + ".v2-20261121T060000.000000000Z"
	theirs, err := j.codec.encode(&record{Entries: []*Entry{{ClaimUID: "theirs", BootID: boot, Devices: []Device{{Name: "vf-1", NIC: &topology.NIC{Name: "vf-1"}}}}}})
	if err = errors.Join(err, os.Rename(path, aside), os.WriteFile(path, theirs, 0o600)); err != nil {
		t.Fatal(err)
	}
	for range 2 { // what is held by another claim is taken later
		next := openJournal(t, path)
		put(t, next, "more")
		if err := errors.Join(next.Checkpoint(), next.Delete("more"), next.Put(&Entry{ClaimUID: "more"}), next.Delete("more")); err != nil {
			t.Fatal(err)
		}
		if got := claimsOf(next); got != "theirs" {
			t.Errorf("the later agent finds %q", got)
		}
	}
	next := openJournal(t, path)
	if err := next.Delete("theirs"); err != nil {
		t.Fatal(err)
	}
	if got := claimsOf(openJournal(t, path)); got != "held" {
		t.Errorf("once its device is free, the later agent finds %q", got)
	}
}

func TestSlotsAreSetAsideWithTheirFile(t *testing.T) {
	j, path := slotted(t)
	put(t, j, "a")
	if err := os.WriteFile(path, []byte("damaged"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := claimsOf(openJournal(t, path)); got != "" {
		t.Errorf("a damaged journal says %q", got)
	}
	asides, err := filepath.Glob(path + ".damaged-*")
	if err != nil || len(asides) != 2 {
		t.Errorf("set aside: %v, %v", asides, err)
	}
}

// BenchmarkPut is one entry more and one less, each on disk, with slots and without.
func BenchmarkPut(b *testing.B) {
	for _, slots := range []bool{true, false} {
		b.Run(fmt.Sprintf("slots=%v", slots), func(b *testing.B) {
			path := filepath.Join(b.TempDir(), "journal")
			j, err := newJournal(realDisk{}, path)
			if err == nil && slots {
				err = j.Checkpoint()
			}
			for b.Loop() {
				if err = errors.Join(err, j.Put(&Entry{ClaimUID: "a"}), j.Delete("a")); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
