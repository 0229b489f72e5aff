// The driver's loops: one publishes what has changed, one reconciles, one keeps the
// journal's file up to date.

package driver

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/dynamic-resource-allocation/resourceslice"
	"k8s.io/klog/v2"

	"github.com/hostler-dev/hostler/driver/claim"
	"github.com/hostler-dev/hostler/driver/publish"
)

// publisher is the part of Front that publishing needs.
type publisher interface {
	PublishResources(ctx context.Context, resources resourceslice.DriverResources) error
}

var _ publisher = (*Front)(nil)

// publish hands over new slices whenever they differ from the last ones. It
// begins with the first snapshot: to publish that there is nothing, before
// having looked, would evict what runs. Changes that come in while one is
// being published are published together.
func (d *Driver) publish(ctx context.Context, to publisher) {
	var last *resourceslice.DriverResources
	var told []string
	for {
		o := d.offer(time.Now())
		if o.ready {
			if last == nil || !apiequality.Semantic.DeepEqual(*last, o.resources) {
				begin := time.Now()
				err := to.PublishResources(ctx, withEmptyPools(d.cfg.NodeName, o.resources))
				d.cfg.Recorder.ObservePublish(time.Since(begin), err)
				if err != nil {
					klog.FromContext(ctx).Error(err, "Devices cannot be published")
				} else {
					last = &o.resources
				}
			}
			told = d.tellShortfalls(ctx, told, o.shortfalls)
		}
		select {
		case <-ctx.Done():
			return
		case <-o.machine:
		case <-o.ledger:
			d.settle(ctx, aside, asideAtMost, o.machine)
		case <-time.After(homecoming):
		}
	}
}

// Claims come several at a time, and have the processors first: what they change, which
// the scheduler knew before the node did, is published once they have stopped coming
// for aside, or after asideAtMost.
const (
	aside       = 200 * time.Millisecond
	asideAtMost = 2 * time.Second
)

// settle returns when the journal has not changed for as long as quiet, after limit at
// the latest, and at once when urgent or ctx ends.
func (d *Driver) settle(ctx context.Context, quiet, limit time.Duration, urgent <-chan struct{}) {
	for late := time.After(limit); ; {
		changed := d.cfg.Journal.Changed()
		select {
		case <-ctx.Done():
			return
		case <-urgent:
			return
		case <-late:
			return
		case <-time.After(quiet):
			return
		case <-changed:
		}
	}
}

// withEmptyPools adds the node's pools that are not in use, without slices. The
// library removes slices of a pool that it is not told of half a minute after its
// start, those of an empty one at once; with the pools of before in place, the
// scheduler would give a GPU away both by itself and in a pair.
func withEmptyPools(node string, resources resourceslice.DriverResources) resourceslice.DriverResources {
	pools := map[string]resourceslice.Pool{publish.GPUPool(node): {}, publish.NICPool(node): {}, publish.DevicePool(node): {}}
	maps.Copy(pools, resources.Pools)
	return resourceslice.DriverResources{Pools: pools}
}

// tellShortfalls tells the administrator what has come since told, and returns what is known now.
func (d *Driver) tellShortfalls(ctx context.Context, told, now []string) []string {
	for _, shortfall := range now {
		if slices.Contains(told, shortfall) {
			continue
		}
		klog.FromContext(ctx).Info("Not all of the machine is offered as asked for", "shortfall", shortfall)
		d.tellNode("DevicesNotOffered", shortfall)
	}
	if len(now) == 0 && len(told) > 0 {
		klog.FromContext(ctx).Info("All of the machine is offered as asked for")
	}
	return now
}

// Republish has what is published looked at again, at once.
func (d *Driver) Republish() { d.machine.update(func(*machine) {}) }

// reconcile begins with the first snapshot too, since claims are prepared
// again from it.
func (d *Driver) reconcile(ctx context.Context) {
	read := claim.ReadClaims(d.cfg.KubeClient.ResourceV1().ResourceClaims)
	for {
		changed := d.machine.watch()
		if d.machine.ready() {
			begin := time.Now()
			// Specs that seem to be nobody's may be of a journal that was lost.
			err := d.recover(ctx)
			err = errors.Join(err, d.runner.Reconcile(ctx, read, d.directory))
			if ctx.Err() != nil {
				return
			}
			if d.status != nil {
				d.status.Review()
			}
			d.cfg.Recorder.ObserveReconcile(time.Since(begin), err)
			if err != nil {
				claim.LoggerFor(ctx, err).Error(err, "Some claims could not be reconciled; trying again later", "after", d.cfg.ReconcileInterval)
			}
			changed = nil
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-d.reconcileNow:
		case <-time.After(d.cfg.ReconcileInterval):
		}
	}
}

const (
	// calm is how long the journal has to stay as it is before its file is replaced, which
	// takes the disk longer than the writes before it, and upToDate how long that waits at most.
	calm     = 2 * time.Second
	upToDate = 30 * time.Second
)

// checkpoint has the journal's file say all that the journal says, soon after it has
// changed. Nothing but an earlier version of the agent needs that, and a human reader.
func (d *Driver) checkpoint(ctx context.Context) {
	for {
		changed := d.cfg.Journal.Changed()
		if err := d.cfg.Journal.Checkpoint(); err != nil {
			klog.FromContext(ctx).Error(err, "The journal's file cannot be brought up to date; trying again with the next change")
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		}
		d.settle(ctx, calm, upToDate, nil)
	}
}

func (d *Driver) wantReconcile() {
	select {
	case d.reconcileNow <- struct{}{}:
	default:
	}
}
