// When to look. Hints are gathered until they pause, but not for long: a link that
// flaps a hundred times a second is still looked at every second. Reading a large
// machine takes its time, so looks have a budget of time that a storm can use up.
// And a machine that is not well, or whose driver is not there yet, is
// looked at sooner, for the hint that it is well again may never come: in
// containers with user namespaces of their own the kernel's device events are not heard.

package topology

import (
	"context"
	"sync"
	"time"

	"k8s.io/klog/v2"
)

const (
	// watchRetry is the pause before a watcher that failed is started again.
	watchRetry = time.Second
	// soon is when a machine that is not well is first looked at again.
	soon = 2 * time.Second
	// share is the part of all time that looks may take under a storm of hints, one
	// in share, and ahead what they may take beyond that while there was no storm:
	// the few looks when an agent starts or a partition is made do not wait.
	share = 5
	ahead = time.Second
	// work is the longest that a look works: what 2,000 devices take. One that takes
	// longer waits, for the RTNL lock that the kernel holds while VFs are made, say,
	// and just then the machine is about to change.
	work = 500 * time.Millisecond
)

// Run observes until ctx is done. The first snapshot is there as soon as the
// machine was read once.
func (o *Observer) Run(ctx context.Context) error {
	var watchers sync.WaitGroup
	defer watchers.Wait()
	for _, watcher := range o.cfg.Watchers {
		watchers.Go(func() { o.watch(ctx, watcher) })
	}
	var ration ration
	var condition string
	pause := soon
	for {
		begun := time.Now()
		o.Observe(ctx)
		took := min(time.Since(begun), work)
		if time.Since(begun) >= o.cfg.ReadTimeout {
			took = 0 // it was waiting for a reader that hangs, not work
		}
		rested := ration.charge(took)
		is, well := o.condition()
		if is != condition {
			condition, pause = is, soon
		}
		wait := o.cfg.Interval
		if !well {
			wait = min(wait, pause)
			pause = min(2*pause, o.cfg.Interval)
		}
		hinted, err := o.await(ctx, wait, rested)
		if err != nil {
			return nil // stopped
		}
		if hinted {
			pause = soon
		}
	}
}

// ration is what looks have used up of their share of the time.
type ration struct {
	spent time.Duration
	asOf  time.Time
}

// charge says when the next look may begin.
func (r *ration) charge(took time.Duration) (rested time.Time) {
	now := time.Now()
	r.spent = max(0, r.spent-now.Sub(r.asOf)/share) + took
	r.asOf = now
	return now.Add(share * (r.spent - ahead))
}

// condition sums up what the machine lacks: a driver that answers, if it has GPUs,
// and GPUs that are not lost.
func (o *Observer) condition() (condition string, well bool) {
	o.observing.Lock()
	defer o.observing.Unlock()
	s := o.Snapshot()
	if s == nil {
		return "", false
	}
	noGPUs := s.Driver.State == DriverMissing && len(o.hardware.last.GPUFunctions) == 0
	condition, well = string(s.Driver.State), s.Driver.State == DriverReady || noGPUs
	for i := range s.GPUs {
		if s.GPUs[i].Lost {
			condition, well = condition+" "+s.GPUs[i].Name, false
		}
	}
	return condition, well
}

// await returns when it is time to look: after the wait, or after hints. The
// error is the context's.
func (o *Observer) await(ctx context.Context, wait time.Duration, rested time.Time) (hinted bool, err error) {
	poll := time.NewTimer(wait)
	defer poll.Stop()
	select {
	case <-ctx.Done():
		return false, ctx.Err()
	case <-poll.C:
		return false, nil
	case <-o.rescan:
	}
	limit := time.NewTimer(o.cfg.MaxWait)
	defer limit.Stop()
	quiet := time.NewTimer(o.cfg.Debounce)
	defer quiet.Stop()
	for gathering := true; gathering; {
		select {
		case <-ctx.Done():
			return true, ctx.Err()
		case <-limit.C:
			gathering = false
		case <-quiet.C:
			gathering = false
		case <-o.rescan:
			quiet.Reset(o.cfg.Debounce)
		}
	}
	sleep(ctx, time.Until(rested))
	select { // what was hinted at meanwhile is seen by the look that follows
	case <-o.rescan:
	default:
	}
	return true, ctx.Err()
}

func (o *Observer) watch(ctx context.Context, watcher Watcher) {
	for ctx.Err() == nil {
		if err := watcher(ctx, o.Rescan); err != nil && ctx.Err() == nil {
			klog.FromContext(ctx).Error(err, "Watching the machine for changes failed; polling goes on", "retryAfter", watchRetry)
		}
		sleep(ctx, watchRetry)
	}
}

func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
