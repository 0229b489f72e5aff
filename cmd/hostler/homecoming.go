package main

// What pods have of this node's NICs is compared with the records while the
// agent runs, since pods die without telling and rules can be tampered with.

import (
	"context"
	"time"

	"k8s.io/klog/v2"

	"github.com/hostler-dev/hostler/topology/nic"
)

// homecoming compares pods' namespaces with the records of what is in them, at
// once, whenever a netdev came or went and every half minute: a NIC whose pod died
// while no agent ran comes home late, and rules in a pod may have been tampered
// with. No server waits for it, because it may wait for a CNI plugin.
func (a *agent) homecoming(ctx context.Context) error {
	const interval, calm = 30 * time.Second, 500 * time.Millisecond
	hints := make(chan struct{}, 1)
	go func() {
		for ctx.Err() == nil {
			err := nic.Watch(ctx, func() {
				select {
				case hints <- struct{}{}:
				default: // one is pending
				}
			})
			if ctx.Err() == nil {
				klog.FromContext(ctx).Error(err, "Watching for netdevs that come home failed; looking at intervals", "interval", interval)
			}
			sleep(ctx, interval)
		}
	}()
	go a.checkAdopted(ctx, interval)
	for {
		begin := time.Now()
		err := a.attacher.Reconcile(ctx)
		a.recorder.ObserveReconcile("attachments", result(err), time.Since(begin))
		if err != nil && ctx.Err() == nil {
			klog.FromContext(ctx).Error(err, "Not everything in pods' network namespaces could be put in order; trying again")
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(interval):
		case <-hints:
			sleep(ctx, calm) // a link that moves sends a handful of messages
		}
	}
}

// checkAdopted has CNI plugins look at what an earlier agent attached, beside everything
// else: each of them may take its time.
func (a *agent) checkAdopted(ctx context.Context, interval time.Duration) {
	for ctx.Err() == nil {
		if err := a.attacher.CheckAdopted(ctx); err != nil && ctx.Err() == nil {
			klog.FromContext(ctx).Error(err, "CNI plugins could not be asked for what they made for pods; trying again")
		}
		sleep(ctx, interval)
	}
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
