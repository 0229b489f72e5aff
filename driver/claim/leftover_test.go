package claim

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/hostler-dev/hostler/driver/gpu/gputest"
	"github.com/hostler-dev/hostler/topology"
)

// die has the driver answer nothing any more.
func (r *room) die() {
	r.mig.Fault, r.silent = errors.New("Driver Not Loaded"), "the driver does not work"
}

func (r *room) revive() { r.mig.Fault, r.silent = nil, "" }

func TestLeftoverIsOursAndNobodys(t *testing.T) {
	device := migDevice()
	r := newMIGRoom(t, t.TempDir(), boot, device)
	c := allocated("c", onGPU(part1g0), onGPU(part2g4), onNIC("nic-0000-19-00-0"))
	if _, err := r.prepare(c); err != nil {
		t.Fatal(err)
	}
	r.die()
	if err := r.Unprepare(t.Context(), c.UID); err != nil {
		t.Fatalf("%v; the pod would hang in its termination", err)
	}
	left := r.journal.Entry(c.UID)
	if !left.Released || len(left.Devices) != 1 || left.Devices[0].Name != part1g0 || len(left.Pods) > 0 {
		t.Errorf("the journal keeps %+v; want the partition that was made, alone", left)
	}
	ledger, store := NewLedger(r.journal), NewStore(r.journal)
	_, intent := store.Intent(c.UID)
	if n := len(ledger.Holders()) + len(ledger.InUse()) + len(ledger.Held()) + len(store.Intents()); n > 0 || intent {
		t.Errorf("held %v, in use %v, NICs %v, intents %v", ledger.Holders(), ledger.InUse(), ledger.Held(), store.Intents())
	}
	if diff := cmp.Diff(map[string]bool{part1g0: true}, ledger.Made(boot)); diff != "" {
		t.Errorf("made for claims (-want +got):\n%s", diff)
	}
	changed := r.journal.Changed()
	if err := r.Reconcile(t.Context(), reader(c), r.cdi); err != nil {
		t.Errorf("a driver that is still dead: %v", err)
	}
	select {
	case <-changed:
		t.Error("nothing is different, and the journal was written")
	default:
	}
	if !r.journal.Entry(c.UID).Released {
		t.Error("the claim came back to life")
	}
	r.revive()
	if err := r.Reconcile(t.Context(), reader(c), r.cdi); err != nil || len(r.journal.Entries()) != 0 {
		t.Errorf("%v, %d entries", err, len(r.journal.Entries()))
	}
	if diff := cmp.Diff([]topology.MIGInstance{wholeAt(14, theirs)}, instances(device)); diff != "" {
		t.Errorf("instances (-want +got):\n%s", diff)
	}
}

func TestLeftoverEnds(t *testing.T) {
	for _, test := range []struct {
		name string
		then func(*testing.T, *room, *gputest.GPU)
		left bool
	}{
		{"when its claim is prepared again", func(t *testing.T, r *room, _ *gputest.GPU) {
			if _, err := r.prepare(allocated("c", onGPU(part1g0))); err != nil {
				t.Fatal(err)
			}
			if entry := r.journal.Entry("uid-c"); entry.Released {
				t.Error("the prepared claim is marked as released")
			}
			if err := r.Unprepare(t.Context(), "uid-c"); err != nil {
				t.Fatal(err)
			}
		}, false},
		{"when it is seen gone", func(_ *testing.T, _ *room, d *gputest.GPU) { d.Reboot() }, false},
		{"not while processes use it", func(_ *testing.T, _ *room, d *gputest.GPU) {
			d.SetBusy(d.Snapshot().MIG.Instances[0].GPUInstance, true)
		}, true},
	} {
		device := gputest.New(migPCI)
		r := newMIGRoom(t, t.TempDir(), boot, device)
		_, err := r.prepare(allocated("c", onGPU(part1g0)))
		r.die()
		if err := errors.Join(err, r.Unprepare(t.Context(), "uid-c")); err != nil {
			t.Fatal(err)
		}
		if _, err := r.prepare(allocated("c", onNIC("nic-0000-19-00-0"))); err == nil || !strings.Contains(err.Error(), part1g0) {
			t.Errorf("%v; the journal would forget the partition", err)
		}
		r.revive()
		test.then(t, r, device)
		err = r.Reconcile(t.Context(), reader(), r.cdi)
		if left := r.journal.Entry("uid-c") != nil; left != test.left || (err != nil) != test.left {
			t.Errorf("%s: the journal keeps it: %v (%v)", test.name, left, err)
		}
		_, err = r.prepare(allocated("d", onGPU(part2g0)))
		var held *HeldError
		if errors.As(err, &held) != test.left || test.left && (!held.Released || !strings.Contains(err.Error(), "once the agent has removed it")) {
			t.Errorf("%s: another claim for its memory slice: %v", test.name, err)
		}
	}
}

