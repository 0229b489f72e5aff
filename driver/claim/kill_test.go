package claim

// Agents are killed, one at a time, at every moment of everything that they do for
// a claim. What comes then is up to others: the kubelet asks again, the pod is
// gone, the claim is gone. However it goes on, the claim is prepared whole or gone
// without a trace, and in the end the machine is as it was.

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"testing"

	"github.com/google/go-cmp/cmp"
	resourceapi "k8s.io/api/resource/v1"
)

// scenario is one thing that agents do.
type scenario struct {
	name string
	// given is what was before; nothing if nil.
	given func(w *world, k kind)
	// act is killed at every moment.
	act func(a *agent, k kind) error
	// fails: act fails without a kill, too, until mend was called.
	fails bool
	mend  func(w *world)
	// alive are the claims that the API server has.
	alive func(k kind) []*resourceapi.ResourceClaim
	// moments is how many there are at least, of all kinds together.
	moments int
}

func itself(k kind) []*resourceapi.ResourceClaim { return []*resourceapi.ResourceClaim{k.claim("c")} }

func nobody(kind) []*resourceapi.ResourceClaim { return nil }

func prepared(w *world, k kind) {
	entry, err := w.start(0).prepare(k.claim("c"))
	if err != nil {
		w.t.Fatal(err)
	}
	w.attach(entry)
}

// halfUndone is a claim whose first prepare failed, and could not be undone either.
func halfUndone(w *world, k kind) {
	a := w.start(0)
	w.block()
	w.unhappy["uid-c"] = errors.New("the netdev is not home yet")
	if _, err := a.prepare(k.claim("c")); err == nil {
		w.t.Fatal("prepared without a CDI directory")
	}
	delete(w.unhappy, "uid-c")
	w.wipe()
}

// blocked is a node on which claims come and go until it has no CDI directory.
func blocked(w *world, k kind) {
	a := w.start(0)
	if err := errors.Join(prepare(a, k), unprepare(a, k)); err != nil {
		w.t.Fatal(err)
	}
	w.block()
}

// block puts a file in the CDI directory's place.
func (w *world) block() {
	w.wipe()
	if err := os.WriteFile(filepath.Join(w.directory, "cdi"), nil, 0o600); err != nil {
		w.t.Fatal(err)
	}
}

func stray(w *world, k kind) {
	prepared(w, k)
	if err := os.WriteFile(filepath.Join(w.directory, "cdi", "hostler.dev-claim_uid-stray.json"), []byte("{}"), 0o600); err != nil {
		w.t.Fatal(err)
	}
}

// vandalised has a claim lose what others can take from it.
func vandalised(w *world, k kind) {
	prepared(w, k)
	w.wipe()
	for _, i := range w.gpu.Snapshot().MIG.Instances {
		if i.Placement != theirs {
			if err := w.gpu.DestroyPartition(quiet(), migPCI, i.GPUInstance); err != nil {
				w.t.Fatal(err)
			}
		}
	}
	w.begin()
}

// changed has the journal say more than its file.
func changed(w *world, k kind) {
	prepared(w, k)
	if err := errors.Join(withAnotherPod(w.start(0), k), prepare(w.start(0), k)); err != nil {
		w.t.Fatal(err)
	}
}

func driverDead(w *world, k kind) {
	prepared(w, k)
	w.dead = true
}

func leftOver(w *world, k kind) {
	driverDead(w, k)
	if err := w.start(0).unprepare(k.claim("c")); err != nil {
		w.t.Fatal(err)
	}
	w.dead = false
}

func rebooted(w *world, k kind) {
	prepared(w, k)
	w.reboot()
}

func prepare(a *agent, k kind) error { _, err := a.prepare(k.claim("c")); return err }

func unprepare(a *agent, k kind) error { return a.unprepare(k.claim("c")) }

func reconcile(claims func(kind) []*resourceapi.ResourceClaim) func(*agent, kind) error {
	return func(a *agent, k kind) error { return a.reconcile(claims(k)...) }
}

// afterReboot has the kubelet, which started anew too, ask for the claim once more.
func afterReboot(a *agent, k kind) error {
	return errors.Join(a.reconcile(k.claim("c")), prepare(a, k))
}

