package claim

// What was set aside is taken back once, by who can and for as long as nobody else could,
// and is not kept for ever.

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/hostler-dev/hostler/topology"
)

// leave has a file be as if it had been set aside on that day.
func (n asideNode) leave(kind string, day int, entries ...*Entry) (file string) {
	n.t.Helper()
	codec, err := newCodec()
	if err != nil {
		n.t.Fatal(err)
	}
	raw, err := codec.encode(&record{Entries: entries})
	file = fmt.Sprintf("%s.%s-202611%02dT060000.000000000Z", n.path(), kind, day)
	if err = errors.Join(err, os.WriteFile(file, raw, 0o600)); err != nil {
		n.t.Fatal(err)
	}
	return file
}

// The journal cannot be read for an input error, and much later it can.
func TestClaimsOfAJournalThatCouldNotBeReadDoNotComeBack(t *testing.T) {
	n := asideNode{t, inMemory(t)}
	j, _ := n.open(0)
	if err := errors.Join(j.Put(onlyLater("c")), j.Put(&Entry{ClaimUID: "plain"}), j.Checkpoint()); err != nil {
		t.Fatal(err)
	}
	raw := mustRead(t, n.path())
	// Nothing is mapped where its reading begins, for which the kernel answers EIO (mem_rw in fs/proc/base.c).
	if err := errors.Join(os.Remove(n.path()), os.Symlink("/proc/self/mem", n.path())); err != nil {
		t.Fatal(err)
	}
	if _, err := os.ReadFile(n.path()); !errors.Is(err, syscall.EIO) {
		t.Skipf("no input error here: %v", err)
	}
	first, _ := n.open(0)
	if got := claimsOf(first); got != "" || sprint(reasons(first)) != "[JournalDamaged]" || !first.Incomplete() {
		t.Errorf("with no spec left there are %q, told %v, incomplete: %t", got, reasons(first), first.Incomplete())
	}
	asides, err := filepath.Glob(n.path() + ".damaged-*Z")
	if err != nil || len(asides) != 1 {
		t.Fatalf("set aside: %v, %v", asides, err)
	}
	if err := errors.Join(first.complete(), os.Remove(asides[0]), os.WriteFile(asides[0], raw, 0o600)); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		next, _ := n.open(0)
		if got := claimsOf(next); got != "" || len(reasons(next)) > 0 {
			t.Errorf("once it can be read again there are %q, told %v", got, reasons(next))
		}
	}
}

// A disk that does not take the rebuilt journal for a while has nothing taken back twice.
func TestClaimsTakenBackDoNotComeBackAfterTheirEnd(t *testing.T) {
	held := onlyLater("held")
	held.Devices[0].NIC = &topology.NIC{Name: "nic-of-held"}
	for name, test := range map[string]struct {
		disk *failingDisk
		// left is what the file says once the claim has ended.
		left string
	}{
		"the journal cannot be written at the opening": {&failingDisk{at: atCreate, err: syscall.ENOSPC}, ""},
		"another entry of the file stays in it":        {&failingDisk{}, "held"},
	} {
		t.Run(name, func(t *testing.T) {
			n := asideNode{t, inMemory(t)}
			j, _ := n.open(0)
			theirs := &Entry{ClaimUID: "theirs", BootID: boot, Devices: []Device{{Name: "nic-of-held", NIC: held.Devices[0].NIC}}}
			if err := j.Put(theirs); err != nil {
				t.Fatal(err)
			}
			entries := []*Entry{onlyLater("ends")}
			if test.left != "" {
				entries = append(entries, held)
			}
			file := n.leave("v2", 21, entries...)
			j, err := openOn(quiet(), test.disk, n.path(), n.specs())
			if err != nil {
				t.Fatal(err)
			}
			if got := claimsOf(j); got != "ends theirs" {
				t.Errorf("taken back: %q", got)
			}
			test.disk.at = ""
			if err := errors.Join(j.Settle(), j.Delete("ends")); err != nil {
				t.Fatal(err)
			}
			if next, _ := n.open(0); claimsOf(next) != "theirs" {
				t.Errorf("the next agent finds %q", claimsOf(next))
			}
			if test.left != "" {
				if got := claimsAt(t, file); got != test.left {
					t.Errorf("the file is kept for %q", got)
				}
			}
			j, _ = n.open(0)
			if err := j.Delete("theirs"); err != nil {
				t.Fatal(err)
			}
			if next, _ := n.open(0); claimsOf(next) != test.left {
				t.Errorf("once the device is free, there are %q, want %q", claimsOf(next), test.left)
			}
			n.isTidy(name)
		})
	}
}

