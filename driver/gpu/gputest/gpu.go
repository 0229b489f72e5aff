// Package gputest has a GPU that can be cut into partitions, for tests. It keeps
// the rules that a real one keeps - known profiles at known placements, no memory
// slice twice, no more compute slices than there are - and its instances survive
// the program that made them, as those of a real GPU do.
package gputest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/hostler-dev/hostler/topology"
)

// GPU is one GPU in MIG mode. It implements gpu.Partitioner.
type GPU struct {
	// Interrupt, if set, is called before and after each half of a change, with a
	// name for the moment ("gpu instance made"). An error ends the change there, as
	// a kill would: nothing is rolled back.
	Interrupt func(moment string) error
	// Fault is what every call answers, nil if the GPU works.
	Fault error

	mu      sync.Mutex
	gpu     topology.GPU
	busy    map[int]bool
	uuids   int
	changes int
}

// ErrBusy is the answer when an instance in use is to be removed.
var ErrBusy = errors.New("in use by another client")

// New returns a GPU that can be cut into sevenths, as an 80 GB H100 can.
func New(pci string) *GPU {
	resources := func(slices, gigabytes int) topology.MIGResources {
		return topology.MIGResources{ComputeSlices: slices, MemoryBytes: uint64(gigabytes) << 30}
	}
	places := func(size int, starts ...int) []topology.MIGPlacement {
		var out []topology.MIGPlacement
		for _, start := range starts {
			out = append(out, topology.MIGPlacement{Start: start, Size: size})
		}
		return out
	}
	return &GPU{busy: map[int]bool{}, gpu: topology.GPU{
		Name: topology.GPUName(pci), UUID: "GPU-" + pci, MIGEnabled: true, Placement: topology.Placement{PCI: pci, NUMANode: -1, Socket: -1},
		MIG: &topology.MIG{Capacity: resources(7, 80), MemorySlices: 8, Profiles: []topology.MIGProfile{
			{Name: "7g.80gb", ID: 0, Resources: resources(7, 80), Placements: places(8, 0)},
			{Name: "4g.40gb", ID: 5, Resources: resources(4, 40), Placements: places(4, 0)},
			{Name: "3g.40gb", ID: 9, Resources: resources(3, 40), Placements: places(4, 0, 4)},
			{Name: "2g.20gb", ID: 14, Resources: resources(2, 20), Placements: places(2, 0, 2, 4)},
			{Name: "1g.10gb", ID: 19, Resources: resources(1, 10), Placements: places(1, 0, 1, 2, 3, 4, 5, 6)},
		}},
	}}
}

// Snapshot is the GPU as discovery would read it now.
func (g *GPU) Snapshot() topology.GPU {
	g.mu.Lock()
	defer g.mu.Unlock()
	gpu := g.gpu
	mig := *g.gpu.MIG
	mig.Instances = slices.Clone(mig.Instances)
	slices.SortFunc(mig.Instances, func(a, b topology.MIGInstance) int { return a.Placement.Start - b.Placement.Start })
	gpu.MIG = &mig
	return gpu
}

// SetBusy says whether processes use the instance.
func (g *GPU) SetBusy(gpuInstance int, busy bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.busy[gpuInstance] = busy
}

// Changes counts the instances that were made and removed.
func (g *GPU) Changes() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.changes
}

// Reboot removes all instances.
func (g *GPU) Reboot() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.gpu.MIG.Instances = nil
}

// Partition implements gpu.Partitioner.
func (g *GPU) Partition(_ context.Context, pci string, profileID int, place topology.MIGPlacement) (*topology.MIGInstance, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if err := g.answers(pci); err != nil {
		return nil, err
	}
	for _, instance := range g.gpu.MIG.Instances {
		if instance.ProfileID == profileID && instance.Placement == place {
			return &instance, nil
		}
	}
	return nil, nil
}