func withAnotherPod(a *agent, k kind) error {
	c := k.claim("c")
	c.Status.ReservedFor = append(c.Status.ReservedFor, resourceapi.ResourceClaimConsumerReference{Resource: "pods", Name: "second", UID: "pod-second"})
	_, err := a.prepare(c)
	return err
}

func checkpoint(a *agent, _ kind) error { return a.journal.Checkpoint() }

func reallocated(k kind) []*resourceapi.ResourceClaim {
	return []*resourceapi.ResourceClaim{k.reallocated("c")}
}

func scenarios() []scenario {
	return []scenario{
		{name: "first prepare", act: prepare, alive: itself, moments: 538},
		{name: "first prepare that fails", given: blocked, act: prepare, fails: true, mend: (*world).wipe, alive: itself, moments: 884},
		{name: "repeated prepare", given: prepared, act: prepare, alive: itself, moments: 324},
		{name: "repeated prepare of what others took away", given: vandalised, act: prepare, alive: itself, moments: 379},
		{name: "prepare with another pod", given: prepared, act: withAnotherPod, alive: itself, moments: 399},
		{name: "prepare after an attempt that was half undone", given: halfUndone, act: prepare, alive: itself, moments: 920},
		{name: "prepare after a reboot", given: rebooted, act: prepare, alive: itself, moments: 806},
		{name: "prepare of another allocation", given: prepared, act: func(a *agent, k kind) error { _, err := a.prepare(k.reallocated("c")); return err }, alive: reallocated, moments: 854},
		{name: "unprepare", given: prepared, act: unprepare, alive: nobody, moments: 399},
		{name: "unprepare after a failed prepare", given: halfUndone, act: unprepare, alive: nobody, moments: 399},
		{name: "unprepare under a dead driver", given: driverDead, act: unprepare, alive: nobody, moments: 384},
		{name: "reconciliation of leftovers", given: leftOver, act: reconcile(nobody), alive: nobody, moments: 36},
		{name: "reconciliation of a claim that is gone", given: prepared, act: reconcile(nobody), alive: nobody, moments: 399},
		{name: "reconciliation of a claim that was reallocated", given: prepared, act: reconcile(reallocated), alive: reallocated, moments: 399},
		{name: "reconciliation after a reboot", given: rebooted, act: afterReboot, alive: itself, moments: 1131},
		{name: "reconciliation of what was half undone", given: halfUndone, act: reconcile(itself), alive: itself, moments: 399},
		{name: "reconciliation of what others took away", given: vandalised, act: reconcile(itself), alive: itself, moments: 379},
		{name: "bringing the journal's file up to date", given: changed, act: checkpoint, alive: itself, moments: 106},
		{name: "reconciliation of a stray spec", given: stray, act: reconcile(itself), alive: itself, moments: 324},
	}
}

// successions are what may happen once the agent is dead. Those that do not
// complete what it was killed in end with nothing left.
var successions = []struct {
	name     string
	goOn     func(a *agent, s scenario, k kind) error
	complete bool
}{
	{"the same is asked for again", func(a *agent, s scenario, k kind) error { return s.act(a, k) }, true},
	{"reconciliation comes first", func(a *agent, s scenario, k kind) error { return errors.Join(a.reconcile(s.alive(k)...), s.act(a, k)) }, true},
	{"the pod has gone", func(a *agent, _ scenario, k kind) error { return errors.Join(a.unprepare(k.claim("c")), a.reconcile()) }, false},
	{"the claim has gone, and nobody says so", func(a *agent, _ scenario, _ kind) error { return a.reconcile() }, false},
}

// killed are the kinds that differ in their steps, each with a turn of its own.
func killed() []kind {
	var some []kind
	for turn, k := range kinds() {
		if k.turn = turn; !k.sameSteps {
			some = append(some, k)
		}
	}
	return some
}

