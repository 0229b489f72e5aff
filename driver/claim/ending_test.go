package claim

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// What cannot be undone is recorded with its reason, told to whoever wants the
// devices, tried again by reconciliation without asking anybody, and then gone.
func TestFailedUndoIsNeverForgotten(t *testing.T) {
	directory := t.TempDir()
	r := newRoom(t, directory, boot)
	c, other := allocated("c", onNIC("nic-0000-19-00-0")), allocated("other", onNIC("nic-0000-19-00-0"))
	if _, err := r.prepare(c); err != nil {
		t.Fatal(err)
	}
	r.attacher.fail = errors.New("the pod's namespace is still being taken apart")
	if err := r.Unprepare(t.Context(), c.UID); err == nil {
		t.Fatal("unprepared")
	}
	r = newRoom(t, directory, boot) // the successor knows, too
	r.attacher.fail = errors.New("the pod's namespace is still being taken apart")
	_, err := r.prepare(other)
	var held *HeldError
	if !errors.As(err, &held) || !strings.Contains(err.Error(), "team/c") || !strings.Contains(err.Error(), "still being taken apart") || !strings.Contains(err.Error(), "tries again") {
		t.Errorf("%v; want the holder, why it still holds, and what happens next", err)
	}
	if _, err := r.prepare(c); err == nil || !strings.Contains(err.Error(), "has to be undone first") {
		t.Errorf("the claim's next pod: %v", err)
	}
	// The claim exists, and its sandbox is said to live: it is over all the same.
	r.attacher.inUse = map[types.UID]bool{c.UID: true}
	if err := r.Reconcile(t.Context(), reader(c), r.cdi); err == nil || len(r.journal.Entries()) != 1 {
		t.Errorf("reconciled: %v; %d entries", err, len(r.journal.Entries()))
	}
	r.attacher.fail = nil
	if err := r.Reconcile(t.Context(), reader(c), r.cdi); err != nil || len(r.journal.Entries()) != 0 {
		t.Errorf("reconciled once nothing is in the way: %v; %d entries", err, len(r.journal.Entries()))
	}
	if _, err := r.prepare(other); err != nil {
		t.Error(err)
	}
}

// Its second partition had not been begun; to take that for the administrator's,
// as undoing has to, would keep the claim from ever being prepared.
func TestPrepareAfterAFailureThatCouldNotBeUndone(t *testing.T) {
	device := migDevice()
	r := newMIGRoom(t, t.TempDir(), boot, device)
	device.Interrupt = func(moment string) error {
		if moment == "gpu instance made" {
			return errors.New("Unknown Error")
		}
		return nil
	}
	r.attacher.fail = errors.New("the netdev is not home yet")
	c := allocated("c", onGPU(part1g0), onGPU(part1g1))
	if _, err := r.prepare(c); err == nil {
		t.Fatal("prepared")
	}
	device.Interrupt, r.attacher.fail = nil, nil
	entry, err := r.prepare(c)
	if err != nil || entry.Devices[0].Partition.Static || entry.Devices[1].Partition.Static || len(instances(device)) != 3 {
		t.Fatalf("%v, instances %v; want both partitions made for the claim", err, instances(device))
	}
	if err := r.Unprepare(t.Context(), c.UID); err != nil || len(instances(device)) != 1 {
		t.Errorf("%v, instances %v", err, instances(device))
	}
}

// hurried is an Attacher that does nothing once its time is over.
type hurried struct{ *fakeAttacher }

func (h hurried) Release(ctx context.Context, claim types.UID) error {
	return errors.Join(ctx.Err(), h.fakeAttacher.Release(ctx, claim))
}

// A step that took all its time leaves the next ones theirs, those that undo it above all.
func TestSlowStepTakesNoTimeFromOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRoom(t, t.TempDir(), boot)
		r.steps.Attacher = hurried{r.attacher}
		steps := r.cfg.Steps
		r.cfg.Steps = func(e *Entry) []Step {
			return append([]Step{stuck{make(chan struct{}, 9), make(chan struct{})}}, steps(e)...)
		}
		begin := time.Now()
		_, err := r.prepare(allocated("c", onNIC("nic-0000-19-00-0")))
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(begin) != r.cfg.StepTimeout {
			t.Errorf("%v after %v", err, time.Since(begin))
		}
		if left := r.journal.Entries(); len(left) != 0 {
			t.Errorf("it could not be undone: %s", left[0].Ending)
		}
	})
}

// The kubelet's call comes in while reconciliation makes up its mind.
func TestReconciliationUndoesWhatItJudgedAndNothingNewer(t *testing.T) {
	r := newRoom(t, t.TempDir(), boot)
	c, again := allocated("c", onGPU("gpu-0000-17-00-0")), allocated("c", onGPU("gpu-0000-27-00-0"))
	if _, err := r.prepare(c); err != nil {
		t.Fatal(err)
	}
	r.cfg.InUse = func(types.UID) (bool, error) {
		_, err := r.prepare(again)
		return false, err
	}
	if err := r.Reconcile(t.Context(), reader(again), r.cdi); err != nil {
		t.Fatal(err)
	}
	if entry := r.journal.Entry(c.UID); entry == nil || entry.Devices[0].Name != "gpu-0000-27-00-0" {
		t.Errorf("the claim's new allocation was undone with the old one: %+v", entry)
	}
}

func TestClaimThatNoPodWantsIsReleased(t *testing.T) {
	for name, running := range map[string]bool{"its pods have gone": false, "a sandbox lives": true} {
		r := newRoom(t, t.TempDir(), boot)
		c := allocated("c", onGPU("gpu-0000-17-00-0"))
		if _, err := r.prepare(c); err != nil {
			t.Fatal(err)
		}
		r.attacher.inUse = map[types.UID]bool{c.UID: running}
		c.Status.ReservedFor = nil
		if err := r.Reconcile(t.Context(), reader(c), r.cdi); err != nil || (len(r.journal.Entries()) == 1) != running {
			t.Errorf("%s: %v, %d entries", name, err, len(r.journal.Entries()))
		}
	}
}
