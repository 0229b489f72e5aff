// One goroutine probes one GPU, so that a GPU whose driver call hangs delays
// nobody else. A cgo call that is stuck cannot be cancelled: the loop says
// "hung" once the deadline has passed, and then waits for that same call
// instead of piling more calls onto a dead device.

package health

import (
	"context"
	"slices"
	"sync"
)

// Prober asks one GPU how it is. It should honour the context's deadline.
type Prober interface {
	Probe(ctx context.Context, gpu KnownGPU) ProbeResult
}

type probeLoop struct {
	gpu KnownGPU
	// soon asks for a probe before the interval is over.
	soon chan struct{}
}

// startProbes starts a loop for each GPU that has none. It waits for the first
// snapshot: an agent that has just started has not opened the driver yet, and
// must not take that for a fault.
func (e *Engine) startProbes(ctx context.Context, loops *sync.WaitGroup) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.seen {
		return
	}
	for _, gpu := range e.state.GPUs {
		if e.probes[gpu.Device] != nil {
			continue
		}
		loop := &probeLoop{gpu: gpu, soon: make(chan struct{}, 1)}
		e.probes[gpu.Device] = loop
		loops.Go(func() { e.probeForever(ctx, loop) })
	}
}

// ProbeAll asks for a probe of every GPU now: an event came without a device.
func (e *Engine) ProbeAll() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for device := range e.probes {
		e.probeSoon(device)
	}
}

// probeSoon needs the lock.
func (e *Engine) probeSoon(device string) {
	loop := e.probes[device]
	if loop == nil {
		return
	}
	select {
	case loop.soon <- struct{}{}:
	default: // one is asked for already
	}
}

func (e *Engine) probeForever(ctx context.Context, loop *probeLoop) {
	for ctx.Err() == nil {
		e.probeOnce(ctx, loop.gpu)
		pause := e.cfg.Clock.NewTimer(e.cfg.PollInterval)
		select {
		case <-ctx.Done():
		case <-loop.soon:
		case <-pause.C():
		}
		pause.Stop()
	}
}

func (e *Engine) probeOnce(ctx context.Context, gpu KnownGPU) {
	if e.isInUserSpace(gpu) {
		return
	}
	answer := make(chan ProbeResult, 1)
	go func() { answer <- e.cfg.Prober.Probe(ctx, gpu) }()
	deadline := e.cfg.Clock.NewTimer(e.cfg.ProbeTimeout)
	defer deadline.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-deadline.C():
			if e.isInUserSpace(gpu) {
				continue
			}
			e.Observe(ProbeResult{Device: gpu.Device, Hung: true})
		case result := <-answer:
			if ctx.Err() != nil || e.isInUserSpace(gpu) {
				return // the agent is stopping, or the GPU left; an aborted call says nothing about it
			}
			result.Device = gpu.Device
			e.Observe(result, Tick{})
			return
		}
	}
}

func (e *Engine) isInUserSpace(gpu KnownGPU) bool {
	return slices.Contains(e.cfg.InUserSpace(), gpu.Device)
}
