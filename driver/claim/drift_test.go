package claim

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/hostler-dev/hostler/driver/gpu/gputest"
	"github.com/hostler-dev/hostler/netattach/multus"
)

// account is what a room's runner says that it put right, and could not.
type account struct {
	mu     sync.Mutex
	mended []string
	found  map[Drift]int
}

func (r *room) account() *account {
	a := &account{}
	r.cfg.Mended = func(m Mending) {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.mended = append(a.mended, strings.TrimSpace(string(m.What)+" "+m.ClaimName))
	}
	r.cfg.Drifted = func(found map[Drift]int) { a.found = found }
	return a
}

// take returns what was said since, sorted, and what remains, as "kind=count".
func (a *account) take() (mended, remain []string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	slices.Sort(a.mended)
	mended, a.mended = a.mended, nil
	for _, what := range Drifts() {
		if n := a.found[what]; n > 0 {
			remain = append(remain, string(what))
		}
	}
	return mended, remain
}

func TestReconcileReportsWhatItMends(t *testing.T) {
	for _, test := range []struct {
		name string
		// device of claim c, a GPU by default.
		device [2]string
		upset  func(r *room, c *resourceapi.ResourceClaim) error
		// gone says that the API server does not know the claim any more.
		gone   bool
		mended []string
	}{
		{name: "nothing", upset: func(*room, *resourceapi.ResourceClaim) error { return nil }},
		{name: "the claim was deleted", gone: true, upset: func(*room, *resourceapi.ResourceClaim) error { return nil }, mended: []string{"claim-gone c"}},
		{name: "the claim's pods left it", upset: func(_ *room, c *resourceapi.ResourceClaim) error { c.Status.ReservedFor = nil; return nil }, mended: []string{"claim-gone c"}},
		{name: "the CDI directory was wiped", upset: func(r *room, _ *resourceapi.ResourceClaim) error { return os.RemoveAll(r.cdi.Path) }, mended: []string{"spec-missing c"}},
		{name: "a CDI spec was edited", upset: func(r *room, c *resourceapi.ResourceClaim) error {
			return os.WriteFile(r.cdi.File(c.UID), []byte("{}"), 0o600)
		}, mended: []string{"spec-wrong c"}},
		{name: "a CDI spec of nobody", upset: func(r *room, _ *resourceapi.ResourceClaim) error {
			return os.WriteFile(r.cdi.File("stray"), []byte("{}"), 0o600)
		}, mended: []string{"stray-spec"}},
		{name: "the metadata was wiped", upset: func(r *room, c *resourceapi.ResourceClaim) error { return r.metadata.Remove(c.UID) }, mended: []string{"metadata c"}},
		{name: "metadata of nobody", upset: func(r *room, _ *resourceapi.ResourceClaim) error {
			return os.WriteFile(r.metadata.File("stray", "r"), []byte("{}"), 0o600)
		}, mended: []string{"metadata"}},
		{name: "the machine changed, and the metadata with it", upset: func(r *room, _ *resourceapi.ResourceClaim) error {
			r.snapshot.GPUs[0].ProductName = "another name"
			return nil
		}},
		{name: "a device-info file was removed", device: onNIC(nicPlain), upset: func(r *room, _ *resourceapi.ResourceClaim) error {
			return os.RemoveAll(r.steps.DeviceInfo.Path)
		}, mended: []string{"device-info c"}},
		{name: "a device plugin overwrote a device-info file", device: onNIC(nicPlain), upset: func(r *room, c *resourceapi.ResourceClaim) error {
			file := r.steps.DeviceInfo.File(multus.Device{ResourceName: c.Name, PCI: r.journal.Entry(c.UID).Devices[0].NIC.Placement.PCI})
			return errors.Join(os.Chmod(file, 0o600), os.WriteFile(file, []byte("{}"), 0o600))
		}, mended: []string{"device-info c"}},
		{name: "a partition was removed by hand", device: onGPU(part1g0), upset: func(r *room, _ *resourceapi.ResourceClaim) error {
			return r.mig.DestroyPartition(context.Background(), migPCI, 2)
		}, mended: []string{"partition c"}},
		{name: "another pod joined the claim", upset: func(_ *room, c *resourceapi.ResourceClaim) error {
			c.Status.ReservedFor = append(c.Status.ReservedFor, resourceapi.ResourceClaimConsumerReference{Resource: "pods", Name: "more", UID: "pod-more"})
			return nil
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := newMIGRoom(t, t.TempDir(), boot, migDevice())
			if test.device == [2]string{} {
				test.device = onGPU("gpu-0000-17-00-0")
			}
			c := allocated("c", test.device)
			if test.device == onNIC(nicPlain) {
				c = multusClaim("c", test.device)
			}
			if _, err := r.prepare(c); err != nil {
				t.Fatal(err)
			}
			a := r.account()
			if err := test.upset(r, c); err != nil {
				t.Fatal(err)
			}
			known := []*resourceapi.ResourceClaim{c}
			if test.gone {
				known = nil
			}
			if err := r.Reconcile(t.Context(), reader(known...), r.cdi); err != nil {
				t.Fatal(err)
			}
			mended, remain := a.take()
			if diff := cmp.Diff(test.mended, mended); diff != "" || len(remain) > 0 {
				t.Errorf("remain %v; mended (-want +got):\n%s", remain, diff)
			}
			if err := r.Reconcile(t.Context(), reader(known...), r.cdi); err != nil {
				t.Fatal(err)
			}
			if mended, remain := a.take(); len(mended)+len(remain) > 0 {
				t.Errorf("it does not come to rest: mended %v, remain %v", mended, remain)
			}
		})
	}
}

