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
	var zero T
	if stuck := l.stuckCall(); stuck != "" {
		return zero, fmt.Errorf("%s: %s: %w, the call %s has not returned yet", l.subject, name, ErrHung, stuck)
	}
	deadline := time.NewTimer(l.timeout)
	defer deadline.Stop()
	select {
	case <-l.turn:
	case <-deadline.C:
		return zero, l.overran(name)
	case <-ctx.Done():
		return zero, ctx.Err()
	}
	// Buffered: a call that comes back after its deadline must not wait for a reader.
	done := make(chan answer[T], 1)
	l.begin(name)
	go func() {
		value, ret := fn()
		l.begin("")
		l.turn <- struct{}{}
		done <- answer[T]{value, ret}
	}()
	select {
	case a := <-done:
		return a.value, callError(name, a.ret)
	case <-deadline.C:
		return zero, l.overran(name)
	case <-ctx.Done():
		return zero, ctx.Err()
	}
}

func (l *lane) begin(name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.running, l.started = name, time.Now()
}

// stuckCall names the call that is out past its deadline, "" if the lane works.
func (l *lane) stuckCall() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.running != "" && time.Since(l.started) >= l.timeout {
		return l.running
	}
	return ""
}

func (l *lane) overran(name string) error {
	return fmt.Errorf("%s: %s: %w within %s; if it stays so, the driver is stuck and the GPU needs a reset or the node a reboot", l.subject, name, ErrHung, l.timeout)
}
