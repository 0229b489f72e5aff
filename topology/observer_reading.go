// Reading without waiting forever. A driver call may hang in the kernel, where
// nothing can interrupt it; the rest of the machine goes on meanwhile. Each view is
// read by one call at a time, and a call that is late leaves the view as it was,
// with a problem, until it returns and asks for another look.

package topology

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"
)

// hardwareView and gpuView are the readers' answers as values.
type hardwareView struct {
	Hardware
	err error
}

type gpuView struct {
	Driver   Driver
	GPUs     []GPU
	Problems []Problem
}

// reading is one reader's last answer and the call that is under way, if any.
type reading[T any] struct {
	last  T
	known bool
	call  *call[T]
	// late is told that a call returned after it was given up.
	late func()
}

type call[T any] struct {
	answer  chan T // holds one
	begun   time.Time
	givenUp atomic.Bool
	stopped func() error
}

// next waits for an answer until the deadline. A call that was given up before is
// not waited for again, nor is a second one made beside it. The goroutine of a
// call ends when the reader returns, which for one stuck in the kernel may be never.
func (r *reading[T]) next(ctx context.Context, deadline time.Time, read func(context.Context) T) (answer T, err error) {
	begun := r.call
	if begun == nil {
		begun = &call[T]{answer: make(chan T, 1), begun: time.Now(), stopped: ctx.Err}
		r.call = begun
		go func() {
			begun.answer <- read(ctx)
			if begun.givenUp.Load() {
				r.late()
			}
		}()
		timer := time.NewTimer(time.Until(deadline))
		defer timer.Stop()
		select {
		case answer := <-begun.answer:
			return r.answered(answer), nil
		case <-ctx.Done():
		case <-timer.C:
		}
		begun.givenUp.Store(true)
	}
	select {
	case answer := <-begun.answer:
		if begun.stopped() != nil { // cut short by the context of who began it
			r.call = nil
			return r.next(ctx, deadline, read)
		}
		return r.answered(answer), nil
	default:
		return r.last, fmt.Errorf("reading has not returned since %s; what was known before stays", begun.begun.Format(time.RFC3339))
	}
}

func (r *reading[T]) answered(answer T) T {
	r.last, r.known, r.call = answer, true, nil
	return answer
}

// readHardware gives the last view there was if there is none now.
func (o *Observer) readHardware(ctx context.Context, deadline time.Time) (hardwareView, []Problem) {
	last, known := o.hardware.last, o.hardware.known
	view, err := o.hardware.next(ctx, deadline, func(ctx context.Context) hardwareView {
		hardware, err := o.cfg.Hardware.ReadHardware(ctx)
		return hardwareView{hardware, err}
	})
	if err == nil && view.err != nil {
		err = view.err
		if known && last.err == nil { // half a machine is worse than the one of a moment ago
			o.hardware.last, view = last, last
		}
	}
	if err != nil {
		return view, []Problem{{Subject: "PCI functions and NICs", Message: err.Error()}}
	}
	return view, nil
}

// readGPUs gives the last view there was if there is none now.
func (o *Observer) readGPUs(ctx context.Context, deadline time.Time) (gpuView, []Problem) {
	view, err := o.gpus.next(ctx, deadline, func(ctx context.Context) gpuView {
		driver, gpus, problems := o.cfg.GPUs.ReadGPUs(ctx)
		return gpuView{driver, gpus, problems}
	})
	if err == nil {
		return view, nil
	}
	if !o.gpus.known {
		view.Driver = Driver{State: DriverFailed, Message: "the driver does not answer: " + err.Error()}
	}
	return view, []Problem{{Subject: "GPU driver", Message: err.Error()}}
}