func TestReconcileReportsAReboot(t *testing.T) {
	directory := t.TempDir()
	c := allocated("c", onGPU("gpu-0000-17-00-0"))
	if _, err := newRoom(t, directory, boot).prepare(c); err != nil {
		t.Fatal(err)
	}
	r := newRoom(t, directory, "later boot")
	a := r.account()
	if err := r.Reconcile(t.Context(), reader(c), r.cdi); err != nil {
		t.Fatal(err)
	}
	if mended, _ := a.take(); !slices.Equal(mended, []string{"reboot c"}) {
		t.Errorf("mended %v", mended)
	}
}

// The kubelet's first prepare makes everything, and its repeated one finds what it made.
func TestPrepareIsNoMending(t *testing.T) {
	r := newMIGRoom(t, t.TempDir(), boot, gputest.New(migPCI))
	a := r.account()
	for range 2 {
		if _, err := r.prepare(allocated("c", onGPU(part1g0), onNIC("nic-0000-19-00-0"))); err != nil {
			t.Fatal(err)
		}
	}
	if mended, _ := a.take(); len(mended) > 0 {
		t.Errorf("mended %v", mended)
	}
}

func TestReconcileShowsWhatItCannotMend(t *testing.T) {
	for _, test := range []struct {
		name   string
		device [2]string
		upset  func(t *testing.T, r *room)
		// settle takes the obstacle away.
		settle       func(r *room) error
		gone         bool
		remain       string
		mendedInTime string
	}{
		{"whether the deleted claim's pod lives is unknown", onGPU("gpu-0000-17-00-0"),
			func(_ *testing.T, r *room) {
				r.cfg.InUse = func(types.UID) (bool, error) { return false, errors.New("NRI is not connected") }
			},
			func(r *room) error { r.cfg.InUse = r.attacher.InUse; return nil }, true, "claim-gone", "claim-gone c"},
		{"a netdev does not come home", onNIC("nic-0000-19-00-0"),
			func(_ *testing.T, r *room) { r.attacher.fail = errors.New("no such device") },
			func(r *room) error { r.attacher.fail = nil; return nil }, true, "undo-failed", "undo-failed c"},
		{"the driver died before a partition was removed", onGPU(part1g0),
			func(t *testing.T, r *room) {
				r.die()
				if err := r.Unprepare(t.Context(), "uid-c"); err != nil {
					t.Fatal(err)
				}
			},
			func(r *room) error { r.revive(); return nil }, true, "leftover", "leftover c"},
		{"a partition cannot be made again", onGPU(part1g0),
			func(t *testing.T, r *room) {
				if err := r.mig.DestroyPartition(context.Background(), migPCI, 2); err != nil {
					t.Fatal(err)
				}
				r.mig.Fault = errors.New("In use by another client")
			},
			func(r *room) error { r.mig.Fault = nil; return nil }, false, "partition", "partition c"},
		{"the directory of device-info files is a file", onNIC(nicPlain),
			func(t *testing.T, r *room) {
				directory := r.steps.DeviceInfo.Path
				if err := errors.Join(os.RemoveAll(directory), os.WriteFile(directory, nil, 0o600)); err != nil {
					t.Fatal(err)
				}
			},
			func(r *room) error { return os.Remove(r.steps.DeviceInfo.Path) }, false, "device-info", "device-info c"},
		{"the CDI directory is a file", onGPU("gpu-0000-17-00-0"),
			func(t *testing.T, r *room) {
				if err := errors.Join(os.RemoveAll(r.cdi.Path), os.MkdirAll(r.cdi.File("uid-c")+"/x", 0o700)); err != nil {
					t.Fatal(err)
				}
			},
			func(r *room) error { return os.RemoveAll(r.cdi.Path) }, false, "spec-wrong", "spec-missing c"},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := newMIGRoom(t, t.TempDir(), boot, migDevice())
			c := allocated("c", test.device)
			if test.device == onNIC(nicPlain) {
				c = multusClaim("c", test.device)
			}
			if _, err := r.prepare(c); err != nil {
				t.Fatal(err)
			}
			a := r.account()
			test.upset(t, r)
			read := reader(c)
			if test.gone {
				read = reader()
			}
			_ = r.Reconcile(t.Context(), read, r.cdi) // whether it fails depends on who else retries
			if mended, remain := a.take(); !slices.Equal(remain, []string{test.remain}) || len(mended) > 0 {
				t.Errorf("remain %v, want %s; mended %v", remain, test.remain, mended)
			}
			if err := test.settle(r); err != nil {
				t.Fatal(err)
			}
			if err := r.Reconcile(t.Context(), read, r.cdi); err != nil {
				t.Fatal(err)
			}
			if mended, remain := a.take(); strings.Join(mended, ", ") != test.mendedInTime || len(remain) > 0 {
				t.Errorf("then: mended %v, want %s; remain %v", mended, test.mendedInTime, remain)
			}
		})
	}
}

