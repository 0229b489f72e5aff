package claim

// Whatever the journal's file is like when it is opened, the agent serves the node,
// and says what happened.

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/hostler-dev/hostler/driver/cdi"
)

// later makes what this version wrote into what a later one would have written.
func later(raw []byte) []byte {
	raw = bytes.ReplaceAll(raw, []byte(journalGroup+"/v2"), []byte(journalGroup+"/v3"))
	raw = bytes.ReplaceAll(raw, []byte(journalGroup+"/v1"), []byte(journalGroup+"/v3"))
	return raw
}

func laterJournal(t *testing.T, raw []byte) []byte {
	t.Helper()
	_, body, found := strings.Cut(string(raw), "\n")
	if !found {
		t.Fatal("not a journal")
	}
	return mustEncode(string(later([]byte(body))))
}

func reasons(j *Journal) []string {
	var list []string
	for _, recovery := range j.Recoveries() {
		list = append(list, recovery.Reason)
	}
	return list
}

// upgraded is a node on which a later version prepared a claim that only it can undo,
// beside one that all can.
func upgraded(t *testing.T, directory string) *room {
	t.Helper()
	r := newRoom(t, directory, boot)
	if _, err := r.prepare(allocated("plain", onGPU("gpu-0000-27-00-0"))); err != nil {
		t.Fatal(err)
	}
	machine := inUserSpace()
	if err := r.journal.Put(machine); err != nil {
		t.Fatal(err)
	}
	entry, err := encodeEntry(machine)
	if err != nil {
		t.Fatal(err)
	}
	spec, err := r.steps.Specs.Build(t.Context(), machine.cdiClaim())
	if err != nil {
		t.Fatal(err)
	}
	spec.Annotations["hostler.dev/journal-entry"] = string(later(entry))
	raw, err := cdi.Encode(machine.ClaimUID, spec)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.cdi.Ensure(machine.ClaimUID, raw); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(r.path, laterJournal(t, mustRead(t, r.path)), 0o600); err != nil {
		t.Fatal(err)
	}
	return r
}

func TestJournalOfALaterVersion(t *testing.T) {
	directory := t.TempDir()
	upgraded(t, directory)
	machine := allocated("machine", onGPU("gpu-0000-17-00-0"), onNIC("nic-0000-1d-00-1"))
	for _, start := range []string{"the first start", "the second"} {
		r := newRoom(t, directory, boot)
		if want := map[string]string{"the first start": "[JournalSetAside ClaimsOfLaterVersion]", "the second": "[ClaimsOfLaterVersion]"}[start]; sprint(reasons(r.journal)) != want {
			t.Errorf("%s: %v, want %s", start, reasons(r.journal), want)
		}
		if entries := r.journal.Entries(); len(entries) != 1 || entries[0].ClaimName != "plain" {
			t.Errorf("%s: entries %v; want the claim that all versions can undo", start, entries)
		}
		var later *LaterError
		if _, err := r.prepare(machine); !errors.As(err, &later) || later.Claim != "team/machine" || later.Version != "v3" {
			t.Errorf("%s: prepare of the later version's claim: %v", start, err)
		}
		if err := r.Unprepare(t.Context(), machine.UID); !errors.As(err, &later) || !strings.Contains(err.Error(), "hostler release") {
			t.Errorf("%s: unprepare of the later version's claim: %v", start, err)
		}
		var held *HeldError
		if _, err := r.prepare(allocated("other", onGPU("gpu-0000-17-00-0"))); !errors.As(err, &held) || held.Holder != machine.UID {
			t.Errorf("%s: another claim for its device: %v", start, err)
		}
		if err := r.Reconcile(t.Context(), reader(allocated("plain", onGPU("gpu-0000-27-00-0"))), r.cdi); err != nil {
			t.Error(err)
		}
		if specs, err := r.cdi.List(); err != nil || !slices.Contains(specs, machine.UID) {
			t.Errorf("%s: the later version's spec is gone: %v, %v", start, specs, err)
		}
	}
	// After a reboot nothing of it is on the machine.
	r := newRoom(t, directory, "second-boot")
	if err := r.Unprepare(t.Context(), machine.UID); err != nil {
		t.Errorf("unprepare after a reboot: %v", err)
	}
}

