// An agent that hands over, or ends, first brings to an end what it has begun: the
// work on a claim outlives the call that asked for it, and two agents must never
// write one journal.

package claim

import (
	"context"
	"errors"
	"fmt"
)

// ErrDrained says that nothing is begun any more.
var ErrDrained = errors.New("this agent ends and leaves the claim to the next one; the kubelet tries again")

// Drain begins no new work from now on and waits until all that is under way is
// over, or ctx is.
func (r *Runner) Drain(ctx context.Context) error {
	r.mu.Lock()
	r.drained = true
	r.mu.Unlock()
	over := make(chan struct{})
	go func() {
		r.working.Wait()
		close(over)
	}()
	select {
	case <-over:
		return nil
	case <-ctx.Done():
		r.mu.Lock()
		defer r.mu.Unlock()
		return fmt.Errorf("the work on %d claims did not end: %w", len(r.operations), context.Cause(ctx))
	}
}