// An administrator makes the second partition of a claim between its admission
// and its making.
func TestPartitionMadeMeanwhileIsNotRemoved(t *testing.T) {
	second := topology.MIGPlacement{Start: 1, Size: 1}
	both := []topology.MIGInstance{wholeAt(19, second), wholeAt(14, theirs)}
	for _, test := range []struct {
		name string
		// place is what the administrator takes, profile how.
		place   topology.MIGPlacement
		profile int
		// late says that it happens after the step has looked.
		late, undoFails, wholeLater bool
	}{
		{"before the step looks", second, 19, false, false, true},
		{"after the step has looked", second, 19, true, false, true},
		{"and the claim cannot be undone at once", second, 19, false, true, true},
		{"so late that the claim cannot be undone at once", second, 19, true, true, true},
		{"in the way of both", topology.MIGPlacement{Size: 2}, 14, false, false, false},
	} {
		device := migDevice()
		r := newMIGRoom(t, t.TempDir(), boot, device)
		intrude := func() error {
			device.Interrupt = nil
			_, err := device.CreatePartition(context.Background(), migPCI, test.profile, test.place)
			return err
		}
		admit := r.cfg.Admit
		r.cfg.Admit = func(ctx context.Context, entry *Entry) error {
			err := admit(ctx, entry)
			r.cfg.Admit = admit
			if !test.late {
				return errors.Join(err, intrude())
			}
			creates := 0
			device.Interrupt = func(moment string) error {
				if moment == "before a gpu instance is made" {
					if creates++; creates == 2 {
						return intrude()
					}
				}
				return nil
			}
			return err
		}
		if test.undoFails {
			r.attacher.fail = errors.New("the netdev is not home yet")
		}
		c := allocated("c", onGPU(part1g0), onGPU(part1g1))
		if _, err := r.prepare(c); err == nil {
			t.Fatalf("%s: the administrator's partition was taken for the claim's", test.name)
		}
		r.attacher.fail = nil
		if err := r.Unprepare(t.Context(), c.UID); err != nil {
			t.Fatalf("%s: %v", test.name, err)
		}
		want := both
		if !test.wholeLater {
			want = []topology.MIGInstance{wholeAt(test.profile, test.place), wholeAt(14, theirs)}
		}
		if diff := cmp.Diff(want, instances(device)); diff != "" {
			t.Errorf("%s: instances after the failure (-want +got):\n%s", test.name, diff)
		}
		if len(r.journal.Entries()) != 0 {
			t.Errorf("%s: the journal keeps the claim", test.name)
		}
		if !test.wholeLater {
			continue
		}
		entry, err := r.prepare(c)
		if err != nil || entry.Devices[0].Partition.Static || !entry.Devices[1].Partition.Static {
			t.Fatalf("%s: the next try: %v", test.name, err)
		}
		if err := r.Unprepare(t.Context(), c.UID); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(both, instances(device)); diff != "" {
			t.Errorf("%s: instances in the end (-want +got):\n%s", test.name, diff)
		}
	}
}
