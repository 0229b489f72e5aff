// The driver's two loops: one publishes what has changed, one reconciles.

package driver

import (
	"context"
	"time"

	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/dynamic-resource-allocation/kubeletplugin"
	"k8s.io/dynamic-resource-allocation/resourceslice"
	"k8s.io/klog/v2"

	"github.com/hostler-dev/hostler/driver/claim"
	"github.com/hostler-dev/hostler/driver/publish"
)

// publisher is the part of kubeletplugin.Helper that publishing needs.
type publisher interface {
	PublishResources(ctx context.Context, resources resourceslice.DriverResources) error
}

var _ publisher = (*kubeletplugin.Helper)(nil)

// publish hands over new slices whenever they differ from the last ones. It
// begins with the first snapshot: to publish that there is nothing, before
// having looked, would evict what runs. Changes that come in while one is
// being published are published together.
func (d *Driver) publish(ctx context.Context, to publisher) {
	var last *resourceslice.DriverResources
	for {
		// Taken before reading, so that nothing that changes later is missed.
		machine, ledger := d.machine.watch(), d.cfg.Journal.Changed()
		if in, ready := d.publishInput(time.Now()); ready {
			resources := publish.Resources(in)
			if last == nil || !apiequality.Semantic.DeepEqual(*last, resources) {
				begin := time.Now()
				err := to.PublishResources(ctx, resources)
				d.cfg.Recorder.ObservePublish(time.Since(begin), err)
				if err != nil {
					klog.FromContext(ctx).Error(err, "Devices cannot be published")
				} else {
					last = &resources
				}
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-machine:
		case <-ledger:
		case <-time.After(homecoming):
		}
	}
}

func (d *Driver) publishInput(now time.Time) (publish.Input, bool) {
	held := d.machine.held(d.ledger.Held(), now)
	d.machine.mu.Lock()
	defer d.machine.mu.Unlock()
	return publish.Input{NodeName: d.cfg.NodeName, Snapshot: d.machine.snapshot, Taints: d.machine.taints, Held: held}, d.machine.snapshot != nil
}

// reconcile begins with the first snapshot too, since claims are prepared
// again from it.
func (d *Driver) reconcile(ctx context.Context) {
	read := claim.ReadClaims(d.cfg.KubeClient.ResourceV1().ResourceClaims)
	for {
		changed := d.machine.watch()
		if d.machine.ready() {
			begin := time.Now()
			err := d.runner.Reconcile(ctx, read, d.directory)
			if ctx.Err() != nil {
				return
			}
			d.cfg.Recorder.ObserveReconcile(time.Since(begin), err)
			if err != nil {
				klog.FromContext(ctx).Error(err, "Some claims could not be reconciled; trying again later", "after", d.cfg.ReconcileInterval)
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

func (d *Driver) wantReconcile() {
	select {
	case d.reconcileNow <- struct{}{}:
	default:
	}
}