// CreatePartition implements gpu.Partitioner.
func (g *GPU) CreatePartition(_ context.Context, pci string, profileID int, place topology.MIGPlacement) (topology.MIGInstance, error) {
	if err := g.interrupt("before a gpu instance is made"); err != nil {
		return topology.MIGInstance{}, err
	}
	instance, err := g.createGPUInstance(pci, profileID, place)
	if err == nil {
		err = g.interrupt("gpu instance made")
	}
	if err != nil {
		return topology.MIGInstance{}, err
	}
	g.mu.Lock()
	i := g.index(instance)
	g.uuids++
	// A new slice: snapshots share the old one.
	g.gpu.MIG.Instances[i].ComputeInstances = []topology.MIGComputeInstance{{UUID: fmt.Sprintf("MIG-%s-%d", pci, g.uuids)}}
	whole := g.gpu.MIG.Instances[i]
	g.mu.Unlock()
	return whole, g.interrupt("compute instance made")
}

func (g *GPU) createGPUInstance(pci string, profileID int, place topology.MIGPlacement) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if err := g.answers(pci); err != nil {
		return 0, err
	}
	profile := g.profile(profileID)
	if profile == nil || !slices.Contains(profile.Placements, place) {
		return 0, fmt.Errorf("%w: profile %d at %v: Invalid Argument", topology.ErrNothingMade, profileID, place)
	}
	number, used := 1, profile.Resources.ComputeSlices
	for _, other := range g.gpu.MIG.Instances {
		if other.Placement.Overlaps(place) {
			return 0, fmt.Errorf("%w: insufficient resources: the placement is taken", topology.ErrNothingMade)
		}
		used += g.profile(other.ProfileID).Resources.ComputeSlices
	}
	if used > g.gpu.MIG.Capacity.ComputeSlices {
		return 0, fmt.Errorf("%w: insufficient resources: no compute slices are left", topology.ErrNothingMade)
	}
	for g.index(number) >= 0 {
		number++
	}
	g.changes++
	g.gpu.MIG.Instances = append(slices.Clone(g.gpu.MIG.Instances), topology.MIGInstance{ProfileID: profileID, Placement: place, GPUInstance: number})
	return number, nil
}

// DestroyPartition implements gpu.Partitioner.
func (g *GPU) DestroyPartition(_ context.Context, pci string, gpuInstance int) error {
	if err := g.interrupt("before a gpu instance is removed"); err != nil {
		return err
	}
	if err := g.destroy(pci, gpuInstance); err != nil {
		return err
	}
	return g.interrupt("gpu instance removed")
}

func (g *GPU) destroy(pci string, gpuInstance int) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if err := g.answers(pci); err != nil {
		return err
	}
	i := g.index(gpuInstance)
	if i < 0 {
		return nil
	}
	if g.busy[gpuInstance] {
		return fmt.Errorf("GPU instance %d: %w", gpuInstance, ErrBusy)
	}
	g.changes++
	g.gpu.MIG.Instances = slices.Delete(slices.Clone(g.gpu.MIG.Instances), i, i+1)
	return nil
}

func (g *GPU) answers(pci string) error {
	if g.Fault != nil {
		return g.Fault
	}
	if pci != g.gpu.Placement.PCI {
		return fmt.Errorf("GPU %s: Not Found", pci)
	}
	return nil
}

func (g *GPU) profile(id int) *topology.MIGProfile {
	for i := range g.gpu.MIG.Profiles {
		if g.gpu.MIG.Profiles[i].ID == id {
			return &g.gpu.MIG.Profiles[i]
		}
	}
	return nil
}

func (g *GPU) index(gpuInstance int) int {
	return slices.IndexFunc(g.gpu.MIG.Instances, func(i topology.MIGInstance) bool { return i.GPUInstance == gpuInstance })
}

func (g *GPU) interrupt(moment string) error {
	if g.Interrupt == nil {
		return nil
	}
	return g.Interrupt(moment)
}
