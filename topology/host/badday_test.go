package host_test

// Drivers' bad days, against the NVML simulator: what is left of the snapshot,
// and that one GPU's trouble stays its own.

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	gonvml "github.com/NVIDIA/go-nvml/pkg/nvml"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/hostler-dev/hostler/test/machine"
	"github.com/hostler-dev/hostler/test/nvmlsim"
	"github.com/hostler-dev/hostler/topology"
	"github.com/hostler-dev/hostler/topology/nvml"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestALostGPUKeepsItsIdentity(t *testing.T) {
	if !inOwnProcess(t) {
		return
	}
	s := simulate(t, "dgx-h100", machine.RenderOptions{})
	before := s.observe(t).GPUs[3]
	must(t, s.Control.SetLost(3, true))
	after := s.observe(t)
	if gpu := after.GPUs[3]; !gpu.Lost || gpu.Name != before.Name || gpu.UUID != before.UUID || !cmp.Equal(gpu.Placement, before.Placement) || len(gpu.Problems) == 0 {
		t.Errorf("the lost GPU is %+v", gpu)
	}
	for i, gpu := range after.GPUs {
		if i != 3 && (gpu.Lost || len(gpu.Problems) > 0) {
			t.Errorf("%s suffers too: %+v", gpu.Name, gpu.Problems)
		}
	}
	probe, err := s.GPUs.Probe(t.Context(), before.Placement.PCI)
	if !probe.Lost || !errors.Is(err, nvml.ErrLost) {
		t.Errorf("the probe is %+v, %v", probe, err)
	}
	must(t, s.Control.SetLost(3, false))
	if diff := cmp.Diff(before, s.observe(t).GPUs[3]); diff != "" {
		t.Errorf("after recovery the GPU is another one: %s", diff)
	}
}

func TestAGPUThatIsLostAtStartIsKnownFromTheBus(t *testing.T) {
	if !inOwnProcess(t) {
		return
	}
	s := simulate(t, "dgx-h100", machine.RenderOptions{})
	must(t, s.Control.SetLost(3, true))
	snapshot := s.observe(t)
	gpu := snapshot.GPU(topology.GPUName(s.Profile.GPUs[3].PCI))
	if len(snapshot.GPUs) != 8 || gpu == nil || !gpu.Lost || gpu.Placement.PCIeSwitch == "" {
		t.Errorf("of %d GPUs the lost one is %+v", len(snapshot.GPUs), gpu)
	}
}

func TestAHungGPUFailsFastAndAlone(t *testing.T) {
	if !inOwnProcess(t) {
		return
	}
	s := simulate(t, "dgx-h100", machine.RenderOptions{})
	before := s.observe(t)
	hung, well := before.GPUs[2].Placement.PCI, before.GPUs[5].Placement.PCI
	must(t, s.Control.Hang("nvmlDeviceGetTemperature", 2))
	if probe, err := s.GPUs.Probe(t.Context(), hung); !probe.Hung || !errors.Is(err, nvml.ErrHung) {
		t.Fatalf("the probe is %+v, %v", probe, err)
	}
	start := time.Now()
	if _, err := s.GPUs.Sample(t.Context(), hung); !errors.Is(err, nvml.ErrHung) {
		t.Errorf("the sample's error is %v", err)
	}
	if took := time.Since(start); took > callTimeout/2 {
		t.Errorf("a hung GPU was waited for again: %s", took)
	}
	if sample, err := s.GPUs.Sample(t.Context(), well); err != nil || sample.TemperatureCelsius == nil {
		t.Errorf("another GPU suffers: %+v, %v", sample, err)
	}
	after := s.observe(t)
	if gpu := after.GPUs[2]; gpu.UUID != before.GPUs[2].UUID || gpu.Lost || len(gpu.Problems) != 1 || !strings.Contains(gpu.Problems[0].Message, "does not answer") {
		t.Errorf("the hung GPU is %+v", gpu)
	}
	must(t, s.Control.ClearAll())
	deadline := time.Now().Add(10 * time.Second)
	for {
		if _, err := s.GPUs.Probe(t.Context(), hung); err == nil {
			break
		} else if time.Now().After(deadline) {
			t.Fatalf("the call returned but the GPU stays hung: %v", err)
		}
		time.Sleep(10 * time.Millisecond) // the stuck call returns in its own time
	}
	if diff := cmp.Diff(before, s.observe(t)); diff != "" {
		t.Errorf("after the hang the machine is another one: %s", diff)
	}
}

