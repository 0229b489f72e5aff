// One goroutine samples one device, so that a device whose driver call hangs
// goes stale alone. The newest sample hangs on an atomic pointer for the
// renderer to pick up.

package metrics

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"github.com/hostler-dev/hostler/topology/nvml"
)

// GPUSampler measures one GPU; topology/nvml's Session is one.
type GPUSampler interface {
	Sample(ctx context.Context, pci string) (nvml.Sample, error)
}

// stamped is a sample and its time.
type stamped[T any] struct {
	at    time.Time
	value T
}

// series samples one device again and again.
type series[T any] struct {
	device   string
	interval time.Duration
	clock    clock.Clock
	// sample reads the device; ok is false if nothing of it is worth keeping.
	sample func(ctx context.Context) (value T, ok bool, err error)
	// sampled is called after each attempt.
	sampled func()

	// base is the same for all devices: they are measured side by side, in one waking of
	// the process and for one page.
	base   time.Time
	begun  time.Time
	latest atomic.Pointer[stamped[T]]
	errors atomic.Uint64
	stop   context.CancelFunc
}

func (s *series[T]) run(ctx context.Context) {
	logger := klog.FromContext(ctx).WithName("metrics")
	var lastError string
	for {
		value, ok, err := s.sample(ctx)
		if ctx.Err() != nil {
			return
		}
		if ok {
			s.latest.Store(&stamped[T]{at: s.clock.Now(), value: value})
		}
		if err != nil {
			s.errors.Add(1)
			if err.Error() != lastError { // a lasting failure is told once
				logger.Error(err, "Sampling failed", "device", s.device)
				lastError = err.Error()
			}
		} else {
			lastError = ""
		}
		s.sampled()
		pause := s.clock.NewTimer(s.untilNext(s.clock.Now()))
		select {
		case <-ctx.Done():
			pause.Stop()
			return
		case <-pause.C():
		}
	}
}

// untilNext is how long to pause until all devices are measured again, or once more if one
// takes so long to answer that it would hardly have a pause.
func (s *series[T]) untilNext(now time.Time) time.Duration {
	pause := s.interval - now.Sub(s.base)%s.interval
	if pause < s.interval/2 {
		pause += s.interval
	}
	return pause
}

// view returns the newest sample, nil if it is older than three intervals.
func (s *series[T]) view(now time.Time) (*T, sampleState) {
	state := sampleState{SampledAt: s.begun, Errors: s.errors.Load()}
	newest := s.latest.Load()
	if newest == nil {
		return nil, state
	}
	state.SampledAt = newest.at
	if now.Sub(newest.at) > 3*s.interval {
		return nil, state
	}
	return &newest.value, state
}

// sampleGPU keeps what a partly failed sample has, and nothing of a GPU that is
// lost or hung.
func sampleGPU(sampler GPUSampler, pci string) func(context.Context) (nvml.Sample, bool, error) {
	return func(ctx context.Context) (nvml.Sample, bool, error) {
		sample, err := sampler.Sample(ctx, pci)
		if errors.Is(err, nvml.ErrPaused) {
			return sample, false, nil // nothing failed: another GPU changes hands
		}
		return sample, err == nil || sample != nvml.Sample{} && !errors.Is(err, nvml.ErrLost) && !errors.Is(err, nvml.ErrHung), err
	}
}
