package nvml

import (
	"errors"
	"io/fs"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/hostler-dev/hostler/test/nvmlsim"
	"github.com/hostler-dev/hostler/topology"
)

// rename is done if it has been done before.
func rename(from, to string) error {
	if err := os.Rename(from, to); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

var upper = topology.MIGPlacement{Start: 4, Size: 4}

const threeSlices = 9

func instances(t testing.TB, source *Source) []topology.MIGInstance {
	t.Helper()
	gpu := read(t, source)[0]
	if gpu.MIG == nil || len(gpu.Problems) > 0 {
		t.Fatalf("MIG is %+v, problems %v", gpu.MIG, gpu.Problems)
	}
	return gpu.MIG.Instances
}

func TestAPartitionIsMadeAndDestroyed(t *testing.T) {
	_, source := simulate(t, nvmlsim.Build, 0)
	made, err := source.CreatePartition(t.Context(), first, threeSlices, upper)
	must(t, err)
	if made.GPUInstance != 2 || len(made.ComputeInstances) != 1 || !strings.HasPrefix(made.ComputeInstances[0].UUID, "MIG-") {
		t.Errorf("made %+v", made)
	}
	if diff := cmp.Diff([]topology.MIGInstance{made}, instances(t, source)); diff != "" {
		t.Error(diff)
	}
	for range 2 { // what is gone already is a success
		must(t, source.DestroyPartition(t.Context(), first, 2))
		if left := instances(t, source); len(left) != 0 {
			t.Errorf("left are %+v", left)
		}
	}
}

func TestWhatCannotBeMadeLeavesNothingBehind(t *testing.T) {
	for _, test := range []struct {
		name    string
		prepare func(nvmlsim.Control) error
		pci     string
		profile int
		place   topology.MIGPlacement
		want    error
		says    string
	}{
		{"the same once more", nil, first, 19, topology.MIGPlacement{Start: 0, Size: 1}, ErrNoCapacity, "nvidia-smi mig -lgi"},
		{"one that overlaps", nil, first, 0, topology.MIGPlacement{Start: 0, Size: 8}, ErrNoCapacity, "ERROR_INSUFFICIENT_RESOURCES"},
		{"a place that the profile does not have", nil, first, 5, upper, code(nvml.ERROR_INVALID_ARGUMENT), "nvidia-smi mig -lgipp"},
		{"a profile that the GPU does not have", nil, first, 77, upper, code(nvml.ERROR_INVALID_ARGUMENT), "profile 77"},
		{"a GPU outside MIG mode", nil, second, threeSlices, upper, ErrNotInMIGMode, "nvidia-smi -mig 1"},
		{"no such GPU", nil, "0000:99:00.0", threeSlices, upper, ErrUnknownGPU, "0000:99:00.0"},
		{"a lost GPU", func(c nvmlsim.Control) error { return c.SetLost(0, true) }, first, threeSlices, upper, ErrLost, first},
		{"no permission", func(c nvmlsim.Control) error {
			return c.Fail("nvmlDeviceCreateGpuInstanceWithPlacement", 0, nvml.ERROR_NO_PERMISSION)
		}, first, threeSlices, upper, code(nvml.ERROR_NO_PERMISSION), "mig/config"},
		{"a compute instance that the driver refuses", func(c nvmlsim.Control) error {
			return c.Fail("nvmlGpuInstanceCreateComputeInstance", 0, nvml.ERROR_INSUFFICIENT_RESOURCES)
		}, first, threeSlices, upper, ErrNoCapacity, "nvmlGpuInstanceCreateComputeInstance"},
		{"a device that cannot be read back", func(c nvmlsim.Control) error {
			return c.Fail("nvmlDeviceGetMigDeviceHandleByIndex", 0, nvml.ERROR_NOT_FOUND)
		}, first, threeSlices, upper, nil, "lists no MIG device for it"},
	} {
		t.Run(test.name, func(t *testing.T) {
			control, source := simulate(t, nvmlsim.Build, 0)
			_, err := source.CreatePartition(t.Context(), first, 19, topology.MIGPlacement{Start: 0, Size: 1})
			must(t, err)
			before := instances(t, source)
			if test.prepare != nil {
				must(t, test.prepare(control))
			}
			_, err = source.CreatePartition(t.Context(), test.pci, test.profile, test.place)
			if err == nil || (test.want != nil && !errors.Is(err, test.want)) || !strings.Contains(err.Error(), test.says) {
				t.Errorf("the error is %v, want %v that says %q", err, test.want, test.says)
			}
			must(t, control.SetLost(0, false))
			must(t, control.ClearAll())
			if diff := cmp.Diff(before, instances(t, source)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestAPartitionInUseStaysWhole(t *testing.T) {
	for _, test := range []struct {
		name, says string
		prepare    func(nvmlsim.Control) error
	}{
		{"and its processes are named", "process 4711", func(nvmlsim.Control) error { return nil }},
		{"also where the driver does not name them", "nvmlComputeInstanceDestroy", func(c nvmlsim.Control) error {
			return c.Fail("nvmlDeviceGetComputeRunningProcesses_v3", 0, nvml.ERROR_UNKNOWN)
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			control, source := simulate(t, nvmlsim.Build, 0)
			made, err := source.CreatePartition(t.Context(), first, threeSlices, upper)
			must(t, err)
			must(t, control.Set(0, "processes", busy))
			must(t, test.prepare(control))
			err = source.DestroyPartition(t.Context(), first, made.GPUInstance)
			if !errors.Is(err, ErrPartitionInUse) || !strings.Contains(err.Error(), test.says) {
				t.Errorf("the error is %v", err)
			}
			if diff := cmp.Diff([]topology.MIGInstance{made}, instances(t, source)); diff != "" {
				t.Error(diff)
			}
			must(t, control.Unset(0, "processes"))
			must(t, source.DestroyPartition(t.Context(), first, made.GPUInstance))
		})
	}
}

func TestInstancesAreGoneWithTheMode(t *testing.T) {
	control, source := simulate(t, nvmlsim.Build, 0)
	made, err := source.CreatePartition(t.Context(), first, threeSlices, upper)
	must(t, err)
	must(t, control.SetMIGMode(0, false))
	must(t, source.DestroyPartition(t.Context(), first, made.GPUInstance))
	must(t, control.SetMIGMode(0, true))
	if left := instances(t, source); len(left) != 0 {
		t.Errorf("left are %+v", left)
	}
}

// The half that was made is not hidden, and can be removed when the driver is back.
func TestADriverThatDiesInTheMiddle(t *testing.T) {
	control, source := simulate(t, nvmlsim.Build, 0)
	must(t, control.Hang("nvmlGpuInstanceCreateComputeInstance", 0))
	created := make(chan error)
	go func() {
		_, err := source.CreatePartition(t.Context(), first, threeSlices, upper)
		created <- err
	}()
	half := control.Dir + "/gpu0/mig_instances"
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		if content, err := os.ReadFile(half); err == nil && string(content) == "2 9 4:4\n" {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the GPU instance was not made")
		}
	}
	must(t, control.KillDriver())
	must(t, control.ClearAll())
	if err := <-created; !errors.Is(err, ErrDriverGone) || !strings.Contains(err.Error(), "stays behind") {
		t.Errorf("the error is %v", err)
	}
	if err := source.DestroyPartition(t.Context(), first, 2); !errors.Is(err, ErrDriverGone) {
		t.Errorf("destroying without a driver says %v", err)
	}
	must(t, control.ReviveDriver())
	if diff := cmp.Diff([]topology.MIGInstance{{ProfileID: threeSlices, Placement: upper, GPUInstance: 2}}, instances(t, source)); diff != "" {
		t.Error(diff)
	}
	must(t, source.DestroyPartition(t.Context(), first, 2))
	if left := instances(t, source); len(left) != 0 {
		t.Errorf("left are %+v", left)
	}
}

// Drivers take a second to cut a GPU; that is no reason to call it hung.
func TestReadingWaitsForACutThatTakesLong(t *testing.T) {
	control, source := simulate(t, nvmlsim.Build, 700*time.Millisecond)
	must(t, control.Slow("nvmlDeviceCreateGpuInstanceWithPlacement", 0, 2*time.Second))
	created := make(chan error)
	begun := time.Now()
	go func() {
		_, err := source.CreatePartition(t.Context(), first, threeSlices, upper)
		created <- err
	}()
	for reading := true; reading; {
		select {
		case err := <-created:
			must(t, err)
			reading = false
		default:
			instances(t, source) // fails on any problem
		}
	}
	if took := time.Since(begun); took < 2*time.Second {
		t.Errorf("the cut took %s, so nothing was seen", took)
	}
}

// Whatever is asked for in whatever order, what exists never overlaps, what was
// made is there, and what was refused had no room.
func TestAnySequenceOfChangesKeepsTheInventoryTrue(t *testing.T) {
	control, source := simulate(t, nvmlsim.Build, 0)
	offered := topology.Partitions(&read(t, source)[0])
	rapid.Check(t, func(rt *rapid.T) {
		must(t, control.SetMIGMode(0, true))
		exist := map[string]topology.MIGInstance{}
		for range rapid.IntRange(1, 6).Draw(rt, "steps") {
			want := rapid.SampledFrom(offered).Draw(rt, "partition")
			if instance, ok := exist[want.Name]; ok {
				must(t, source.DestroyPartition(t.Context(), first, instance.GPUInstance))
				delete(exist, want.Name)
				continue
			}
			made, err := source.CreatePartition(t.Context(), first, want.Profile.ID, want.Placement)
			if err == nil {
				exist[want.Name] = made
			} else if !errors.Is(err, ErrNoCapacity) {
				rt.Fatalf("%s: %v", want.Name, err)
			}
		}
		gpus := read(t, source)
		found := map[string]topology.MIGInstance{}
		for _, p := range topology.Partitions(&gpus[0]) {
			if p.Instance != nil {
				found[p.Name] = *p.Instance
			}
		}
		if diff := cmp.Diff(exist, found); diff != "" {
			rt.Error(diff)
		}
		sorted := gpus[0].MIG.Instances
		for i := range sorted[min(1, len(sorted)):] {
			if sorted[i].Placement.Overlaps(sorted[i+1].Placement) || !slices.IsSortedFunc(sorted, func(a, b topology.MIGInstance) int { return a.Placement.Start - b.Placement.Start }) {
				rt.Errorf("instances overlap: %+v", sorted)
			}
		}
	})
}
