package gpu_test

// The step against NVML's own rules, as test/nvmlsim plays them.

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	libnvml "github.com/NVIDIA/go-nvml/pkg/nvml"

	"github.com/hostler-dev/hostler/driver/gpu"
	"github.com/hostler-dev/hostler/test/nvmlsim"
	"github.com/hostler-dev/hostler/topology"
	"github.com/hostler-dev/hostler/topology/nvml"
)

// profiles of an A100-SXM4-40GB, as far as they are used here.
const profiles = `0 19 1g.5gb 1 7 14 1 0 0 0 0 4864 0:1,1:1,2:1,3:1,4:1,5:1,6:1
1 14 2g.10gb 2 3 28 2 1 0 0 0 9856 0:2,2:2,4:2`

// theirs is the administrator's 2g.10gb at slice 4.
const theirs = "5 14 4:2 0/1/0:2/MIG-7c2f6fd1-6d9f-5b58-9e6a-33c1c2c3b1f0\n"

// simulated is a driver root with a GPU in MIG mode. There is one in this
// process, which can bind NVML's symbols only once.
func simulated(t *testing.T) (nvmlsim.Control, *nvml.Source) {
	t.Helper()
	if _, err := exec.LookPath("cc"); err != nil {
		t.Skip("needs a C compiler to build the simulated library")
	}
	root := t.TempDir()
	library, err := nvmlsim.Build("")
	if err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(library)
	control := nvmlsim.Control{Dir: filepath.Join(root, "nvmlsim")}
	libraries := filepath.Join(root, "usr/lib64")
	if err := errors.Join(err,
		control.NewMachine("570.124.06", "12.8"),
		control.AddGPU(0, map[string]string{
			"uuid": "GPU-00000000-0000-4000-8000-000000000000", "pci_bus_id": pci, "pci_device_id": "0x20b010de", "pci_subsystem_id": "0x134f10de",
			"name": "NVIDIA A100-SXM4-40GB", "minor": "0", "memory_total": "42949672960", "memory_used": "0", "temperature": "31",
			"mig_mode": "1 1", "mig_profiles": profiles, "mig_instances": theirs,
		}),
		os.MkdirAll(libraries, 0o755),
		os.WriteFile(filepath.Join(libraries, "libnvidia-ml.so.1"), content, 0o755),
	); err != nil {
		t.Fatal(err)
	}
	source := nvml.NewSource(nvml.Config{DriverRoot: root, CallTimeout: 10 * time.Second})
	t.Cleanup(func() {
		if err := source.Close(); err != nil {
			t.Error(err)
		}
	})
	return control, source
}

var _ gpu.Partitioner = (*nvml.Source)(nil)

func TestPartitionsOfADriver(t *testing.T) {
	control, source := simulated(t)
	cut := func() string {
		raw, err := os.ReadFile(filepath.Join(control.Dir, "gpu0", "mig_instances"))
		if err != nil {
			t.Fatal(err)
		}
		return string(raw)
	}
	make1g := func(start int) *gpu.PartitionStep {
		return gpu.NewPartitionStep(gpu.PartitionConfig{
			Name: "a-1g", GPU: "gpu-0000-17-00-0", PCI: pci, Profile: "1g.5gb", ProfileID: 19, Placement: topology.MIGPlacement{Start: start, Size: 1},
			Partitioner: source, Gone: func(string) string { return "" }, Silent: func() string { return "" }, Changed: func() {},
		})
	}
	for range 2 { // the second time as an agent that was killed after the first
		s := make1g(0)
		if err := errors.Join(s.Do(t.Context()), s.Verify(t.Context())); err != nil {
			t.Fatal(err)
		}
		if i := s.Instance(); i == nil || i.Placement.Start != 0 || len(i.ComputeInstances) != 1 || !strings.HasPrefix(i.ComputeInstances[0].UUID, "MIG-") {
			t.Fatalf("instance %+v", i)
		}
		if got := strings.Count(cut(), "\n"); got != 2 {
			t.Fatalf("the GPU is cut into\n%swant the administrator's and ours", cut())
		}
	}
	if err := make1g(4).Do(t.Context()); !errors.Is(err, nvml.ErrNoCapacity) || !errors.Is(err, topology.ErrNothingMade) || !strings.Contains(err.Error(), "partition a-1g") {
		t.Errorf("%v; the place is the administrator's", err)
	}
	if err := control.Fail("nvmlDeviceCreateGpuInstanceWithPlacement", 0, libnvml.ERROR_UNKNOWN); err != nil {
		t.Fatal(err)
	}
	if err := make1g(1).Do(t.Context()); err == nil || errors.Is(err, topology.ErrNothingMade) {
		t.Errorf("%v; after an unknown error the driver may have made it", err)
	}
	if err := control.ClearAll(); err != nil {
		t.Fatal(err)
	}
	if err := control.Set(0, "processes", "4711 1048576 gi=7 ci=0"); err != nil {
		t.Fatal(err)
	}
	if err := make1g(0).Undo(t.Context()); !errors.Is(err, nvml.ErrPartitionInUse) || !strings.Contains(err.Error(), "4711") {
		t.Errorf("%v; want the process named that uses it", err)
	}
	if err := errors.Join(control.Unset(0, "processes"), make1g(0).Undo(t.Context()), make1g(0).Undo(t.Context())); err != nil {
		t.Error(err)
	}
	if got := cut(); got != theirs {
		t.Errorf("in the end the GPU is cut into\n%swant\n%s", got, theirs)
	}
	// A kill between the two halves leaves a GPU instance that nothing can run on.
	if err := control.Set(0, "mig_instances", theirs+"7 19 0:1\n"); err != nil {
		t.Fatal(err)
	}
	// What else is wrong with the GPU, and would be a problem in the snapshot, is no hindrance.
	if err := control.Fail("nvmlDeviceGetTemperature", 0, libnvml.ERROR_UNKNOWN); err != nil {
		t.Fatal(err)
	}
	s := make1g(0)
	if err := errors.Join(s.Do(t.Context()), s.Verify(t.Context())); err != nil || len(s.Instance().ComputeInstances) != 1 {
		t.Errorf("%v: instance %+v is not whole", err, s.Instance())
	}
}
