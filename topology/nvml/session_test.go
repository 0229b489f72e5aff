package nvml

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock"
	"github.com/google/go-cmp/cmp"
)

func everything(string) bool { return true }

// gpuAt is a mock GPU that answers for its identity and has no NVLink and no fabric.
func gpuAt(busID string) *mock.Device {
	d := &mock.Device{
		GetPciInfoFunc: func() (nvml.PciInfo, nvml.Return) {
			var info nvml.PciInfo
			for i, c := range busID {
				info.BusId[i] = int8(c)
			}
			return info, nvml.SUCCESS
		},
		GetUUIDFunc:        func() (string, nvml.Return) { return "GPU-" + busID, nvml.SUCCESS },
		GetTemperatureFunc: func(nvml.TemperatureSensors) (uint32, nvml.Return) { return 40, nvml.SUCCESS },
	}
	return d
}

// identityOnly are the symbols that gpuAt answers.
func identityOnly(symbol string) bool {
	return symbol == "nvmlDeviceGetUUID" || symbol == "nvmlDeviceGetTemperature"
}

func driverWith(devices ...nvml.Device) *mock.Interface {
	return &mock.Interface{
		DeviceGetCountFunc:         func() (int, nvml.Return) { return len(devices), nvml.SUCCESS },
		DeviceGetHandleByIndexFunc: func(i int) (nvml.Device, nvml.Return) { return devices[i], nvml.SUCCESS },
	}
}

func TestACallThatHangsBlocksOnlyItsOwnLane(t *testing.T) {
	l, other := newLane("GPU a", 20*time.Millisecond), newLane("GPU b", 20*time.Millisecond)
	release := make(chan struct{})
	var calls atomic.Int32
	stuck := func() (int, nvml.Return) { calls.Add(1); <-release; return 1, nvml.SUCCESS }
	if _, err := call(t.Context(), l, "first", stuck); !errors.Is(err, ErrHung) {
		t.Fatalf("the stuck call says %v", err)
	}
	for range 100 {
		if _, err := call(t.Context(), l, "next", stuck); !errors.Is(err, ErrHung) {
			t.Fatalf("a call behind it says %v", err)
		}
	}
	if calls.Load() != 1 {
		t.Errorf("%d calls pile up in a stuck driver", calls.Load())
	}
	if v, err := call(t.Context(), other, "well", func() (int, nvml.Return) { return 7, nvml.SUCCESS }); v != 7 || err != nil {
		t.Errorf("another lane says %d, %v", v, err)
	}
	close(release)
	deadline := time.Now().Add(10 * time.Second)
	for {
		v, err := call(t.Context(), l, "after", func() (int, nvml.Return) { return 8, nvml.SUCCESS })
		if v == 8 && err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the call returned but its lane stays hung: %v", err)
		}
		time.Sleep(time.Millisecond)
	}
}

