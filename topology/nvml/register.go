// Registration puts GPUs into the event set of a watch. A GPU that is slow, hung
// or lost at that moment would keep its XIDs to itself for as long as the driver is
// loaded, so it is asked again until it is in the set or says that it has no events.

package nvml

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
	"k8s.io/klog/v2"
)

// Pauses between attempts double from the first to the longest.
const firstPause, longestPause = time.Second, 30 * time.Second

// registration is what came of asking one GPU.
type registration struct {
	pci string
	// settled: the GPU is in the set, or does not offer events.
	settled bool
	// next is when to ask again, pause the time that this is after the last attempt.
	next  time.Time
	pause time.Duration
}

// register asks the GPUs that are new, and again those that failed, all at once:
// what several of them delay the watch by is one deadline.
func (w *watch) register(ctx context.Context) {
	w.session.mu.Lock()
	devices := make([]*device, 0, len(w.session.gpus))
	for _, d := range w.session.gpus {
		devices = append(devices, d)
	}
	w.session.mu.Unlock()
	var attempts sync.WaitGroup
	for _, d := range devices {
		handle := d.nvml()
		r := w.registered[handle]
		if r == nil {
			r = &registration{pci: d.pci}
			w.registered[handle] = r
		}
		if !r.settled && !time.Now().Before(r.next) {
			attempts.Go(func() { r.conclude(ctx, w.add(ctx, d, handle)) })
		}
	}
	attempts.Wait()
}

func (w *watch) add(ctx context.Context, d *device, handle nvml.Device) error {
	supported, err := call(ctx, d.lane, "nvmlDeviceGetSupportedEventTypes", handle.GetSupportedEventTypes)
	if err != nil {
		return err
	}
	if supported&w.wanted() == 0 {
		return errNoSuchEvents
	}
	_, err = call(ctx, d.lane, "nvmlDeviceRegisterEvents", func() (struct{}, nvml.Return) {
		if !w.enter() {
			return struct{}{}, nvml.ERROR_UNINITIALIZED
		}
		defer w.leave()
		return struct{}{}, handle.RegisterEvents(supported&w.wanted(), w.set)
	})
	return err
}

// errNoSuchEvents: the GPU has events, but none of those that are asked for. GPUs
// that cannot do MIG are such; nothing is wrong with them.
var errNoSuchEvents = errors.New("the GPU does not emit such events")

// conclude notes and tells how an attempt ended.
func (r *registration) conclude(ctx context.Context, err error) {
	logger := klog.FromContext(ctx).WithValues("gpu", r.pci)
	switch {
	case ctx.Err() != nil: // the watch is ending
	case errors.Is(err, errNoSuchEvents):
		r.settled = true
		logger.V(4).Info("The GPU does not emit the events that are watched")
	case err == nil:
		r.settled = true
		if r.pause > 0 {
			logger.Info("The GPU's events are watched now")
		}
	case errors.Is(err, ErrNotSupported):
		r.settled = true
		logger.Error(err, "The GPU's events cannot be watched; what they would tell is found by polling only")
	default:
		if r.pause == 0 {
			logger.Error(err, "The GPU's events cannot be watched yet; what they would tell is found by polling only until that is mended")
		}
		r.pause = min(max(2*r.pause, firstPause), longestPause)
		r.next = time.Now().Add(r.pause)
	}
}

// enter is false once the set is freed: a call that its caller gave up on may
// come to run after that.
func (w *watch) enter() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.freed {
		return false
	}
	w.inside++
	return true
}

func (w *watch) leave() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.inside--
}

// close is false if a registration that hangs still uses the set, which must
// then never be freed.
func (w *watch) close() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.freed = w.inside == 0
	return w.freed
}
