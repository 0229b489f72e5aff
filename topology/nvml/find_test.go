package nvml

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
	"github.com/google/go-cmp/cmp"

	"github.com/hostler-dev/hostler/test/nvmlsim"
	"github.com/hostler-dev/hostler/topology"
)

func TestAPartitionIsFoundAsItIsNow(t *testing.T) {
	control, source := simulate(t, nvmlsim.Build, 0)
	made, err := source.CreatePartition(t.Context(), first, threeSlices, upper)
	must(t, err)
	half := topology.MIGInstance{ProfileID: 19, Placement: topology.MIGPlacement{Size: 1}, GPUInstance: 7}
	must(t, control.Set(0, "mig_instances", "2 9 4:4 0/0/0:4/"+made.ComputeInstances[0].UUID+"\n7 19 0:1\n"))
	for _, test := range []struct {
		name    string
		pci     string
		profile int
		place   topology.MIGPlacement
		want    *topology.MIGInstance
	}{
		{"one that is there, made since the last poll", first, threeSlices, upper, &made},
		{"half of one", first, 19, half.Placement, &half},
		{"the profile at another place", first, threeSlices, topology.MIGPlacement{Size: 4}, nil},
		{"another profile at the place", first, 5, upper, nil},
		{"a profile that the GPU does not have", first, 77, upper, nil},
		{"a GPU outside MIG mode", second, threeSlices, upper, nil},
	} {
		got, err := source.Partition(t.Context(), test.pci, test.profile, test.place)
		if diff := cmp.Diff(test.want, got); err != nil || diff != "" {
			t.Errorf("%s: %v, (-want +got):\n%s", test.name, err, diff)
		}
	}
}

func TestWhetherAPartitionIsThereIsNotGuessed(t *testing.T) {
	for _, test := range []struct {
		name    string
		prepare func(nvmlsim.Control) error
		pci     string
		want    error
	}{
		{"no such GPU", func(nvmlsim.Control) error { return nil }, "0000:99:00.0", ErrUnknownGPU},
		{"a lost GPU", func(c nvmlsim.Control) error { return c.SetLost(0, true) }, first, ErrLost},
		{"a driver that is gone", nvmlsim.Control.KillDriver, first, ErrDriverGone},
		{"a mode that cannot be read", func(c nvmlsim.Control) error { return c.Fail("nvmlDeviceGetMigMode", 0, nvml.ERROR_UNKNOWN) }, first, code(nvml.ERROR_UNKNOWN)},
		{"instances that cannot be read", func(c nvmlsim.Control) error { return c.Fail("nvmlDeviceGetGpuInstances", 0, nvml.ERROR_UNKNOWN) }, first, code(nvml.ERROR_UNKNOWN)},
		{"a UUID that cannot be read", func(c nvmlsim.Control) error { return c.Fail("nvmlDeviceGetUUID", 0, nvml.ERROR_UNKNOWN) }, first, code(nvml.ERROR_UNKNOWN)},
	} {
		t.Run(test.name, func(t *testing.T) {
			control, source := simulate(t, nvmlsim.Build, 0)
			_, err := source.CreatePartition(t.Context(), first, threeSlices, upper)
			must(t, err)
			must(t, test.prepare(control))
			got, err := source.Partition(t.Context(), test.pci, threeSlices, upper)
			if !errors.Is(err, test.want) || !strings.Contains(err.Error(), "look for the MIG device") || got != nil {
				t.Errorf("%v, %v; want %v", got, err, test.want)
			}
			must(t, control.SetLost(0, false))
		})
	}
}

// What a snapshot would list as a Problem, of this GPU or of its neighbour.
func TestAPartitionIsFoundBesideUnrelatedProblems(t *testing.T) {
	control, source := simulate(t, nvmlsim.Build, 200*time.Millisecond)
	_, err := source.CreatePartition(t.Context(), first, threeSlices, upper)
	must(t, err)
	must(t, control.Hang("nvmlDeviceGetMigMode", 1))
	must(t, control.Fail("nvmlDeviceGetTemperature", 0, nvml.ERROR_UNKNOWN))
	must(t, control.Fail("nvmlDeviceGetNvLinkState", 0, nvml.ERROR_UNKNOWN))
	begun := time.Now()
	found, err := source.Partition(t.Context(), first, threeSlices, upper)
	if err != nil || found == nil {
		t.Errorf("%v, %v", found, err)
	}
	if took := time.Since(begun); took >= 200*time.Millisecond {
		t.Errorf("it took %s, as long as the neighbour hangs", took)
	}
	if _, err := source.Partition(t.Context(), second, threeSlices, upper); !errors.Is(err, ErrHung) {
		t.Errorf("the GPU that hangs: %v", err)
	}
}

func TestASearchOpensTheDriverAndEndsWithItsCaller(t *testing.T) {
	_, opened := simulate(t, nvmlsim.Build, 0)
	must(t, opened.Close())
	if found, err := opened.Partition(t.Context(), first, threeSlices, upper); err != nil || found != nil {
		t.Errorf("%v, %v; before the first poll", found, err)
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := opened.Partition(over, first, threeSlices, upper); !errors.Is(err, context.Canceled) {
		t.Errorf("%v; a search that was cut short is no answer", err)
	}
}