func TestOneFailingGetterCostsOneAttribute(t *testing.T) {
	if !inOwnProcess(t) {
		return
	}
	s := simulate(t, "dgx-h100", machine.RenderOptions{})
	must(t, s.Control.Fail("nvmlDeviceGetSerial", 1, gonvml.ERROR_UNKNOWN))
	snapshot := s.observe(t)
	if gpu := snapshot.GPUs[1]; gpu.Serial != "" || gpu.UUID == "" || gpu.MemoryBytes == 0 || len(gpu.NVLinks) != 18 ||
		len(gpu.Problems) != 1 || gpu.Problems[0].Subject != "nvmlDeviceGetSerial" {
		t.Errorf("the GPU is %+v", gpu)
	}
	must(t, s.Control.ClearAll())
	if gpu := s.observe(t).GPUs[1]; gpu.Serial == "" || len(gpu.Problems) != 0 {
		t.Errorf("once the getter works the GPU is %+v", gpu)
	}
}

func TestTheDriverComesLate(t *testing.T) {
	if !inOwnProcess(t) {
		return
	}
	s := simulate(t, "workstation", machine.RenderOptions{})
	library := filepath.Join(s.Rendered.DriverRoot, "usr/lib64/libnvidia-ml.so.1")
	must(t, os.Rename(library, library+".away"))
	snapshot := s.observe(t)
	if snapshot.Driver.State != topology.DriverMissing || len(snapshot.GPUs) != 0 || len(snapshot.NICs) == 0 ||
		!strings.Contains(snapshot.Driver.Message, "install the NVIDIA driver") {
		t.Errorf("without a driver the machine is %+v", snapshot)
	}
	if _, err := s.GPUs.Sample(t.Context(), s.Profile.GPUs[0].PCI); !errors.Is(err, nvml.ErrLibraryMissing) {
		t.Errorf("a sample without a driver says %v", err)
	}
	must(t, os.Rename(library+".away", library))
	if snapshot := s.observe(t); snapshot.Driver.State != topology.DriverReady || len(snapshot.GPUs) != 2 {
		t.Errorf("with the driver the machine is %+v", snapshot)
	}
}

func TestTheDriverDiesAndComesBack(t *testing.T) {
	if !inOwnProcess(t) {
		return
	}
	s := simulate(t, "workstation", machine.RenderOptions{})
	before := s.observe(t)
	must(t, s.Control.KillDriver())
	dead := s.observe(t)
	if dead.Driver.State != topology.DriverFailed || len(dead.GPUs) != 2 || !dead.GPUs[0].Lost || dead.GPUs[0].UUID != before.GPUs[0].UUID {
		t.Errorf("with a dead driver the machine is %+v", dead)
	}
	must(t, s.Control.ReviveDriver())
	if diff := cmp.Diff(before, s.observe(t)); diff != "" {
		t.Errorf("after the driver's return the machine is another one: %s", diff)
	}
}

func TestAnOldDriverLacksAttributesOnly(t *testing.T) {
	if !inOwnProcess(t) {
		return
	}
	s := simulate(t, "dgx-h100", machine.RenderOptions{OldDriver: true})
	snapshot := s.observe(t)
	if len(snapshot.GPUs) != 8 || snapshot.GPUs[0].UUID == "" || len(snapshot.GPUs[0].Problems) != 0 {
		t.Fatalf("with an old driver the first of %d GPUs is %+v", len(snapshot.GPUs), snapshot.GPUs[0])
	}
	probe, err := s.GPUs.Probe(t.Context(), snapshot.GPUs[0].Placement.PCI)
	if err != nil || probe.RecoveryAction != nvml.RecoveryUnknown {
		t.Errorf("the probe is %+v, %v", probe, err)
	}
}

func TestALibraryWithoutNVMLIsTooOld(t *testing.T) {
	if !inOwnProcess(t) {
		return
	}
	library, err := nvmlsim.BuildCUDA(t.TempDir()) // a shared object without any NVML symbol
	must(t, err)
	_, err = nvml.Open(nvml.Config{LibraryPath: library})
	if !errors.Is(err, nvml.ErrLibraryTooOld) || !strings.Contains(err.Error(), "nvmlInit_v2") {
		t.Errorf("the error is %v", err)
	}
}

