package main

// From the driver's XID event to the taint that a scheduler sees. GPUs break one
// after the other and heal together, which the agent finds by its probes. The
// floor is an update of a slice as big as the GPUs', seen through a watch.

import (
	"context"
	"errors"
	"fmt"
	"time"

	resourceapi "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/hostler-dev/hostler/test/machine"
	"github.com/hostler-dev/hostler/test/nvmlsim"
	"github.com/hostler-dev/hostler/topology"
)

const (
	faultRounds = 5 // of all GPUs
	// xid is "GPU has fallen off the bus"; the GPU still answers probes, and so heals.
	xid      = 79
	xidTaint = driverName + "/xid"
	// between faults, so that each is one of its own.
	between = 100 * time.Millisecond
)

func measureFaults(ctx context.Context, b *bed, results []*Result) error {
	control, err := b.environment("NVML_CONTROL")
	if err != nil {
		return err
	}
	profile, err := machine.Load(machineName)
	if err != nil {
		return err
	}
	var gpus []string
	for _, gpu := range profile.GPUs {
		gpus = append(gpus, topology.GPUName(gpu.PCI))
	}
	watch, err := b.watchSlices(ctx, driverName)
	if err != nil {
		return err
	}
	defer watch.stop()
	floor, err := b.sliceUpdates(ctx, watch.slices, faultRounds*len(gpus))
	if err != nil {
		return err
	}
	f := faultRun{watch: watch, control: nvmlsim.Control{Dir: control}, gpus: gpus}
	for range faultRounds {
		if err := f.round(ctx); err != nil {
			return err
		}
	}
	r := results[0]
	r.Set(f.seen.p99(), len(f.seen))
	r.SetFloor(floor.p99())
	r.Note = fmt.Sprintf("p50 %s ms; floor: one update of such a slice seen through a watch, p99", number(new(f.seen.p50())))
	return nil
}

type faultRun struct {
	watch   *sliceWatch
	control nvmlsim.Control
	gpus    []string
	seen    samples
}

// round breaks each GPU and waits until all are well again.
func (f *faultRun) round(ctx context.Context) error {
	for index, gpu := range f.gpus {
		if err := pause(ctx, between); err != nil {
			return err
		}
		began := time.Now()
		if err := f.control.InjectXID(index, xid, nil, nil); err != nil {
			return err
		}
		at, err := f.watch.await(ctx, gpu+" is tainted", func(s map[string]*resourceapi.ResourceSlice) bool { return faulty(s, gpu, xidTaint) })
		if err != nil {
			return err
		}
		f.seen.add(at.Sub(began))
	}
	_, err := f.watch.await(ctx, "all GPUs are well again", func(s map[string]*resourceapi.ResourceSlice) bool {
		for _, gpu := range f.gpus {
			if faulty(s, gpu, xidTaint) {
				return false
			}
		}
		return true
	})
	return err
}

// sliceUpdates taints a device of a copy of the GPUs' slice, and takes the taint
// away, n times. The copy belongs to a driver that no class selects.
func (b *bed) sliceUpdates(ctx context.Context, slices map[string]*resourceapi.ResourceSlice, n int) (seen samples, err error) {
	const driver = "floor.bench.hostler.dev"
	model := &resourceapi.ResourceSlice{ObjectMeta: metav1.ObjectMeta{Name: "bench-floor"}}
	for _, slice := range slices {
		if slice.Spec.Pool.Name == nodeName+"/gpu" {
			model.Spec = *slice.Spec.DeepCopy()
		}
	}
	model.Spec.Driver, model.Spec.Pool = driver, resourceapi.ResourcePool{Name: "floor", ResourceSliceCount: 1}
	api := b.client.ResourceV1().ResourceSlices()
	slice, err := api.Create(ctx, model, metav1.CreateOptions{})
	if err != nil {
		return nil, fmt.Errorf("make a slice for the floor: %w", err)
	}
	defer func() {
		err = errors.Join(err, api.Delete(context.WithoutCancel(ctx), slice.Name, metav1.DeleteOptions{}))
	}()
	watch, err := b.watchSlices(ctx, driver)
	if err != nil {
		return nil, err
	}
	defer watch.stop()
	for i := range n {
		taints, key := []resourceapi.DeviceTaint(nil), driver+"/floor"
		if i%2 == 0 {
			taints = []resourceapi.DeviceTaint{{Key: key, Effect: resourceapi.DeviceTaintEffectNoSchedule}}
		}
		device := slice.Spec.Devices[0].Name
		slice.Spec.Devices[0].Taints = taints
		began := time.Now()
		if slice, err = api.Update(ctx, slice, metav1.UpdateOptions{}); err != nil {
			return nil, fmt.Errorf("update the floor's slice: %w", err)
		}
		at, err := watch.await(ctx, "the floor's slice has changed", func(s map[string]*resourceapi.ResourceSlice) bool {
			return faulty(s, device, key) == (len(taints) > 0)
		})
		if err != nil {
			return nil, err
		}
		seen.add(at.Sub(began))
	}
	return seen, nil
}
