package source_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	libnvml "github.com/NVIDIA/go-nvml/pkg/nvml"

	"github.com/hostler-dev/hostler/health"
	"github.com/hostler-dev/hostler/health/source"
	"github.com/hostler-dev/hostler/test/nvmlsim"
	"github.com/hostler-dev/hostler/topology"
	"github.com/hostler-dev/hostler/topology/nvml"
)

// driverRoot lives as long as the process: NVML is bound to its library once.
var driverRoot string

func TestMain(m *testing.M) {
	var err error
	if driverRoot, err = os.MkdirTemp("", "hostler-driver-root-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	os.RemoveAll(driverRoot)
	os.Exit(code)
}

// The whole way from the driver's library to the verdict, against the simulated
// NVML. One machine serves all scenes: a process binds NVML only once.
type scene struct {
	control nvmlsim.Control
	gpus    *nvml.Source
	engine  *health.Engine
	told    chan []health.Verdict
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func newScene(t *testing.T) *scene {
	t.Helper()
	library, err := nvmlsim.Build("")
	must(t, err)
	content, err := os.ReadFile(library)
	must(t, err)
	path := filepath.Join(driverRoot, "usr/lib64/libnvidia-ml.so.1")
	must(t, os.MkdirAll(filepath.Dir(path), 0o755))
	if _, err := os.Stat(path); err != nil {
		must(t, os.WriteFile(path, content, 0o755))
	}
	s := &scene{control: nvmlsim.Control{Dir: filepath.Join(driverRoot, "nvmlsim")}, told: make(chan []health.Verdict, 1000)}
	must(t, s.control.NewMachine("570.124.06", "12.8"))
	for i := range 2 {
		must(t, s.control.AddGPU(i, map[string]string{
			"uuid": fmt.Sprintf("GPU-%08d-0000-4000-8000-000000000000", i), "pci_bus_id": fmt.Sprintf("0000:1%d:00.0", i), "pci_device_id": "0x233010de", "pci_subsystem_id": "0x16c110de",
			"name": "NVIDIA H100 80GB HBM3", "minor": fmt.Sprint(i), "temperature": "31", "recovery_action": "none", "memory_total": "85520809984",
		}))
	}
	s.gpus = nvml.NewSource(nvml.Config{DriverRoot: driverRoot, CallTimeout: 500 * time.Millisecond})
	events := source.NewNVML(source.NVMLConfig{Session: func() source.Session { return s.gpus }, RetryInterval: 50 * time.Millisecond})
	s.engine, err = health.NewEngine(t.Context(), health.EngineConfig{
		Path: filepath.Join(t.TempDir(), "health.json"), Rules: health.Rules{RecoveryHoldDown: 300 * time.Millisecond}, Prober: events,
		PollInterval: 50 * time.Millisecond, OnVerdicts: func(v []health.Verdict) { s.told <- v },
	})
	must(t, err)
	if seen := s.look(t); seen != 2 {
		t.Fatalf("the simulated machine shows %d GPUs", seen)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 2)
	go func() { done <- s.engine.Run(ctx) }()
	go func() { done <- events.Run(ctx, s.engine) }()
	t.Cleanup(func() {
		cancel()
		for range 2 {
			if err := <-done; err != nil {
				t.Errorf("Run ended with %v", err)
			}
		}
		if err := s.gpus.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// look takes a snapshot, as the observer does, and counts its GPUs.
func (s *scene) look(t *testing.T) int {
	t.Helper()
	snapshot := &topology.Snapshot{BootID: "boot1"}
	snapshot.Driver, snapshot.GPUs, _ = s.gpus.ReadGPUs(t.Context())
	for i := range snapshot.GPUs {
		snapshot.GPUs[i].Name = topology.GPUName(snapshot.GPUs[i].Placement.PCI)
	}
	s.engine.SetSnapshot(snapshot)
	return len(snapshot.GPUs)
}

// await waits until exactly these verdicts ("device family severity") stand,
// Info left out, and says how long it took.
func (s *scene) await(t *testing.T, want ...string) time.Duration {
	t.Helper()
	begin, timeout := time.Now(), time.After(20*time.Second)
	var last []string
	for {
		select {
		case verdicts := <-s.told:
			last = nil
			for _, v := range verdicts {
				if v.Severity > health.Info {
					last = append(last, strings.TrimSpace(fmt.Sprintf("%s %s %s", v.Device, v.Family, v.Severity)))
				}
			}
			if slices.Equal(last, want) {
				return time.Since(begin)
			}
		case <-timeout:
			t.Fatalf("within 20 s the verdicts did not become %q; they are %q", want, last)
		}
	}
}

// until does something again and again until such a fault stands.
func (s *scene) until(t *testing.T, device string, family health.Family, do func()) {
	t.Helper()
	stands := func(v health.Verdict) bool { return v.Device == device && v.Family == family }
	for begun := time.Now(); !slices.ContainsFunc(s.engine.Verdicts(), stands); time.Sleep(20 * time.Millisecond) {
		do()
		if time.Since(begun) > 20*time.Second {
			t.Fatalf("within 20 s %s got no fault %s", device, family)
		}
	}
}

func TestFaultsOfASimulatedMachine(t *testing.T) {
	const gpu0, gpu1 = "gpu-0000-10-00-0", "gpu-0000-11-00-0"
	s := newScene(t)
	s.await(t)
	// The watch is there once a first, harmless XID has come through.
	s.until(t, gpu1, health.FamilyXID, func() { must(t, s.control.InjectXID(1, 13, nil, nil)) })

	t.Run("XID 79 is told in milliseconds and lifted when the driver asks for nothing", func(t *testing.T) {
		must(t, s.control.InjectXID(0, 79, nil, nil))
		if took := s.await(t, gpu0+" xid Fatal"); took > time.Second {
			t.Errorf("from the event to the verdict it took %s", took)
		} else {
			t.Logf("from the event to the verdict: %s", took)
		}
		s.await(t)
	})
	t.Run("XID 79 stays for as long as the GPU is lost and asks for a reset", func(t *testing.T) {
		must(t, s.control.SetLost(0, true))
		must(t, s.control.InjectXID(0, 79, nil, nil))
		s.await(t, gpu0+" gpu-lost Fatal", gpu0+" xid Fatal")
		must(t, s.control.SetLost(0, false))
		must(t, s.control.SetRecoveryAction(0, nvmlsim.RecoveryReset))
		s.await(t, gpu0+" gpu-lost Fatal", gpu0+" recovery-action NeedsReset", gpu0+" xid Fatal")
		must(t, s.control.SetRecoveryAction(0, nvmlsim.RecoveryNone))
		s.await(t)
	})
	t.Run("a hung GPU is told alone, and its neighbour's fault beside it", func(t *testing.T) {
		must(t, s.control.Hang("nvmlDeviceGetTemperature*", 0))
		s.await(t, gpu0+" hung NeedsReset")
		must(t, s.control.InjectXID(1, 48, nil, nil))
		s.await(t, gpu0+" hung NeedsReset", gpu1+" xid NeedsReset")
		must(t, s.control.ClearAll())
		s.await(t)
	})
	t.Run("with every GPU lost the node is at fault until the first is back", func(t *testing.T) {
		must(t, s.control.SetLost(0, true))
		must(t, s.control.SetLost(1, true))
		s.await(t, "all-gpus Fatal", gpu0+" gpu-lost Fatal", gpu1+" gpu-lost Fatal")
		must(t, s.control.SetLost(1, false))
		s.await(t, gpu0+" gpu-lost Fatal")
		must(t, s.control.SetLost(0, false))
		s.await(t)
	})
	t.Run("a reading that fails on every GPU leaves them usable", func(t *testing.T) {
		must(t, s.control.Fail("nvmlDeviceGetRemappedRows", nvmlsim.AllGPUs, libnvml.ERROR_UNKNOWN))
		s.await(t, gpu0+" reading Degraded", gpu1+" reading Degraded")
		must(t, s.control.ClearAll())
		s.await(t)
	})
	t.Run("a driver that dies is the node's fault until it is back", func(t *testing.T) {
		must(t, s.control.KillDriver())
		s.look(t)
		s.await(t, "all-gpus Fatal", "driver Fatal", gpu0+" probe Degraded", gpu1+" probe Degraded")
		must(t, s.control.ReviveDriver())
		s.look(t)
		s.await(t)
	})
	t.Run("a GPU that could not register when the watch began tells its XIDs once it can", func(t *testing.T) {
		must(t, s.control.KillDriver())
		s.look(t)
		s.await(t, "all-gpus Fatal", "driver Fatal", gpu0+" probe Degraded", gpu1+" probe Degraded")
		must(t, s.control.Fail("nvmlDeviceRegisterEvents", 0, libnvml.ERROR_UNKNOWN))
		must(t, s.control.Hang("nvmlDeviceGetSupportedEventTypes", 1))
		must(t, s.control.ReviveDriver())
		s.look(t)
		s.until(t, gpu1, health.FamilyHung, func() {})
		must(t, s.control.ClearAll())
		s.await(t)
		for gpu, device := range []string{gpu0, gpu1} {
			s.until(t, device, health.FamilyXID, func() { must(t, s.control.InjectXID(gpu, 31, nil, nil)) })
		}
	})
}
