// Who waits for whom. Operations on one claim form a queue in the order in
// which they were asked for; those on different claims know nothing of each
// other. Calls are numbered as they arrive, so that a prepare that was held up
// until after the claim's unprepare is recognised.

package claim

import (
	"context"
	"errors"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// ErrStraggler says that a prepare came too late.
var ErrStraggler = errors.New("the claim was unprepared after this call had been made")

// Arrival numbers a call. It is taken when the call comes in, before the claim
// is read from the API server, which may take a while.
type Arrival uint64

// Arrive numbers a call that has just come in.
func (r *Runner) Arrive() Arrival {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.arrivals++
	return Arrival(r.arrivals)
}

// tombstone marks a claim that was unprepared.
type tombstone struct {
	arrival uint64
	at      time.Time
}

// stragglerLimit is how long tombstones are kept: a prepare call does not live
// longer than the kubelet's own limit of 45 seconds by that much.
const stragglerLimit = 10 * time.Minute

// operate runs work for a claim once the operations before it are over. It
// returns when the work is done or ctx is: in that case the work goes on.
func (r *Runner) operate(ctx context.Context, claim types.UID, work func(context.Context) error) error {
	done := make(chan struct{})
	r.mu.Lock()
	previous := r.operations[claim]
	r.operations[claim] = done
	r.mu.Unlock()

	result := make(chan error, 1)
	go func() {
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

func (r *Runner) bury(claim types.UID, arrival Arrival) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	for uid, stone := range r.unprepared {
		if now.Sub(stone.at) > stragglerLimit {
			delete(r.unprepared, uid)
		}
	}
	r.unprepared[claim] = tombstone{arrival: uint64(arrival), at: now}
}

func (r *Runner) straggles(claim types.UID, arrival Arrival) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	stone, buried := r.unprepared[claim]
	return buried && uint64(arrival) < stone.arrival
}