func TestConcurrentCallsTakeTurns(t *testing.T) {
	l := newLane("GPU a", 10*time.Second)
	var running, most atomic.Int32
	var callers sync.WaitGroup
	for range 50 {
		callers.Go(func() {
			_, err := call(t.Context(), l, "call", func() (int, nvml.Return) {
				most.Store(max(most.Load(), running.Add(1)))
				running.Add(-1)
				return 0, nvml.SUCCESS
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	callers.Wait()
	if most.Load() != 1 {
		t.Errorf("%d calls ran at once in one lane", most.Load())
	}
}

func TestACallerThatGivesUpDoesNotWait(t *testing.T) {
	l := newLane("GPU a", time.Hour)
	release := make(chan struct{})
	defer close(release)
	ctx, cancel := context.WithCancel(t.Context())
	started := make(chan struct{})
	go func() { <-started; cancel() }()
	_, err := call(ctx, l, "slow", func() (int, nvml.Return) { close(started); <-release; return 0, nvml.SUCCESS })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("the caller got %v", err)
	}
}

// The names do not depend on the order in which NVML lists GPUs.
func TestEnumerationOrderChangesNothingButTheIndex(t *testing.T) {
	a, b := gpuAt("00000000:17:00.0"), gpuAt("00000000:B3:00.0")
	names := func(devices ...nvml.Device) []string {
		gpus, problems, err := newSession(driverWith(devices...), identityOnly, 0).GPUs(t.Context())
		if err != nil || len(problems) > 0 {
			t.Fatal(err, problems)
		}
		var names []string
		for _, gpu := range gpus {
			names = append(names, gpu.Name+" "+gpu.UUID)
		}
		return names
	}
	want := []string{"gpu-0000-17-00-0 GPU-00000000:17:00.0", "gpu-0000-b3-00-0 GPU-00000000:B3:00.0"}
	for _, got := range [][]string{names(a, b), names(b, a)} {
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	}
}

// `nvidia-smi drain` removes a GPU from under a session, and the others move up.
func TestASilentIndexIsTheGPUThatSatThereLast(t *testing.T) {
	for range 20 { // the session's GPUs are in a map
		devices := []nvml.Device{gpuAt("00000000:17:00.0"), gpuAt("00000000:18:00.0"), gpuAt("00000000:19:00.0")}
		driver, silent := driverWith(), false
		driver.DeviceGetCountFunc = func() (int, nvml.Return) { return len(devices), nvml.SUCCESS }
		driver.DeviceGetHandleByIndexFunc = func(i int) (nvml.Device, nvml.Return) {
			if silent && i == 0 {
				return nil, nvml.ERROR_UNKNOWN
			}
			return devices[i], nvml.SUCCESS
		}
		s := newSession(driver, identityOnly, 0)
		var names []string
		for _, change := range []func(){func() {}, func() { devices = devices[1:] }, func() { silent = true }} {
			change()
			gpus, _, err := s.GPUs(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			names = nil
			for _, gpu := range gpus {
				names = append(names, gpu.Name)
			}
		}
		if want := []string{"gpu-0000-18-00-0", "gpu-0000-19-00-0"}; !cmp.Equal(want, names) {
			t.Fatalf("the GPUs are %v, want %v", names, want)
		}
	}
}

// A symbol that the library lacks is never called: the mock panics at any
// method that has no function, as the real library ends the process.
func TestMissingSymbolsAreNeverCalled(t *testing.T) {
	s := newSession(driverWith(gpuAt("00000000:17:00.0")), identityOnly, 0)
	gpus, _, err := s.GPUs(t.Context())
	if err != nil || len(gpus) != 1 || len(gpus[0].Problems) != 0 {
		t.Fatalf("%+v, %v", gpus, err)
	}
	if sample, err := s.Sample(t.Context(), "0000:17:00.0"); err != nil || sample.TemperatureCelsius == nil || sample.Utilization != nil {
		t.Errorf("the sample is %+v, %v", sample, err)
	}
	if probe, err := s.Probe(t.Context(), "0000:17:00.0"); err != nil || probe.RecoveryAction != RecoveryUnknown {
		t.Errorf("the probe is %+v, %v", probe, err)
	}
	if err := s.WatchEvents(t.Context(), func(Event) {}); !errors.Is(err, ErrNotSupported) {
		t.Errorf("watching says %v", err)
	}
}

func TestAGPUThatWasNeverListed(t *testing.T) {
	s := newSession(driverWith(gpuAt("00000000:17:00.0")), identityOnly, 0)
	if _, err := s.Sample(t.Context(), "0000:99:00.0"); !errors.Is(err, ErrUnknownGPU) {
		t.Errorf("the error is %v", err)
	}
}

func TestEvents(t *testing.T) {
	gpu := gpuAt("00000000:17:00.0")
	gpu.GetSupportedEventTypesFunc = func() (uint64, nvml.Return) {
		return nvml.EventTypeXidCriticalError | nvml.EventTypeClock, nvml.SUCCESS
	}
	var registered atomic.Uint64
	gpu.RegisterEventsFunc = func(types uint64, _ nvml.EventSet) nvml.Return { registered.Store(types); return nvml.SUCCESS }
	answers := make(chan answer[nvml.EventData], 8)
	set := &mock.EventSet{
		FreeFunc: func() nvml.Return { return nvml.SUCCESS },
		WaitFunc: func(uint32) (nvml.EventData, nvml.Return) {
			select {
			case a := <-answers:
				return a.value, a.ret
			default:
				return nvml.EventData{}, nvml.ERROR_TIMEOUT
			}
		},
	}
	driver := driverWith(gpu)
	driver.EventSetCreateFunc = func() (nvml.EventSet, nvml.Return) { return set, nvml.SUCCESS }
	event := func(kind, data uint64, gi uint32) {
		answers <- answer[nvml.EventData]{nvml.EventData{Device: gpu, EventType: kind, EventData: data, GpuInstanceId: gi, ComputeInstanceId: 0xFFFFFFFF}, nvml.SUCCESS}
	}
	event(nvml.EventTypeXidCriticalError, 48, 0xFFFFFFFF)
	event(nvml.EventTypeClock, 1, 0xFFFFFFFF) // not asked for, not delivered
	event(nvml.EventTypeGpuRecoveryAction, 2, 5)
	answers <- answer[nvml.EventData]{ret: nvml.ERROR_GPU_IS_LOST}
	answers <- answer[nvml.EventData]{ret: nvml.ERROR_UNINITIALIZED}

	var got []Event
	err := newSession(driver, everything, 0).WatchEvents(t.Context(), func(e Event) { got = append(got, e) })
	if !errors.Is(err, ErrDriverGone) {
		t.Errorf("watching ended with %v", err)
	}
	five := uint32(5)
	want := []Event{
		{PCI: "0000:17:00.0", Kind: EventXID, XID: 48},
		{PCI: "0000:17:00.0", Kind: EventRecoveryAction, GPUInstance: &five},
		{Kind: EventLost},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if registered.Load() != nvml.EventTypeXidCriticalError {
		t.Errorf("registered for %#x: only what the GPU supports and what is understood", registered.Load())
	}
	if len(set.FreeCalls()) != 1 {
		t.Errorf("the event set was freed %d times", len(set.FreeCalls()))
	}
}

func FuzzBusID(f *testing.F) {
	f.Add([]byte("00000000:17:00.0"))
	f.Add([]byte{0xff, 0x00, 0x3a})
	f.Fuzz(func(t *testing.T, raw []byte) {
		var info nvml.PciInfo
		for i := range min(len(raw), len(info.BusId)) {
			info.BusId[i] = int8(raw[i])
		}
		if pci, err := canonical(info); (err == nil) == (pci == "") {
			t.Errorf("%q becomes %q with error %v", raw, pci, err)
		}
	})
}

// Every repetition has the whole machine read, and a GPU may be away for days.
func TestALossIsToldOfAtOnceAndThenEverLessOften(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begun := time.Now()
		gpu := gpuAt("00000000:17:00.0")
		gpu.GetSupportedEventTypesFunc = func() (uint64, nvml.Return) { return nvml.EventTypeXidCriticalError, nvml.SUCCESS }
		gpu.RegisterEventsFunc = func(uint64, nvml.EventSet) nvml.Return { return nvml.SUCCESS }
		driver := driverWith(gpu)
		driver.EventSetCreateFunc = func() (nvml.EventSet, nvml.Return) {
			return &mock.EventSet{
				FreeFunc: func() nvml.Return { return nvml.SUCCESS },
				WaitFunc: func(milliseconds uint32) (nvml.EventData, nvml.Return) {
					switch since := time.Since(begun); {
					case since >= 10*time.Minute:
						return nvml.EventData{}, nvml.ERROR_UNINITIALIZED
					case since >= 5*time.Minute && since < 5*time.Minute+2*time.Second: // it was back
						time.Sleep(time.Duration(milliseconds) * time.Millisecond)
						return nvml.EventData{}, nvml.ERROR_TIMEOUT
					}
					return nvml.EventData{}, nvml.ERROR_GPU_IS_LOST
				},
			}, nvml.SUCCESS
		}
		var told []time.Duration
		_ = newSession(driver, everything, 0).WatchEvents(t.Context(), func(Event) { told = append(told, time.Since(begun)/time.Second) })
		if want := []time.Duration{0, 1, 3, 7, 15, 31, 61}; len(told) > 40 || len(told) < len(want) || !cmp.Equal(told[:len(want)], want) || !slices.Contains(told, 302) {
			t.Errorf("a GPU that was lost for five minutes, back, and lost again is told of after %d s", told)
		}
	})
}