// The later version comes back and finds what it left.
func TestEntriesSetAsideAreTakenBack(t *testing.T) {
	directory := t.TempDir()
	r := upgraded(t, directory)
	newRoom(t, directory, boot) // the earlier version
	asides, err := filepath.Glob(r.path + ".v3-*")
	if err != nil || len(asides) != 1 {
		t.Fatalf("%v, %v", asides, err)
	}
	// The version that comes back reads the file, which to this one is of version 2.
	_, body, _ := strings.Cut(string(mustRead(t, asides[0])), "\n")
	if err := os.WriteFile(asides[0], mustEncode(strings.ReplaceAll(body, journalGroup+"/v3", journalGroup+"/v2")), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(r.cdi.File("uid-machine")); err != nil {
		t.Fatal(err)
	}
	back := newRoom(t, directory, boot)
	sameEntries(t, "taken back", []*Entry{inUserSpace()}, []*Entry{back.journal.Entry("uid-machine")})
	if _, err := os.Stat(asides[0]); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the file is still there: %v", err)
	}
	if !slices.Contains(reasons(back.journal), "JournalTakenBack") {
		t.Errorf("reasons %v", reasons(back.journal))
	}
	sameEntries(t, "after one more start", back.journal.Entries(), newRoom(t, directory, boot).journal.Entries())
}

// What an earlier version could handle itself it may have given back since.
func TestPlainEntriesSetAsideAreNot(t *testing.T) {
	directory := t.TempDir()
	r := newRoom(t, directory, boot)
	aside := r.path + ".v2-20261121T060000.000000000Z"
	if err := os.WriteFile(aside, mustRead(t, "testdata", "journal-v1"), 0o600); err != nil {
		t.Fatal(err)
	}
	if entries := newRoom(t, directory, boot).journal.Entries(); len(entries) != 0 {
		t.Errorf("taken back: %v", entries)
	}
	if _, err := os.Stat(aside); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the file is kept, of which nothing is needed: %v", err)
	}
}

func TestEntrySetAsideWhoseDeviceIsTaken(t *testing.T) {
	directory := t.TempDir()
	r := newRoom(t, directory, boot)
	if _, err := r.prepare(allocated("new", onGPU("gpu-0000-17-00-0"))); err != nil {
		t.Fatal(err)
	}
	aside := r.path + ".v2-20261121T060000.000000000Z"
	if err := os.WriteFile(aside, mustRead(t, "testdata", "journal-v2"), 0o600); err != nil {
		t.Fatal(err)
	}
	if entries := newRoom(t, directory, boot).journal.Entries(); len(entries) != 1 || entries[0].ClaimName != "new" {
		t.Errorf("entries %v; want the new claim alone", entries)
	}
	if err := newRoom(t, directory, boot).Unprepare(t.Context(), "uid-new"); err != nil {
		t.Fatal(err)
	}
	if entries := newRoom(t, directory, boot).journal.Entries(); len(entries) != 1 || entries[0].ClaimName != "machine" {
		t.Errorf("entries %v once the device is free; want the earlier claim", entries)
	}
}

// The disk is full, or fails, just when the journal is found damaged: the node is
// served from memory, and the journal written when that is possible.
func TestDamagedJournalOnAFailingDisk(t *testing.T) {
	for _, fault := range []error{syscall.ENOSPC, syscall.EIO} {
		for _, p := range points {
			directory := t.TempDir()
			r := newRoom(t, directory, boot)
			if _, err := r.prepare(allocated("c", onGPU("gpu-0000-17-00-0"))); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(r.path, []byte("damaged"), 0o600); err != nil {
				t.Fatal(err)
			}
			d := &failingDisk{at: p, err: fault}
			j, err := openOn(t.Context(), d, r.path, r.cdi)
			if err != nil {
				t.Fatalf("%v at %s: %v", fault, p, err)
			}
			sameEntries(t, "rebuilt", r.journal.Entries(), j.Entries())
			again := *j.Entry("uid-c")
			again.Pods = nil
			if err := j.Put(&again); err == nil {
				t.Errorf("%v at %s: written to a disk that fails", fault, p)
			}
			sameEntries(t, "after a change that could not be written", r.journal.Entries(), j.Entries())
			d.at = ""
			if err := j.Settle(); err != nil {
				t.Fatal(err)
			}
			sameEntries(t, "on disk once that works", j.Entries(), openJournal(t, r.path).Entries())
		}
	}
}

func TestOrdinaryOpeningsAreNotTold(t *testing.T) {
	directory := t.TempDir()
	r := newRoom(t, directory, boot)
	if _, err := r.prepare(allocated("c", onGPU("gpu-0000-17-00-0"))); err != nil {
		t.Fatal(err)
	}
	again := newRoom(t, directory, boot)
	if len(r.journal.Recoveries())+len(again.journal.Recoveries()) > 0 || r.journal.Incomplete() || again.journal.Incomplete() {
		t.Errorf("told: %v, %v", r.journal.Recoveries(), again.journal.Recoveries())
	}
}

func sprint(list []string) string { return "[" + strings.Join(list, " ") + "]" }