// The race detector makes all this several times as slow, so under it there is only every
// other moment of the claim that has everything; test/unit.sh runs all of them without it, too.
func TestKilledAtEveryMoment(t *testing.T) {
	kinds, ofAll := []kind{everything()}, 16
	if !raceDetector {
		kinds, ofAll = append(append(kinds, everything().replacing()), killed()...), 1
	}
	// Agents by the thousand live for milliseconds and leave little behind.
	collected := debug.SetGCPercent(600)
	t.Cleanup(func() { debug.SetGCPercent(collected) })
	for _, s := range scenarios() {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			moments := 0
			for _, k := range kinds {
				moments += s.killAtEveryMoment(t, k)
			}
			if t.Logf("%s: %d moments", s.name, moments); moments < s.moments/ofAll {
				t.Errorf("only %d moments to be killed at, want %d", moments, s.moments/ofAll)
			}
		})
	}
}

// killAtEveryMoment returns how many moments there were. What comes after each is one
// of the successions, another one for each kind; of the two that have everything,
// one is completed and the other is not.
func (s scenario) killAtEveryMoment(t *testing.T, k kind) int {
	moments, want := s.unkilled(t, k)
	stride := 1
	if raceDetector {
		stride = 2
	}
	for at := 1; at <= moments; at += stride {
		next := successions[(at/stride+k.turn)%len(successions)]
		w, start := s.world(t, k)
		doomed := w.start(at)
		_ = s.act(doomed, k) // what a dead agent answers, nobody hears
		name := fmt.Sprintf("%s, killed at moment %d (%s), then %s", k.name, at, doomed.last, next.name)
		if !doomed.dead {
			t.Fatalf("%s: it lives", name)
		}
		if s.mend != nil {
			s.mend(w)
		}
		if err := next.goOn(w.start(0), s, k); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if next.complete {
			if diff := cmp.Diff(want, w.still()); diff != "" {
				t.Fatalf("%s: the machine is not as without the kill (-want +got):\n%s", name, diff)
			}
		} else if diff := cmp.Diff(start, w.still()); diff != "" && !w.dead {
			t.Fatalf("%s: something is left (-want +got):\n%s", name, diff)
		}
		s.end(t, name, w, k, start)
		if err := os.RemoveAll(w.directory); err != nil {
			t.Fatal(err)
		}
	}
	return moments
}

// inMemory is a directory that costs no disk's time, where the machine has one.
func inMemory(t *testing.T) string {
	directory, err := os.MkdirTemp("/dev/shm", "hostler")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(directory); err != nil {
			t.Error(err)
		}
	})
	return directory
}

// world is one at the point where the scenario begins, and how it was before all.
func (s scenario) world(t *testing.T, k kind) (*world, still) {
	w := newWorld(t, inMemory(t))
	w.replaces = k.replaces
	if k.bindsFunctions() {
		w.bus()
	}
	start := w.still()
	if s.given != nil {
		s.given(w, k)
	}
	return w, start
}

// unkilled counts the moments and tells how it ends, twice in a row.
func (s scenario) unkilled(t *testing.T, k kind) (int, still) {
	w, start := s.world(t, k)
	a := w.start(0)
	if err := s.act(a, k); (err != nil) != s.fails {
		t.Fatalf("%s, without a kill: %v", k.name, err)
	}
	if s.mend != nil {
		s.mend(w)
	}
	if err := s.act(w.start(0), k); err != nil {
		t.Fatalf("%s, again: %v", k.name, err)
	}
	done := w.still()
	if err := s.act(w.start(0), k); err != nil {
		t.Fatalf("%s, a third time: %v", k.name, err)
	}
	if diff := cmp.Diff(done, w.still()); diff != "" {
		t.Fatalf("%s: to do it again changes something (-once +again):\n%s", k.name, diff)
	}
	s.end(t, k.name+", without a kill", w, k, start)
	return a.moments, done
}

// end undoes everything and looks whether it is.
func (s scenario) end(t *testing.T, name string, w *world, k kind, start still) {
	t.Helper()
	w.dead = false
	a := w.start(0)
	if err := errors.Join(a.unprepare(k.claim("c")), a.reconcile()); err != nil {
		t.Fatalf("%s: in the end: %v", name, err)
	}
	if diff := cmp.Diff(start, w.still()); diff != "" {
		t.Fatalf("%s: the machine in the end (-want +got):\n%s", name, diff)
	}
}
