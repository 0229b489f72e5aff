package main

// What the node publishes, as a scheduler sees it: a list of ResourceSlices and
// then a watch, so that the time of a change is the time at which it arrived.

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	resourceapi "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/dynamic-resource-allocation/deviceattribute"
)

const driverName = "hostler.dev"

// published are the devices of all slices, by the name of the slice.
type published map[string][]resourceapi.Device

// taints of a device, as text.
func (p published) taints(device string) string {
	var taints []string
	for _, devices := range p {
		for _, d := range devices {
			for _, taint := range d.Taints {
				if d.Name == device {
					taints = append(taints, fmt.Sprintf("%s=%s:%s", taint.Key, taint.Value, taint.Effect))
				}
			}
		}
	}
	return strings.Join(taints, " ")
}

// roots are the PCIe roots of the named devices, each once.
func (p published) roots(names []string) []string {
	var roots []string
	for _, devices := range p {
		for _, d := range devices {
			root := d.Attributes[deviceattribute.StandardDeviceAttributePCIeRoot].StringValue
			if slices.Contains(names, d.Name) && root != nil && !slices.Contains(roots, *root) {
				roots = append(roots, *root)
			}
		}
	}
	return roots
}

// healthyGPUs are the names of the GPUs without a taint.
func (p published) healthyGPUs() []string {
	var names []string
	for _, devices := range p {
		for _, d := range devices {
			kind := d.Attributes[driverName+"/type"].StringValue
			if kind != nil && *kind == "gpu" && len(d.Taints) == 0 {
				names = append(names, d.Name)
			}
		}
	}
	return names
}

// sliceWatch begins before a fault is injected, so that its first sign is not missed.
type sliceWatch struct {
	events watch.Interface
	seen   published
}

func (s *story) watchSlices(ctx context.Context) (*sliceWatch, error) {
	api := s.client.ResourceV1().ResourceSlices()
	options := metav1.ListOptions{FieldSelector: resourceapi.ResourceSliceSelectorDriver + "=" + driverName}
	list, err := api.List(ctx, options)
	if err != nil {
		return nil, fmt.Errorf("list slices: %w", err)
	}
	w := &sliceWatch{seen: published{}}
	for _, slice := range list.Items {
		w.seen[slice.Name] = slice.Spec.Devices
	}
	options.ResourceVersion = list.ResourceVersion
	if w.events, err = api.Watch(ctx, options); err != nil {
		return nil, fmt.Errorf("watch slices: %w", err)
	}
	return w, nil
}

// await returns when holds does, and the time at which the change arrived that made it hold.
func (w *sliceWatch) await(ctx context.Context, what string, holds func(published) bool) (time.Time, error) {
	at := time.Now()
	for !holds(w.seen) {
		select {
		case <-ctx.Done():
			return at, fmt.Errorf("waiting until %s: %w", what, context.Cause(ctx))
		case event, open := <-w.events.ResultChan():
			at = time.Now()
			slice, isSlice := event.Object.(*resourceapi.ResourceSlice)
			if !open || !isSlice {
				return at, errors.New("the watch of slices ended: " + fmt.Sprint(event.Object))
			}
			if w.seen[slice.Name] = slice.Spec.Devices; event.Type == watch.Deleted {
				delete(w.seen, slice.Name)
			}
		}
	}
	return at, nil
}

func (s *story) awaitSlices(ctx context.Context, what string, holds func(published) bool) (time.Time, error) {
	w, err := s.watchSlices(ctx)
	if err != nil {
		return time.Time{}, err
	}
	defer w.events.Stop()
	return w.await(ctx, what, holds)
}