func TestKilledWhileAFileIsLeftWithWhatIsHeld(t *testing.T) {
	given := func(n asideNode) {
		held := onlyLater("held")
		held.Devices[0].NIC = &topology.NIC{Name: "nic-of-held"}
		j, _ := n.open(0)
		if err := j.Put(&Entry{ClaimUID: "theirs", BootID: boot, Devices: []Device{{Name: "nic-of-held", NIC: held.Devices[0].NIC}}}); err != nil {
			t.Fatal(err)
		}
		n.leave("v2", 21, onlyLater("taken"), held)
	}
	killedAtOpening(t, 12, given, func(n asideNode, name string) {
		j, _ := n.open(0)
		if got := claimsOf(j); got != "taken theirs" {
			t.Errorf("%s: the next agent finds %q", name, got)
		}
		if err := errors.Join(j.Delete("taken"), j.Delete("theirs")); err != nil {
			t.Fatal(err)
		}
		n.forward(name, "held")
	})
}

// Of two files with an entry of the same claim the later one tells what became of it.
func TestTheLatestFileSaysItBest(t *testing.T) {
	n := asideNode{t, inMemory(t)}
	ending := onlyLater("c")
	ending.Ending = "its netdev is still in a pod"
	n.leave("v2", 20, onlyLater("c"))
	n.leave("v2", 21, ending)
	j, _ := n.open(0)
	sameEntries(t, "taken back", []*Entry{ending}, j.Entries())
	n.isTidy("both")
}

func TestFilesSetAsideAreNotKeptForEver(t *testing.T) {
	n := asideNode{t, inMemory(t)}
	for day := 1; day <= 9; day++ {
		for _, kind := range []string{"v3", "v4"} {
			n.leave(kind, day, onlyLater(kind))
		}
		file := n.leave("damaged", day)
		if err := os.WriteFile(recentPath(file), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	n.relabel("journal.v3-*", "v2", "v3")
	n.relabel("journal.v4-*", "v2", "v4")
	// What an agent was writing when it was killed.
	if err := os.WriteFile(temporaryPath(n.path()+".v2-20261121T060000.000000000Z"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	n.open(0)
	var want []string
	for _, kind := range []string{"damaged", "v3", "v4"} {
		for day := 6; day <= 9; day++ {
			file := fmt.Sprintf("%s.%s-202611%02dT060000.000000000Z", n.path(), kind, day)
			if want = append(want, file); kind == "damaged" {
				want = append(want, recentPath(file))
			}
		}
	}
	got, err := filepath.Glob(n.path() + ".*-*")
	if slices.Sort(got); err != nil || !slices.Equal(got, want) {
		t.Errorf("left are\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// An earlier version met a damaged journal, and rebuilt of it what it could. The next agent
// can more, as long as nobody has said that the journal is complete.
func TestSpecsThatAnEarlierVersionCouldNotReadAreTakenLater(t *testing.T) {
	directory := t.TempDir()
	r := upgraded(t, directory)
	if err := os.WriteFile(r.path, []byte("damaged"), 0o600); err != nil {
		t.Fatal(err)
	}
	newRoom(t, directory, boot) // the earlier version
	spec := r.cdi.File("uid-machine")
	raw := strings.ReplaceAll(string(mustRead(t, spec)), journalGroup+"/v3", journalGroup+"/v2")
	if err := os.WriteFile(spec, []byte(raw), 0o600); err != nil {
		t.Fatal(err)
	}
	back := newRoom(t, directory, boot)
	sameEntries(t, "taken from its spec", []*Entry{inUserSpace()}, []*Entry{back.journal.Entry("uid-machine")})
	if !slices.Contains(reasons(back.journal), "JournalTakenBack") {
		t.Errorf("told: %v", reasons(back.journal))
	}
	if err := back.journal.complete(); err != nil {
		t.Fatal(err)
	}
	if err := back.journal.Delete("uid-machine"); err != nil {
		t.Fatal(err)
	}
	if entry := newRoom(t, directory, boot).journal.Entry("uid-machine"); entry != nil {
		t.Error("a complete journal has taken an entry from a spec, which is reconciliation's to remove")
	}
}

// The claim was being undone, in which its spec is of no more use.
func TestWhatWasSetAsideSaysMoreThanASpec(t *testing.T) {
	directory := t.TempDir()
	r := upgraded(t, directory)
	newRoom(t, directory, boot) // the earlier version
	spec := r.cdi.File("uid-machine")
	raw := strings.ReplaceAll(string(mustRead(t, spec)), journalGroup+"/v3", journalGroup+"/v2")
	asides, err := filepath.Glob(r.path + ".v3-*Z")
	if err = errors.Join(err, os.WriteFile(spec, []byte(raw), 0o600)); err != nil || len(asides) != 1 {
		t.Fatal(asides, err)
	}
	ending := inUserSpace()
	ending.Ending = "the CDI directory cannot be written"
	file, err := r.journal.codec.encode(&record{Entries: []*Entry{ending}})
	if err = errors.Join(err, os.WriteFile(asides[0], file, 0o600)); err != nil {
		t.Fatal(err)
	}
	back := newRoom(t, directory, boot)
	sameEntries(t, "taken back", []*Entry{ending}, []*Entry{back.journal.Entry("uid-machine")})
}
