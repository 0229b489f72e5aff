package nvml

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock"
)

// watching runs a watch of the GPUs for that long, on a clock that jumps.
func watching(t *testing.T, duration time.Duration, free *int, gpus ...nvml.Device) {
	t.Helper()
	begun := time.Now()
	set := &mock.EventSet{
		FreeFunc: func() nvml.Return { *free++; return nvml.SUCCESS },
		WaitFunc: func(milliseconds uint32) (nvml.EventData, nvml.Return) {
			if time.Since(begun) >= duration {
				return nvml.EventData{}, nvml.ERROR_UNINITIALIZED
			}
			time.Sleep(time.Duration(milliseconds) * time.Millisecond)
			return nvml.EventData{}, nvml.ERROR_TIMEOUT
		},
	}
	driver := driverWith(gpus...)
	driver.EventSetCreateFunc = func() (nvml.EventSet, nvml.Return) { return set, nvml.SUCCESS }
	if err := newSession(driver, everything, 0).WatchEvents(t.Context(), func(Event) {}); err == nil {
		t.Error("the watch ended without the driver's going away")
	}
}

// registering is a GPU that answers its nth attempt so, and notes when they were.
func registering(busID string, attempts *[]time.Duration, answer func(attempt int) nvml.Return) *mock.Device {
	begun := time.Now()
	gpu := gpuAt(busID)
	gpu.GetSupportedEventTypesFunc = func() (uint64, nvml.Return) { return nvml.EventTypeXidCriticalError, nvml.SUCCESS }
	gpu.RegisterEventsFunc = func(uint64, nvml.EventSet) nvml.Return {
		*attempts = append(*attempts, time.Since(begun))
		return answer(len(*attempts))
	}
	return gpu
}

func TestRegistrationIsTriedUntilItSucceeds(t *testing.T) {
	for _, test := range []struct {
		name   string
		answer func(attempt int) nvml.Return
		want   []time.Duration
	}{
		{"success is once and for all", func(int) nvml.Return { return nvml.SUCCESS }, []time.Duration{0}},
		{"a GPU without events is asked once", func(int) nvml.Return { return nvml.ERROR_NOT_SUPPORTED }, []time.Duration{0}},
		{"a failure is tried again, ever less often", func(attempt int) nvml.Return {
			if attempt < 8 {
				return nvml.ERROR_UNKNOWN
			}
			return nvml.SUCCESS
		}, []time.Duration{0, 1, 3, 7, 15, 31, 61, 91}},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var attempts []time.Duration
				var freed int
				watching(t, 5*time.Minute, &freed, registering("00000000:17:00.0", &attempts, test.answer))
				for i := range attempts {
					attempts[i] /= time.Second
				}
				if !slices.Equal(attempts, test.want) || freed != 1 {
					t.Errorf("attempts after %d s, want %d; the set was freed %d times", attempts, test.want, freed)
				}
			})
		})
	}
}

// The driver would write into freed memory.
func TestTheSetOfARegistrationThatHangsIsNotFreed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		var hung, well []time.Duration
		var freed int
		watching(t, time.Minute, &freed,
			registering("00000000:17:00.0", &hung, func(int) nvml.Return { <-release; return nvml.SUCCESS }),
			registering("00000000:2A:00.0", &well, func(int) nvml.Return { return nvml.SUCCESS }))
		close(release)
		synctest.Wait()
		if freed != 0 {
			t.Error("the event set was freed")
		}
		if len(hung) != 1 || len(well) != 1 {
			t.Errorf("%d calls pile up in a driver that hangs, and the neighbour was asked %d times", len(hung), len(well))
		}
	})
}
