package gpu_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/hostler-dev/hostler/driver/gpu"
	"github.com/hostler-dev/hostler/driver/gpu/gputest"
	"github.com/hostler-dev/hostler/topology"
)

const pci = "0000:17:00.0"

// step makes a 1g.10gb at slice 0 unless change says otherwise.
func step(device *gputest.GPU, change func(*gpu.PartitionConfig)) *gpu.PartitionStep {
	cfg := gpu.PartitionConfig{
		Name: "gpu-0000-17-00-0-mig-1g-10gb-0", GPU: "gpu-0000-17-00-0", PCI: pci, Profile: "1g.10gb", ProfileID: 19, Placement: topology.MIGPlacement{Size: 1},
		Partitioner: device, Gone: func(string) string { return "" }, Silent: func() string { return "" }, Changed: func() {},
	}
	if change != nil {
		change(&cfg)
	}
	return gpu.NewPartitionStep(cfg)
}

// cut makes a partition as an administrator would.
func cut(t *testing.T, device *gputest.GPU, profile int, place topology.MIGPlacement) topology.MIGInstance {
	t.Helper()
	instance, err := device.CreatePartition(t.Context(), pci, profile, place)
	if err != nil {
		t.Fatal(err)
	}
	return instance
}

func TestPartitionComesAndGoesWithItsClaim(t *testing.T) {
	device := gputest.New(pci)
	changed := 0
	s := step(device, func(c *gpu.PartitionConfig) { c.Changed = func() { changed++ } })
	for range 2 { // a repeated prepare finds it done
		if err := errors.Join(s.Do(t.Context()), s.Verify(t.Context())); err != nil {
			t.Fatal(err)
		}
	}
	if s.Instance() == nil || len(device.Snapshot().MIG.Instances) != 1 || changed != 1 {
		t.Errorf("instance %v of %v, %d changes told", s.Instance(), device.Snapshot().MIG.Instances, changed)
	}
	for range 2 {
		if err := step(device, func(c *gpu.PartitionConfig) { c.Changed = func() { changed++ } }).Undo(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if left := device.Snapshot().MIG.Instances; len(left) != 0 || changed != 2 {
		t.Errorf("left %v, %d changes told", left, changed)
	}
}

func TestHalfAPartitionIsMadeAnew(t *testing.T) {
	device := gputest.New(pci)
	killed := errors.New("killed")
	device.Interrupt = func(moment string) error {
		if moment == "gpu instance made" {
			return killed
		}
		return nil
	}
	if err := step(device, nil).Do(t.Context()); !errors.Is(err, killed) {
		t.Fatal(err)
	}
	device.Interrupt = nil
	s := step(device, nil)
	if err := errors.Join(s.Do(t.Context()), s.Verify(t.Context())); err != nil {
		t.Fatal(err)
	}
	if instances := device.Snapshot().MIG.Instances; len(instances) != 1 || len(instances[0].ComputeInstances) != 1 {
		t.Errorf("instances %+v", instances)
	}
}

func TestAdministratorsPartitionIsUsedAndLeft(t *testing.T) {
	device := gputest.New(pci)
	made := cut(t, device, 19, topology.MIGPlacement{Size: 1})
	s := step(device, func(c *gpu.PartitionConfig) { c.Static = true })
	if err := errors.Join(s.Do(t.Context()), s.Verify(t.Context()), s.Undo(t.Context())); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]topology.MIGInstance{made}, device.Snapshot().MIG.Instances); diff != "" {
		t.Errorf("the administrator's instances (-want +got):\n%s", diff)
	}
}

func TestPartitionStepRefuses(t *testing.T) {
	static := func(c *gpu.PartitionConfig) { c.Static = true }
	for _, test := range []struct {
		name   string
		before func(*testing.T, *gputest.GPU)
		change func(*gpu.PartitionConfig)
		want   string
	}{
		{"an administrator's partition that is gone", nil, static, "somebody removed it"},
		{"a place that something else took", func(t *testing.T, d *gputest.GPU) { cut(t, d, 14, topology.MIGPlacement{Size: 2}) }, nil, "insufficient resources"},
		{"a GPU that does not answer", func(_ *testing.T, d *gputest.GPU) { d.Fault = errors.New("GPU is lost") }, nil, "GPU is lost"},
		{"an agent without partitioner", nil, func(c *gpu.PartitionConfig) { c.Partitioner = nil }, "without access to GPU partitions"},
	} {
		device := gputest.New(pci)
		if test.before != nil {
			test.before(t, device)
		}
		err := step(device, test.change).Do(t.Context())
		if err == nil || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), "gpu-0000-17-00-0-mig-1g-10gb-0") && !strings.Contains(err.Error(), "without access") {
			t.Errorf("%s: %v; want it to name the partition and say %q", test.name, err, test.want)
		}
	}
}

