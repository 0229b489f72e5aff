package main

// How many slices of 2,064 NICs are written when one VF changes: counted by a
// watch of the real API server while the resourceslice library publishes. The
// floor is one, since the change has to be told.

import (
	"context"
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/dynamic-resource-allocation/resourceslice"

	"github.com/hostler-dev/hostler/driver/publish"
	"github.com/hostler-dev/hostler/topology"
)

const (
	// benchDriver keeps these slices apart from the agent's.
	benchDriver = "bench.hostler.dev"
	changes     = 5
	// settled is how long after the last write a change is taken for told.
	settled = 1500 * time.Millisecond
)

func measureRewrite(ctx context.Context, b *bed, results []*Result) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	snapshot, err := lookAt(ctx, "nic-16x128")
	if err != nil {
		return err
	}
	node, err := b.client.CoreV1().Nodes().Get(ctx, nodeName, metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("read the node: %w", err)
	}
	events, err := b.client.ResourceV1().ResourceSlices().Watch(ctx, metav1.ListOptions{FieldSelector: "spec.driver=" + benchDriver})
	if err != nil {
		return fmt.Errorf("watch slices: %w", err)
	}
	defer events.Stop()
	resources := publish.Resources(publishInput(snapshot, false))
	controller, err := resourceslice.StartController(ctx, resourceslice.Options{
		DriverName: benchDriver, KubeClient: b.client, Resources: &resources,
		Owner: &resourceslice.Owner{APIVersion: "v1", Kind: "Node", Name: nodeName, UID: node.UID},
	})
	if err != nil {
		return fmt.Errorf("start publishing: %w", err)
	}
	defer func() {
		controller.Stop()
		clean := context.WithoutCancel(ctx)
		if err := b.client.ResourceV1().ResourceSlices().DeleteCollection(clean, metav1.DeleteOptions{}, metav1.ListOptions{FieldSelector: "spec.driver=" + benchDriver}); err != nil {
			b.say("the slices of this measurement could not be removed: %v", err)
		}
	}()
	whole, err := countWrites(ctx, events, settled)
	if err != nil {
		return err
	}
	var writes samples
	for i := range changes {
		changed := *snapshot
		changed.NICs = append([]topology.NIC(nil), snapshot.NICs...)
		vf := &changed.NICs[len(changed.NICs)/2+i]
		link := *vf.Link
		link.MAC = fmt.Sprintf("02:00:00:00:00:%02x", i)
		vf.Link = &link
		next := publish.Resources(publishInput(&changed, false))
		controller.Update(&next)
		n, err := countWrites(ctx, events, settled)
		if err != nil {
			return err
		}
		writes = append(writes, float64(n))
		snapshot = &changed
	}
	results[0].Set(writes.percentile(1), len(writes))
	results[0].SetFloor(1)
	results[0].Note = fmt.Sprintf("most slices written when one of 2,048 VFs changed; %d when all were published first", whole)
	return nil
}

// countWrites counts what the watch tells until nothing came for a while, at least one event.
func countWrites(ctx context.Context, events watch.Interface, calm time.Duration) (int, error) {
	count := 0
	wait := 30 * time.Second
	for {
		select {
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		case event, open := <-events.ResultChan():
			if !open || event.Type == watch.Error {
				return 0, fmt.Errorf("the watch of slices ended: %v", event.Object)
			}
			count++
			wait = calm
		case <-time.After(wait):
			if count == 0 {
				return 0, fmt.Errorf("no slice was written within %s", wait)
			}
			return count, nil
		}
	}
}
