// Letting go of the driver. A session holds every GPU open, and the kernel takes
// a GPU from its driver only when nobody has it open: so the session is closed for
// the moment in which a GPU changes hands, and a new one, which lists the GPUs that
// there are then, is opened after it. Who wants to change or list GPUs waits
// meanwhile; who measures or probes is told that there is nothing to be had just now.

package nvml

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
	"k8s.io/klog/v2"
)

// ErrPaused: the agent has let go of the driver for a moment. It says nothing
// about any GPU.
var ErrPaused = errors.New("NVML is closed for the moment in which a GPU changes hands; the next try is answered")

// traffic counts who uses the session. Its zero value lets everybody in.
type traffic struct {
	users int
	// over is closed when the pause ends, nil while there is none. Drained is
	// closed when the last user has left in it.
	over, drained chan struct{}
}

// enter is called before the session is used, leave after. It waits for the end of
// a pause.
func (s *Source) enter(ctx context.Context) (leave func(), err error) {
	for {
		leave, over := s.tryEnter()
		if leave != nil {
			return leave, nil
		}
		select {
		case <-over:
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: %w", ErrPaused, context.Cause(ctx))
		}
	}
}

// tryEnter returns no leave during a pause, but what is closed when it is over.
func (s *Source) tryEnter() (leave func(), over <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.traffic.over != nil {
		return nil, s.traffic.over
	}
	s.traffic.users++
	return s.leave, nil
}

func (s *Source) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.traffic.users--
	if s.traffic.users == 0 && s.traffic.drained != nil {
		close(s.traffic.drained)
		s.traffic.drained = nil
	}
}

// watching is enter for those who stay: their context ends when a pause begins.
func (s *Source) watching(ctx context.Context) (until context.Context, leave func(), err error) {
	left, err := s.enter(ctx)
	if err != nil {
		return nil, nil, err
	}
	interrupt := s.interruption()
	watch, cancel := context.WithCancel(ctx)
	go func() {
		select {
		case <-interrupt:
			cancel()
		case <-watch.Done():
		}
	}()
	return watch, func() { cancel(); left() }, nil
}

// interruption is closed when the next pause begins, or the one that has begun
// since the caller entered.
func (s *Source) interruption() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.interrupt == nil {
		s.interrupt = make(chan struct{})
	}
	interrupt := s.interrupt
	if s.traffic.over != nil {
		close(interrupt)
		s.interrupt = nil
	}
	return interrupt
}

// Pause closes the session, runs action and opens the next session, one pause at
// a time. Calls that are under way are waited for; watches of events are ended, which
// takes them up to a second. If the driver does not let itself be closed, or ctx ends
// before, action is not run.
func (s *Source) Pause(ctx context.Context, action func(context.Context) error) error {
	over, err := s.stopTraffic(ctx)
	if err != nil {
		return err
	}
	defer over()
	s.mu.Lock()
	session, reason := s.session, s.reason
	s.session, s.reason = nil, ErrPaused
	s.mu.Unlock()
	if session == nil {
		defer func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.reason = reason
		}()
		return action(ctx)
	}
	defer func() {
		if _, err := s.ensure(context.WithoutCancel(ctx)); err != nil {
			klog.FromContext(ctx).Error(err, "The NVIDIA driver cannot be opened again after it was let go of; it is tried at every look at the machine")
		}
	}()
	if err := session.Close(); err != nil && !errors.Is(err, ErrDriverGone) {
		return fmt.Errorf("let go of the NVIDIA driver, which holds every GPU as long as the agent has it open: %w", err)
	}
	return action(ctx)
}

// stopTraffic begins a pause once all users have left. Whoever wants to pause
// waits for the pause before.
func (s *Source) stopTraffic(ctx context.Context) (resume func(), err error) {
	for {
		s.mu.Lock()
		before := s.traffic.over
		if before == nil {
			break
		}
		s.mu.Unlock()
		select {
		case <-before:
		case <-ctx.Done():
			return nil, fmt.Errorf("wait until another GPU has changed hands: %w", context.Cause(ctx))
		}
	}
	over := make(chan struct{})
	s.traffic.over = over
	drained := make(chan struct{})
	if s.traffic.users == 0 {
		close(drained)
	} else {
		s.traffic.drained = drained
	}
	if s.interrupt != nil {
		close(s.interrupt)
		s.interrupt = nil
	}
	s.mu.Unlock()
	resume = func() {
		s.mu.Lock()
		s.traffic.over, s.traffic.drained = nil, nil
		s.mu.Unlock()
		close(over)
		s.hint() // the GPUs may be others now
	}
	select {
	case <-drained:
		return resume, nil
	case <-ctx.Done():
		resume()
		return nil, fmt.Errorf("wait until the NVIDIA driver has answered what it is asked just now: %w", context.Cause(ctx))
	}
}

// LetGo is Pause for the moment in which the GPU at a canonical PCI address is
// taken from its driver or given back. It refuses, and names them, while processes
// use the GPU.
//
// NVIDIA's driver does not let a GPU go that is open: its remove callback waits for
// the last user (nv_pci_remove_helper in kernel-open/nvidia/nv-pci.c of
// open-gpu-kernel-modules), and since release 595 it waits forever even if that ends
// (issues 1119 and 1374 there). That was read, not seen: no GPU was at hand. NVML names processes
// with a context; what merely has the device node open, like nvidia-persistenced or
// a monitoring agent, is found by package driver/vfio.
func (s *Source) LetGo(ctx context.Context, pci string, action func(context.Context) error) error {
	processes, err := s.processes(ctx, pci)
	switch {
	case errors.Is(err, ErrUnknownGPU), errors.Is(err, ErrNotSupported), errors.Is(err, ErrDriverGone):
		// It is not the driver's now, or the driver cannot tell.
	case err != nil:
		return fmt.Errorf("look whether processes use GPU %s: %w", pci, err)
	case len(processes) > 0:
		return fmt.Errorf("GPU %s cannot be taken from its driver while processes use it: %s; end them (`nvidia-smi` lists them), the kubelet tries again", pci, strings.Trim(fmt.Sprint(processes), "[]"))
	}
	return s.Pause(ctx, action)
}

func (s *Source) processes(ctx context.Context, pci string) ([]uint32, error) {
	leave, err := s.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	session, _ := s.current()
	if session == nil {
		return nil, ErrUnknownGPU // nobody of ours has opened the driver
	}
	return session.processes(ctx, pci)
}

// processes lists the process IDs with a context on the GPU, in order.
func (s *Session) processes(ctx context.Context, pci string) ([]uint32, error) {
	d, err := s.device(ctx, pci)
	if err != nil {
		return nil, err
	}
	var ids []uint32
	for name, list := range map[string]func() ([]nvml.ProcessInfo, nvml.Return){
		"nvmlDeviceGetComputeRunningProcesses":    d.nvml().GetComputeRunningProcesses,
		"nvmlDeviceGetGraphicsRunningProcesses":   d.nvml().GetGraphicsRunningProcesses,
		"nvmlDeviceGetMPSComputeRunningProcesses": d.nvml().GetMPSComputeRunningProcesses,
	} {
		// go-nvml calls the newest version that the library has.
		if !s.has(name) && !s.has(name+"_v2") && !s.has(name+"_v3") {
			continue
		}
		found, err := call(ctx, d.lane, name, list)
		if errors.Is(err, ErrNotSupported) {
			continue
		}
		if err != nil {
			return nil, err
		}
		for _, process := range found {
			ids = append(ids, process.Pid)
		}
	}
	slices.Sort(ids)
	return slices.Compact(ids), nil
}
