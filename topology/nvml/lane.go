// A lane is the single file of calls to one GPU. NVML calls cannot be cancelled,
// so each runs in a goroutine that the lane owns; the caller waits no longer than
// the deadline. While a call that overran is still out, the lane is hung: it
// refuses further calls at once instead of piling up goroutines behind the first.

package nvml

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
)

type lane struct {
	subject string // "GPU 0000:17:00.0", for errors
	timeout time.Duration
	turn    chan struct{} // holds one token; whoever has it may call

	mu      sync.Mutex
	running string // the call that is out, "" if none
	started time.Time
	allowed time.Duration // for the call that is out
}

func newLane(subject string, timeout time.Duration) *lane {
	l := &lane{subject: subject, timeout: timeout, turn: make(chan struct{}, 1)}
	l.turn <- struct{}{}
	return l
}

// answer is what one NVML call returned.
type answer[T any] struct {
	value T
	ret   nvml.Return
}

// call runs one NVML call in the lane. The error is ErrHung if the call, or one
// before it, does not return in time, ctx's error if ctx ends first, or callError's.
func call[T any](ctx context.Context, l *lane, name string, fn func() (T, nvml.Return)) (T, error) {
	return callFor(ctx, l, l.timeout, name, fn)
}

// callFor is call for one that may take longer than the lane's timeout. Calls
// behind it wait for it in good faith: it does not make them fail.
func callFor[T any](ctx context.Context, l *lane, allowed time.Duration, name string, fn func() (T, nvml.Return)) (T, error) {
	var zero T
	if stuck := l.stuckCall(); stuck != "" {
		return zero, fmt.Errorf("%s: %s: %w, the call %s has not returned yet", l.subject, name, ErrHung, stuck)
	}
	extra := l.extra()
	deadline := time.NewTimer(allowed + extra)
	defer deadline.Stop()
	select {
	case <-l.turn:
		if extra > 0 {
			deadline.Reset(allowed)
		}
	case <-deadline.C:
		return zero, l.overran(name, allowed)
	case <-ctx.Done():
		return zero, ctx.Err()
	}
	// Buffered: a call that comes back after its deadline must not wait for a reader.
	done := make(chan answer[T], 1)
	l.begin(name, allowed)
	go func() {
		value, ret := fn()
		l.begin("", 0)
		l.turn <- struct{}{}
		done <- answer[T]{value, ret}
	}()
	select {
	case a := <-done:
		return a.value, callError(name, a.ret)
	case <-deadline.C:
		return zero, l.overran(name, allowed)
	case <-ctx.Done():
		return zero, ctx.Err()
	}
}

func (l *lane) begin(name string, allowed time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.running, l.started, l.allowed = name, time.Now(), allowed
}

// extra is what the call that is out may take beyond the lane's timeout.
func (l *lane) extra() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return max(0, l.allowed-l.timeout)
}

// stuckCall names the call that is out past its deadline, "" if the lane works.
func (l *lane) stuckCall() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.running != "" && time.Since(l.started) >= l.allowed {
		return l.running
	}
	return ""
}

func (l *lane) overran(name string, allowed time.Duration) error {
	return fmt.Errorf("%s: %s: %w within %s; if it stays so, the driver is stuck and the GPU needs a reset or the node a reboot", l.subject, name, ErrHung, allowed)
}
