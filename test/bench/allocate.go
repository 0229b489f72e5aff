package main

// What the scheduler's own allocator needs to find GPUs together with their
// nearest NICs on a DGX H100: by a constraint over two requests, and as devices
// that the agent has joined before. Three questions each: one of them, four at
// once, and one on a machine that has GPUs and NICs left but none that are near each
// other. The floor is finding as many GPUs alone.

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	resourceapi "k8s.io/api/resource/v1"

	"github.com/hostler-dev/hostler/api/v1alpha1"
	"github.com/hostler-dev/hostler/driver/publish"
	"github.com/hostler-dev/hostler/test/allocator"
	"github.com/hostler-dev/hostler/test/machine"
	"github.com/hostler-dev/hostler/test/simulated"
	"github.com/hostler-dev/hostler/topology"
)

const (
	allocations = 300
	affinity    = "hostler.dev/affinityGroup"
)

// allocateFigures: none is given more than a tenth of the time in which a
// scheduler that binds ten pods a second looks at a node.
func allocateFigures() []Result {
	var figures []Result
	for _, question := range []string{"one", "four", "none"} {
		for _, form := range []string{"match", "pair"} {
			figures = append(figures, Result{Name: "allocate_" + form + "_" + question, Unit: "ms", Budget: 10})
		}
	}
	return figures
}

func measureAllocate(ctx context.Context, _ *bed, results []*Result) error {
	snapshot, err := lookAt(ctx, machineName)
	if err != nil {
		return err
	}
	for i, question := range []struct {
		count   int
		refused bool
		note    string
	}{
		{1, false, "one GPU with its nearest NIC"},
		{4, false, "four GPUs, each with its nearest NIC, in one claim"},
		{1, true, "refusing one on a machine whose free GPUs and NICs are apart"},
	} {
		floor, err := timeAllocation(ctx, snapshot, false, question.refused, allocator.Claim("alone", allocator.Request("gpu", question.count)), true)
		if err != nil {
			return err
		}
		for j, form := range []struct {
			pairs bool
			claim *resourceapi.ResourceClaim
			note  string
		}{
			{false, matched(question.count), "by matchAttribute"},
			{true, allocator.Claim("pairs", allocator.Request("pair", question.count)), "as a device of type pair"},
		} {
			times, err := timeAllocation(ctx, snapshot, form.pairs, question.refused, form.claim, !question.refused)
			if err != nil {
				return err
			}
			r := results[2*i+j]
			r.Set(times.p50(), len(times))
			r.SetFloor(floor.p50())
			r.Note = fmt.Sprintf("p50 of the scheduler's allocator: %s, %s; floor: GPUs alone", question.note, form.note)
		}
	}
	return nil
}

// matched asks for GPUs, each with a NIC of its affinity group.
func matched(count int) *resourceapi.ResourceClaim {
	var parts []allocator.Part
	for i := range count {
		parts = append(parts, allocator.Request("gpu", 1), allocator.Request("nic", 1), allocator.Match(affinity, fmt.Sprintf("r%d", 2*i), fmt.Sprintf("r%d", 2*i+1)))
	}
	return allocator.Claim("matched", parts...)
}

// lookAt discovers the machine of a profile.
func lookAt(ctx context.Context, profile string) (_ *topology.Snapshot, err error) {
	folder, err := os.MkdirTemp("/dev/shm", "hostler-bench-")
	if err != nil {
		return nil, fmt.Errorf("make a folder in memory: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(folder)) }()
	m, err := simulated.New(profile, folder, machine.RenderOptions{})
	if err != nil {
		return nil, err
	}
	snapshot, err := m.Snapshot(ctx)
	return snapshot, errors.Join(err, m.Close())
}

// timeAllocation times how long the answer takes, which must be yes or no as found says.
func timeAllocation(ctx context.Context, snapshot *topology.Snapshot, pairs, apart bool, claim *resourceapi.ResourceClaim, found bool) (samples, error) {
	scheduler := allocator.New(allocator.Config{
		Driver: driverName, NodeName: nodeName, Features: allocator.DefaultFeatures,
		Classes:   allocator.TypeClasses(driverName, "gpu", "nic", "pair"),
		Resources: publish.Resources(publishInput(snapshot, pairs)),
	})
	if apart {
		if err := takeApart(ctx, scheduler, snapshot); err != nil {
			return nil, err
		}
	}
	var times samples
	for range allocations {
		began := time.Now()
		answer, err := scheduler.Find(ctx, claim)
		if err != nil || (answer != nil) != found {
			return nil, fmt.Errorf("claim %s: the scheduler found %v, %w", claim.Name, answer, err)
		}
		times.add(time.Since(began))
	}
	return times, nil
}

// takeApart gives away every other GPU, and the nearest NICs of the rest.
func takeApart(ctx context.Context, scheduler *allocator.Scheduler, snapshot *topology.Snapshot) error {
	for i, pair := range topology.Pairs(snapshot) {
		class, pci := "gpu", snapshot.GPU(pair.GPU).Placement.PCI
		if i%2 == 1 {
			class, pci = "nic", snapshot.NIC(pair.NIC).Placement.PCI
		}
		selector := fmt.Sprintf(`device.attributes["resource.kubernetes.io"].pciBusID == %q`, pci)
		if got, err := scheduler.Allocate(ctx, allocator.Claim("apart", allocator.Request(class, 1, selector))); err != nil || got == nil {
			return fmt.Errorf("take %s %s: got %v, %w", class, pci, got, err)
		}
	}
	return nil
}

func publishInput(snapshot *topology.Snapshot, pairs bool) publish.Input {
	return publish.Input{
		NodeName: nodeName, Snapshot: snapshot,
		Features: publish.Features{Taints: true, Counters: true, SharedDevices: true},
		Publish:  v1alpha1.PublishConfig{NUMANode: v1alpha1.NUMANodeScalar, Partitions: v1alpha1.PartitionsAll, CompositeDevices: pairs},
	}
}
