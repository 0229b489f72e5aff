package claim

import (
	"errors"
	"maps"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/hostler-dev/hostler/driver/gpu/gputest"
	"github.com/hostler-dev/hostler/driver/sriov/sriovtest"
	"github.com/hostler-dev/hostler/driver/vfio"
	"github.com/hostler-dev/hostler/driver/vfio/vfiotest"
	"github.com/hostler-dev/hostler/topology"
)

// A claim had two partitions, a VF and a GPU in user space. One partition is still in use
// when it ends; the administrator uses the rest, which is free, before the claim's next try.
func TestRetriedUndoLeavesWhatBecameSomebodyElses(t *testing.T) {
	const gpu = "0000:17:00.0"
	directory, device, table := t.TempDir(), migDevice(), sriovtest.New()
	kernel, err := vfiotest.New(filepath.Join(directory, "kernel"), []vfiotest.Function{{PCI: gpu, Group: "1", Class: "0x030200", Native: []string{"nvidia"}, Driver: "nvidia"}}, "nvidia")
	if err != nil {
		t.Fatal(err)
	}
	room := func() *room {
		r := newMIGRoom(t, directory, boot, device)
		r.steps.VFs, r.admission.VFs = table, table
		r.steps.VFIO = kernel.Bus()
		r.admission.VFIO = r.steps.VFIO
		return r
	}
	r := room()
	c := with(with(allocated("c", onGPU(part1g0), onGPU(part1g1), onNIC(nicVF0), onGPU("gpu-0000-17-00-0")), class, vfSettings, "r2"), class, vfioGPU, "r3")
	if _, err := r.prepare(c); err != nil {
		t.Fatal(err)
	}
	first := at(device, 0)
	device.SetBusy(first.GPUInstance, true)
	if err := r.Unprepare(t.Context(), c.UID); !errors.Is(err, gputest.ErrBusy) || at(device, 1) != nil || kernel.State() != gpu+" nvidia override=" {
		t.Fatalf("%v; instances %v, %s; want all undone but the partition that is in use", err, instances(device), kernel.State())
	}

	if _, err := device.CreatePartition(t.Context(), migPCI, 19, topology.MIGPlacement{Start: 1, Size: 1}); err != nil {
		t.Fatal(err)
	}
	table.VFs[sriovtest.VF(0)].Settings.VLAN = new(99)
	pci := filepath.Join(kernel.Sys, "bus/pci")
	if err := errors.Join(kernel.Write(filepath.Join(pci, "devices", gpu, "driver_override"), vfio.Driver), kernel.Write(filepath.Join(pci, "devices", gpu, "driver/unbind"), gpu),
		kernel.Write(filepath.Join(pci, "drivers_probe"), gpu)); err != nil {
		t.Fatal(err)
	}
	theirs, settings, bindings := at(device, 1), table.State(sriovtest.VF(0)), kernel.State()

	same := func(when string) {
		t.Helper()
		if diff := cmp.Diff(theirs, at(device, 1)); diff != "" {
			t.Errorf("%s: the administrator's partition (-before +now):\n%s", when, diff)
		}
		if diff := cmp.Diff(settings, table.State(sriovtest.VF(0))); diff != "" {
			t.Errorf("%s: the administrator's VF (-before +now):\n%s", when, diff)
		}
		if kernel.State() != bindings {
			t.Errorf("%s: the GPU that the administrator gave to user space is %s", when, kernel.State())
		}
	}
	for range 2 {
		if err := r.Unprepare(t.Context(), c.UID); !errors.Is(err, gputest.ErrBusy) {
			t.Errorf("%v; want it still in use", err)
		}
		same("tried again")
		r = room() // another agent knows no more than the journal
	}
	if held := slices.Sorted(maps.Keys(NewLedger(r.journal).Held())); !slices.Equal(held, []string{nicVF0}) || len(NewLedger(r.journal).Holders()) != 4 {
		t.Errorf("held are %v; want all of the claim's devices, as long as one of them is", NewLedger(r.journal).Holders())
	}
	device.SetBusy(first.GPUInstance, false)
	if err := r.Reconcile(t.Context(), reader(c), r.cdi); err != nil || len(r.journal.Entries()) > 0 || at(device, 0) != nil {
		t.Errorf("reconciled: %v; %d entries, instances %v; want the claim at its end", err, len(r.journal.Entries()), instances(device))
	}
	same("at the end")
}

// at is what starts in a memory slice of the GPU, nil if nothing does.
func at(device *gputest.GPU, slice int) *topology.MIGInstance {
	for _, instance := range device.Snapshot().MIG.Instances {
		if instance.Placement.Start == slice {
			return &instance
		}
	}
	return nil
}

// Both halves of a pair are in user space, and one of them is back.
func TestHalfAPairStaysTheClaims(t *testing.T) {
	both := &vfio.Binding{Group: "1", Functions: []vfio.Function{{PCI: "0000:17:00.0"}}, Paired: &vfio.Binding{Group: "2", Functions: []vfio.Function{{PCI: "0000:18:00.0"}}}}
	entry := &Entry{Devices: []Device{{VFIO: both}}}
	for steps, want := range []*vfio.Binding{nil, {Group: "1", Functions: both.Functions}, both} {
		if diff := cmp.Diff(want, entry.owning(steps, nil).Devices[0].VFIO); diff != "" {
			t.Errorf("with %d steps left (-want +got):\n%s", steps, diff)
		}
	}
	if entry.Devices[0].VFIO.Paired == nil {
		t.Error("the journal's entry was changed")
	}
}
