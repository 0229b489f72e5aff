package claim

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/types"
	"pgregory.net/rapid"

	"github.com/hostler-dev/hostler/driver/gpu/gputest"
	"github.com/hostler-dev/hostler/topology"
)

var errKilled = errors.New("killed")

// killer ends an agent at a numbered moment: from then on it does nothing to the
// machine, its disk or its GPU any more. Moments are the beginning and the end of
// each step's work, the halves of what a step does to a GPU, and by way of these
// the time before and after each write to the journal.
type killer struct {
	// at is the moment, 0 for never; moments counts.
	at, moments int
	dead        bool
	die         func()
}

func (k *killer) pass(string) error {
	if k.dead {
		return errKilled
	}
	if k.moments++; k.moments == k.at {
		k.dead = true
		k.die()
		return errKilled
	}
	return nil
}

// mortal is a step of an agent that can be killed.
type mortal struct {
	Step
	killer *killer
}

func (m mortal) Do(ctx context.Context) error {
	if err := m.killer.pass("before " + m.Name()); err != nil {
		return err
	}
	if err := m.Step.Do(ctx); err != nil {
		return err
	}
	return m.killer.pass("after " + m.Name())
}

func (m mortal) Undo(ctx context.Context) error {
	if err := m.killer.pass("before undoing " + m.Name()); err != nil {
		return err
	}
	if err := m.Step.Undo(ctx); err != nil {
		return err
	}
	return m.killer.pass("after undoing " + m.Name())
}