func TestALibraryOfAnotherVersionAsksForARestart(t *testing.T) {
	if !inOwnProcess(t) {
		return
	}
	s := simulate(t, "workstation", machine.RenderOptions{})
	s.observe(t)
	s.install(t, s.Profile.Driver.Version)
	session, err := nvml.Open(nvml.Config{DriverRoot: s.Rendered.DriverRoot})
	if err != nil {
		t.Fatalf("the same version, installed anew by a driver container that restarted: %v", err)
	}
	must(t, session.Close())
	s.install(t, "999.1")
	_, err = nvml.Open(nvml.Config{DriverRoot: s.Rendered.DriverRoot})
	if !errors.Is(err, nvml.ErrLibraryReplaced) || !strings.Contains(err.Error(), "restart the agent") {
		t.Errorf("the error is %v", err)
	}
}

func TestADriverThatHangsAtStartIsAskedOnce(t *testing.T) {
	if !inOwnProcess(t) {
		return
	}
	s := simulate(t, "workstation", machine.RenderOptions{})
	must(t, s.Control.Hang("nvmlInit_v2", nvmlsim.AllGPUs))
	if driver := s.observe(t).Driver; driver.State != topology.DriverFailed || !strings.Contains(driver.Message, "does not answer") {
		t.Errorf("the driver is %+v", driver)
	}
	start := time.Now()
	s.observe(t)
	if took := time.Since(start); took > callTimeout/2 {
		t.Errorf("the hung driver was waited for again: %s", took)
	}
	must(t, s.Control.ClearAll())
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) { // the stuck call returns in its own time
		if s.observe(t).Driver.State == topology.DriverReady {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the driver stays %+v", s.observe(t).Driver)
		}
	}
}

func TestEventsNameTheGPUAndItsInstance(t *testing.T) {
	if !inOwnProcess(t) {
		return
	}
	s := simulate(t, "dgx-h100", machine.RenderOptions{})
	gpus := s.observe(t).GPUs
	events := make(chan nvml.Event, 8)
	ended := make(chan error, 1)
	go func() { ended <- s.GPUs.WatchEvents(t.Context(), func(e nvml.Event) { events <- e }) }()
	instance := func(n uint32) *uint32 { return &n }
	want := []nvml.Event{
		{PCI: gpus[4].Placement.PCI, Kind: nvml.EventXID, XID: 79},
		{PCI: gpus[1].Placement.PCI, Kind: nvml.EventXID, XID: 94, GPUInstance: instance(3), ComputeInstance: instance(0)},
	}
	// The simulator, as the driver, forgets what happens before somebody listens.
	next := func(inject func() error) nvml.Event {
		deadline := time.After(20 * time.Second)
		for {
			must(t, inject())
			select {
			case event := <-events:
				return event
			case <-time.After(time.Second):
			case err := <-ended:
				t.Fatalf("watching ended: %v", err)
			case <-deadline:
				t.Fatal("no event came")
			}
		}
	}
	got := []nvml.Event{next(func() error { return s.Control.InjectXID(4, 79, nil, nil) })}
	got = append(got, next(func() error { return s.Control.InjectXID(1, 94, instance(3), instance(0)) }))
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestSampleIsWhatTheGPUMeasures(t *testing.T) {
	if !inOwnProcess(t) {
		return
	}
	s := simulate(t, "dgx-h100", machine.RenderOptions{})
	must(t, s.Control.SetUtilization(6, 73))
	must(t, s.Control.SetMemoryUsed(6, 5<<30))
	must(t, s.Control.SetTemperature(6, 61))
	must(t, s.Control.Unset(6, "power_milliwatts"))
	must(t, s.Control.SetRecoveryAction(6, nvmlsim.RecoveryDrainAndReset))
	pci := s.Profile.GPUs[6].PCI
	s.observe(t)
	sample, err := s.GPUs.Sample(t.Context(), pci)
	must(t, err)
	got := []float64{*sample.Utilization, float64(*sample.MemoryUsedBytes), *sample.TemperatureCelsius, *sample.SMClockHertz}
	want := []float64{0.73, 5 << 30, 61, 345e6}
	if diff := cmp.Diff(want, got, cmpopts.EquateApprox(1e-9, 0)); diff != "" {
		t.Error(diff)
	}
	if sample.PowerWatts != nil {
		t.Errorf("power that the GPU does not offer is %g W", *sample.PowerWatts)
	}
	probe, err := s.GPUs.Probe(t.Context(), pci)
	if err != nil || probe.RecoveryAction != nvml.RecoveryDrainAndReset {
		t.Errorf("the probe is %+v, %v", probe, err)
	}
}