func TestVerifyNoticesAnotherInstance(t *testing.T) {
	device := gputest.New(pci)
	s := step(device, nil)
	if err := s.Do(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := device.DestroyPartition(t.Context(), pci, s.Instance().GPUInstance); err != nil {
		t.Fatal(err)
	}
	if err := s.Verify(t.Context()); err == nil || !strings.Contains(err.Error(), "something else changes the partitions") {
		t.Errorf("%v; the partition is not there", err)
	}
}

func TestUndo(t *testing.T) {
	silent := func(c *gpu.PartitionConfig) { c.Silent = func() string { return "the driver died" } }
	for _, test := range []struct {
		name   string
		before func(*gputest.GPU, int)
		change func(*gpu.PartitionConfig)
		want   string // the error
		left   int
	}{
		{"ours", nil, nil, "", 0},
		{"in use", func(d *gputest.GPU, number int) { d.SetBusy(number, true) }, nil, "in use by another client; the kubelet tries again", 1},
		{"on a GPU that does not answer", func(d *gputest.GPU, _ int) { d.Fault = errors.New("GPU is lost") }, nil, "GPU is lost", 1},
		{"on a GPU that has to be reset", func(d *gputest.GPU, _ int) { d.Fault = errors.New("GPU is lost") }, func(c *gpu.PartitionConfig) { c.Gone = func(string) string { return "it is lost" } }, "", 1},
		{"under a driver that died", func(d *gputest.GPU, _ int) { d.Fault = errors.New("Driver Not Loaded") }, silent, "cannot be removed now (the driver died), and is when that has changed: look for partition gpu-0000-17-00-0-mig-1g-10gb-0", 1},
		{"in use, as the driver said before it died", func(d *gputest.GPU, number int) { d.SetBusy(number, true) }, silent, "in use by another client", 1},
		{"made since a reboot, by somebody", nil, func(c *gpu.PartitionConfig) { c.OtherBoot = true }, "", 1},
	} {
		device := gputest.New(pci)
		number := cut(t, device, 19, topology.MIGPlacement{Size: 1}).GPUInstance
		if test.before != nil {
			test.before(device, number)
		}
		err := step(device, test.change).Undo(t.Context())
		if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", test.name, err, test.want)
		}
		var unanswered *gpu.UnansweredError
		if later := errors.As(err, &unanswered); later != strings.Contains(test.name, "died") || later && unanswered.Partition != "gpu-0000-17-00-0-mig-1g-10gb-0" {
			t.Errorf("%s: to be removed later: %v", test.name, unanswered)
		}
		if left := device.Snapshot().MIG.Instances; len(left) != test.left {
			t.Errorf("%s: %d instances are left, want %d", test.name, len(left), test.left)
		}
	}
}

func TestFirstAttemptKnowsWhatItMade(t *testing.T) {
	intrude := func(t *testing.T, d *gputest.GPU) { cut(t, d, 19, topology.MIGPlacement{Size: 1}) }
	for _, test := range []struct {
		name   string
		before func(*testing.T, *gputest.GPU)
		change func(*gpu.PartitionConfig)
		fails  bool
		// nothing was made for the claim.
		nothing bool
	}{
		{"an empty place", nil, nil, false, false},
		{"somebody was faster", intrude, nil, true, true},
		{"the administrator's was there all along", intrude, func(c *gpu.PartitionConfig) { c.Static = true }, false, false},
		{"a GPU that does not answer", func(_ *testing.T, d *gputest.GPU) { d.Fault = errors.New("GPU is lost") }, nil, true, true},
		{"a place that something else took", func(t *testing.T, d *gputest.GPU) { cut(t, d, 14, topology.MIGPlacement{Size: 2}) }, nil, true, true},
		{"a driver that fails half way", func(_ *testing.T, d *gputest.GPU) {
			d.Interrupt = func(moment string) error {
				if moment == "gpu instance made" {
					return errors.New("unknown error")
				}
				return nil
			}
		}, nil, true, false},
	} {
		device := gputest.New(pci)
		if test.before != nil {
			test.before(t, device)
		}
		err := step(device, func(c *gpu.PartitionConfig) {
			if c.First = true; test.change != nil {
				test.change(c)
			}
		}).Do(t.Context())
		if (err != nil) != test.fails || errors.Is(err, topology.ErrNothingMade) != test.nothing {
			t.Errorf("%s: %v", test.name, err)
		}
	}
}