// verifiedStep is of a kind that can be verified before it is done.
type verifiedStep struct {
	kind            string
	there, hopeless bool
}

func (s *verifiedStep) Name() string { return "bind" }
func (s *verifiedStep) Kind() string { return s.kind }
func (s *verifiedStep) Do(context.Context) error {
	s.there = !s.hopeless
	return nil
}
func (s *verifiedStep) Verify(context.Context) error {
	if !s.there {
		return errors.New("it is bound to another driver")
	}
	return nil
}
func (s *verifiedStep) Undo(context.Context) error { return nil }

func TestReconcileReportsBindings(t *testing.T) {
	for _, test := range []struct {
		name   string
		step   *verifiedStep
		mended []string
		remain []string
	}{
		{"a function is bound as it was", &verifiedStep{kind: "vfio", there: true}, nil, nil},
		{"somebody bound it to another driver", &verifiedStep{kind: "vfio"}, []string{"binding c"}, nil},
		{"and it cannot be bound again", &verifiedStep{kind: "vfio", hopeless: true}, nil, []string{"binding"}},
		{"somebody changed a VF", &verifiedStep{kind: "vf-settings"}, []string{"binding c"}, nil},
	} {
		r := newRoom(t, t.TempDir(), boot)
		c := allocated("c", onGPU("gpu-0000-17-00-0"))
		if _, err := r.prepare(c); err != nil {
			t.Fatal(err)
		}
		a, steps := r.account(), r.cfg.Steps
		r.cfg.Steps = func(e *Entry) []Step { return append([]Step{test.step}, steps(e)...) }
		if err := r.Reconcile(t.Context(), reader(c), r.cdi); (err != nil) != test.step.hopeless {
			t.Errorf("%s: %v", test.name, err)
		}
		if mended, remain := a.take(); !slices.Equal(mended, test.mended) || !slices.Equal(remain, test.remain) {
			t.Errorf("%s: mended %v, remain %v", test.name, mended, remain)
		}
	}
}
