package main

// Slices as a scheduler sees them: a list, then a watch. The time of a change is
// the time at which it arrived here.

import (
	"context"
	"errors"
	"fmt"
	"time"

	resourceapi "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
)

// sliceWatch is used by one goroutine.
type sliceWatch struct {
	events watch.Interface
	slices map[string]*resourceapi.ResourceSlice
}

func (b *bed) watchSlices(ctx context.Context, driver string) (*sliceWatch, error) {
	api := b.client.ResourceV1().ResourceSlices()
	options := metav1.ListOptions{FieldSelector: "spec.driver=" + driver}
	list, err := api.List(ctx, options)
	if err != nil {
		return nil, fmt.Errorf("list slices: %w", err)
	}
	w := &sliceWatch{slices: map[string]*resourceapi.ResourceSlice{}}
	for i := range list.Items {
		w.slices[list.Items[i].Name] = &list.Items[i]
	}
	options.ResourceVersion = list.ResourceVersion
	if w.events, err = api.Watch(ctx, options); err != nil {
		return nil, fmt.Errorf("watch slices: %w", err)
	}
	return w, nil
}

func (w *sliceWatch) stop() { w.events.Stop() }

// await returns when holds does, and the time at which the change arrived that made it hold.
func (w *sliceWatch) await(ctx context.Context, what string, holds func(map[string]*resourceapi.ResourceSlice) bool) (time.Time, error) {
	at := time.Now()
	for !holds(w.slices) {
		select {
		case <-ctx.Done():
			return at, fmt.Errorf("waiting until %s: %w", what, context.Cause(ctx))
		case event, open := <-w.events.ResultChan():
			at = time.Now()
			slice, isSlice := event.Object.(*resourceapi.ResourceSlice)
			if !open || !isSlice {
				return at, errors.New("the watch of slices ended: " + fmt.Sprint(event.Object))
			}
			if w.slices[slice.Name] = slice; event.Type == watch.Deleted {
				delete(w.slices, slice.Name)
			}
		}
	}
	return at, nil
}

// devices counts the devices of pools that are complete.
func devices(slices map[string]*resourceapi.ResourceSlice) int {
	type generation struct {
		pool   string
		number int64
	}
	seen := map[generation]int64{}
	for _, slice := range slices {
		seen[generation{slice.Spec.Pool.Name, slice.Spec.Pool.Generation}]++
	}
	count := 0
	for _, slice := range slices {
		if seen[generation{slice.Spec.Pool.Name, slice.Spec.Pool.Generation}] == slice.Spec.Pool.ResourceSliceCount {
			count += len(slice.Spec.Devices)
		}
	}
	return count
}

// faulty says whether a device has a taint of a fault.
func faulty(slices map[string]*resourceapi.ResourceSlice, device, key string) bool {
	for _, slice := range slices {
		for _, d := range slice.Spec.Devices {
			if d.Name != device {
				continue
			}
			for _, taint := range d.Taints {
				if taint.Key == key {
					return true
				}
			}
		}
	}
	return false
}
