// How long the parts of a claim's work take, by step and phase, so that a figure
// for the whole can be taken apart: an administrator sees whether a slow prepare
// waited for the disk, the GPU or the API server.

package claim

import (
	"context"
	"time"
)

// Phases of a step, as they are counted.
const (
	PhaseDo     = "do"
	PhaseVerify = "verify"
	PhaseUndo   = "undo"
)

// What the runner does itself is counted beside the steps.
const (
	kindPlan    = "plan"
	kindResolve = "resolve"
	kindAdmit   = "admit"
	kindJournal = "journal"
)

// timed does some work and tells how long it took.
func (r *Runner) timed(kind, phase string, work func() error) error {
	begin := time.Now()
	err := work()
	r.cfg.Observe(kind, phase, time.Since(begin), err)
	return err
}

// take does one phase of a step in the time that a step has.
func (r *Runner) take(ctx context.Context, step Step, phase string, work func(context.Context) error) error {
	return r.timed(step.Kind(), phase, func() error { return r.bounded(ctx, work) })
}