// newMortalRoom starts an agent on what an earlier one left, and kills it at that moment.
func newMortalRoom(t failer, directory, bootID string, device *gputest.GPU, at int) (*room, *killer) {
	t.Helper()
	// What keeps a dead agent from writing its journal.
	obstacle := filepath.Join(directory, "state", "journal.tmp")
	if err := os.RemoveAll(obstacle); err != nil {
		t.Fatal(err)
	}
	k := &killer{at: at}
	device.Interrupt = k.pass
	r := newMIGRoom(t, directory, bootID, device)
	k.die = func() {
		if err := os.Mkdir(obstacle, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	steps, admit := r.cfg.Steps, r.cfg.Admit
	r.cfg.Steps = func(entry *Entry) []Step {
		list := steps(entry)
		for i := range list {
			list[i] = mortal{list[i], k}
		}
		return list
	}
	r.cfg.Admit = func(ctx context.Context, entry *Entry) error {
		return errors.Join(admit(ctx, entry), k.pass("before the entry joins the journal"))
	}
	return r, k
}

// instances are a GPU's, without the numbers that NVML gives them anew each time.
func instances(device *gputest.GPU) []topology.MIGInstance {
	list := device.Snapshot().MIG.Instances
	for i := range list {
		list[i].GPUInstance = 0
		for range list[i].ComputeInstances {
			list[i].ComputeInstances = []topology.MIGComputeInstance{{}}
		}
	}
	return list
}

func wholeAt(profile int, place topology.MIGPlacement) topology.MIGInstance {
	return topology.MIGInstance{ProfileID: profile, Placement: place, ComputeInstances: []topology.MIGComputeInstance{{}}}
}

// An agent is killed at every moment of a claim's life. Its successor is asked to
// prepare the claim again, or is told that it is over, as the kubelet would; in
// the end the GPU, the journal and the CDI directory are as they were.
func TestKilledAtAnyMoment(t *testing.T) {
	c := allocated("c", onGPU(part1g0), onGPU(part2g4), onGPU(part1g1), onNIC("nic-0000-19-00-0"))
	untouched := []topology.MIGInstance{wholeAt(14, theirs)}
	prepared := []topology.MIGInstance{wholeAt(19, topology.MIGPlacement{Size: 1}), wholeAt(19, topology.MIGPlacement{Start: 1, Size: 1}), wholeAt(14, theirs)}
	for _, comesBack := range []bool{true, false} {
		moments := 0
		for at := 1; ; at++ {
			directory, device := t.TempDir(), migDevice()
			r, k := newMortalRoom(t, directory, boot, device, at)
			restart := func() { r, k = newMortalRoom(t, directory, boot, device, 0) }
			name := fmt.Sprintf("killed at moment %d, the pod comes back: %v", at, comesBack)

			_, err := r.prepare(c)
			if killed := k.dead; killed {
				restart()
				if comesBack {
					_, err = r.prepare(c)
				}
			}
			if !errors.Is(err, errKilled) {
				if err != nil {
					t.Fatalf("%s: prepare: %v", name, err)
				}
				if diff := cmp.Diff(prepared, instances(device)); diff != "" {
					t.Fatalf("%s: instances of the prepared claim (-want +got):\n%s", name, diff)
				}
			}
			if err := r.Unprepare(t.Context(), c.UID); k.dead {
				restart()
				err = r.Unprepare(t.Context(), c.UID)
				if err != nil {
					t.Fatalf("%s: unprepare after the restart: %v", name, err)
				}
			} else if err != nil {
				t.Fatalf("%s: unprepare: %v", name, err)
			}
			if diff := cmp.Diff(untouched, instances(device)); diff != "" {
				t.Fatalf("%s: instances in the end (-want +got):\n%s", name, diff)
			}
			specs, err := r.cdi.List()
			if err != nil || len(specs)+len(r.journal.Entries()) != 0 {
				t.Fatalf("%s: left over: specs %v, %d entries, %v", name, specs, len(r.journal.Entries()), err)
			}
			if moments = max(moments, k.moments); k.at == at && !k.dead {
				break // it lived to the end
			}
		}
		if moments < 20 {
			t.Errorf("only %d moments to be killed at", moments)
		}
	}
}

// life is a random history of claims for partitions of one GPU.
type life struct {
	*room
	killer    *killer
	directory string
	device    *gputest.GPU
	boot      int
	// claims are prepared: claim → partition.
	claims map[string]string
	// ghosts may have been left in any state by a kill.
	ghosts map[string]bool
	busy   map[string]bool
	// dead: the driver answers nothing.
	dead bool
}

func (l *life) restart(t failer, at int) {
	l.room, l.killer = newMortalRoom(t, l.directory, fmt.Sprint("boot-", l.boot), l.device, at)
	if l.dead {
		l.die()
	}
}

// toggle ends and brings back the driver.
func (l *life) toggle(*rapid.T) {
	if l.dead = !l.dead; l.dead {
		l.die()
	} else {
		l.revive()
	}
}

// survive restarts the agent if it was killed, and reports whether it was.
func (l *life) survive(t *rapid.T, claim string) bool {
	if !l.killer.dead {
		return false
	}
	delete(l.claims, claim)
	l.ghosts[claim] = true
	l.restart(t, 0)
	return true
}

func (l *life) prepare(t *rapid.T) {
	claim := rapid.SampledFrom([]string{"a", "b", "c", "d"}).Draw(t, "claim")
	gpu := l.device.Snapshot()
	all := topology.Partitions(&gpu)
	wanted := all[rapid.IntRange(0, len(all)-1).Draw(t, "partition")]
	if known, again := l.claims[claim]; again {
		_, p := l.now().Partition(known)
		wanted = *p
	} else if l.ghosts[claim] {
		return
	}
	_, err := l.room.prepare(allocated(claim, onGPU(wanted.Name)))
	if l.survive(t, claim) {
		return
	}
	if reason := l.forbids(claim, &wanted); (err != nil) != (reason != "") {
		t.Fatalf("prepare %s with %s: %v; forbidden by: %q", claim, wanted.Name, err, reason)
	}
	if err == nil {
		l.claims[claim] = wanted.Name
	}
}

// forbids is the model's answer to whether the claim can have the partition.
func (l *life) forbids(claim string, wanted *topology.Partition) string {
	own := l.journal.Entry(types.UID("uid-" + claim))
	switch {
	case l.dead:
		return "the driver"
	case own != nil && own.over() && l.busy[claim]:
		return "its own leftover"
	case l.claims[claim] == wanted.Name:
		return ""
	}
	for _, entry := range l.journal.Entries() {
		_, held := l.now().Partition(entry.Devices[0].Name)
		if entry.ClaimName != claim && held.Placement.Overlaps(wanted.Placement) {
			return entry.ClaimName
		}
	}
	if wanted.Placement != theirs && wanted.Placement.Overlaps(theirs) || wanted.Placement == theirs && wanted.Profile.ID != 14 {
		return "the administrator"
	}
	return ""
}

func (l *life) unprepare(t *rapid.T) {
	claim := rapid.SampledFrom([]string{"a", "b", "c", "d"}).Draw(t, "claim")
	err := l.Unprepare(context.Background(), types.UID("uid-"+claim))
	if l.survive(t, claim) {
		return
	}
	if (err != nil) != (l.busy[claim] && !l.dead) {
		t.Fatalf("unprepare %s, which uses its partition: %v: %v", claim, l.busy[claim], err)
	}
	if err == nil {
		delete(l.claims, claim)
		delete(l.ghosts, claim)
	}
}

// use starts and ends processes in a partition that was made for a claim.
func (l *life) use(t *rapid.T) {
	using := maps.Clone(l.claims)
	for _, entry := range l.journal.Entries() {
		if entry.Released && entry.BootID == l.cfg.BootID {
			using[entry.ClaimName] = entry.Devices[0].Name
		}
	}
	for _, claim := range slices.Sorted(maps.Keys(using)) {
		_, p := l.now().Partition(using[claim])
		if p.Placement == theirs || p.Instance == nil {
			continue
		}
		busy := rapid.Bool().Draw(t, "busy")
		l.device.SetBusy(p.Instance.GPUInstance, busy)
		l.busy[claim] = busy
	}
}

func (l *life) reboot(t *rapid.T) {
	for claim := range l.claims {
		l.ghosts[claim] = true
	}
	l.claims, l.busy = map[string]string{}, map[string]bool{}
	l.dead = false
	l.revive()
	l.boot++
	for _, i := range l.device.Snapshot().MIG.Instances {
		l.device.SetBusy(i.GPUInstance, false)
	}
	l.device.Reboot()
	l.restart(t, 0)
	if _, err := l.device.CreatePartition(context.Background(), migPCI, 14, theirs); err != nil {
		t.Fatal(err)
	}
}

func (l *life) check(t *rapid.T) {
	want := []topology.MIGInstance{wholeAt(14, theirs)}
	for _, name := range l.claims {
		_, p := l.now().Partition(name)
		if p == nil || p.Instance == nil || len(p.Instance.ComputeInstances) != 1 {
			t.Fatalf("partition %s of a prepared claim is not there whole", name)
		}
		if p.Placement != theirs {
			want = append(want, wholeAt(p.Profile.ID, p.Placement))
		}
	}
	if len(l.ghosts) > 0 {
		return
	}
	for _, entry := range l.journal.Entries() {
		_, p := l.now().Partition(entry.Devices[0].Name)
		if entry.Released && entry.BootID == l.cfg.BootID && p.Instance != nil {
			want = append(want, wholeAt(p.Profile.ID, p.Placement))
		}
	}
	slices.SortFunc(want, func(a, b topology.MIGInstance) int { return a.Placement.Start - b.Placement.Start })
	if diff := cmp.Diff(want, instances(l.device)); diff != "" {
		t.Fatalf("instances of %v (-want +got):\n%s", l.claims, diff)
	}
}

// Any sequence of prepares, unprepares, kills at any moment, restarts, reboots,
// ends of the driver and processes that hold on to their partition leaves each prepared claim with its
// partition, makes nothing else, and ends, when all is released, with the GPU as
// its administrator cut it.
func TestPartitionsOfRandomLives(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		directory, err := os.MkdirTemp(t.TempDir(), "")
		if err != nil {
			rt.Fatal(err)
		}
		l := &life{directory: directory, device: migDevice(), claims: map[string]string{}, ghosts: map[string]bool{}, busy: map[string]bool{}}
		l.restart(rt, 0)
		rt.Repeat(map[string]func(*rapid.T){
			"prepare":   l.prepare,
			"unprepare": l.unprepare,
			"use":       l.use,
			"reboot":    l.reboot,
			"driver":    l.toggle,
			"restart":   func(t *rapid.T) { l.restart(t, 0) },
			"doom":      func(t *rapid.T) { l.restart(t, rapid.IntRange(1, 12).Draw(t, "moment")) },
			"reconcile": func(t *rapid.T) {
				var alive []*resourceapi.ResourceClaim
				for claim, name := range l.claims {
					alive = append(alive, allocated(claim, onGPU(name)))
				}
				err := l.Reconcile(context.Background(), reader(alive...), l.cdi)
				if l.killer.dead {
					for claim := range l.claims {
						l.ghosts[claim] = true
					}
					l.claims = map[string]string{}
					l.restart(t, 0)
				} else if err != nil && len(l.busy) == 0 && !l.dead {
					t.Fatal(err)
				}
			},
			"": l.check,
		})
		l.dead = false
		l.revive()
		l.restart(rt, 0)
		for _, i := range l.device.Snapshot().MIG.Instances {
			l.device.SetBusy(i.GPUInstance, false)
		}
		for _, claim := range []string{"a", "b", "c", "d"} {
			if err := l.Unprepare(context.Background(), types.UID("uid-"+claim)); err != nil {
				rt.Fatal(err)
			}
		}
		if diff := cmp.Diff([]topology.MIGInstance{wholeAt(14, theirs)}, instances(l.device)); diff != "" {
			rt.Fatalf("instances in the end (-want +got):\n%s", diff)
		}
	})
}
