// Who waits for whom. Operations on one claim form a queue in the order in
// which they were asked for; those on different claims know nothing of each
// other. Calls are numbered as they arrive, so that a prepare that was held up
// until after the claim's unprepare is recognised.

package claim

import (
	"context"
	"errors"
	"fmt"

	"k8s.io/apimachinery/pkg/types"
)

// ErrStraggler says that a prepare came too late.
var ErrStraggler = errors.New("the claim was unprepared after this call had been made")

// operate runs work for a claim once the operations before it are over. It
// returns when the work is done or ctx is: in that case the work goes on.
func (r *Runner) operate(ctx context.Context, claim types.UID, work func(context.Context) error) error {
	done := make(chan struct{})
	r.mu.Lock()
	if r.drained {
		r.mu.Unlock()
		return fmt.Errorf("claim %s: %w", claim, ErrDrained)
	}
	r.working.Add(1)
	previous := r.operations[claim]
	r.operations[claim] = done
	r.mu.Unlock()

	result := make(chan error, 1)
	go func() {
		defer r.working.Done()
		if previous != nil {
			<-previous
		}
		err := work(context.WithoutCancel(ctx))
		r.mu.Lock()
		if r.operations[claim] == done {
			delete(r.operations, claim)
		}
		r.mu.Unlock()
		close(done)
		result <- err
	}()
	select {
	case err := <-result:
		return err
	case <-ctx.Done():
		return fmt.Errorf("claim %s: the call ended before the work did, which goes on; the next call waits for it: %w", claim, context.Cause(ctx))
	}
}

// bounded gives one part of an operation its time.
func (r *Runner) bounded(ctx context.Context, part func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, r.cfg.StepTimeout)
	defer cancel()
	return part(ctx)
}
