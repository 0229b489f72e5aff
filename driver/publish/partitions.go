// Partitions of a GPU in MIG mode: those that exist, and every other one that
// could be made beside them. What an administrator made is left alone, and
// what it occupies is not offered; what this agent made for a claim is offered
// like any other placement, since it goes with the claim.

package publish

import (
	"fmt"
	"slices"

	resourceapi "k8s.io/api/resource/v1"

	"github.com/hostler-dev/hostler/api/v1alpha1"
	"github.com/hostler-dev/hostler/topology"
)

// maxMemorySlices leaves room for the engines in a counter set of 32; no GPU has more than 8.
const maxMemorySlices = resourceapi.ResourceSliceMaxCountersPerCounterSet - 7

// partitioned reports whether the GPU is in MIG mode, on which it cannot be used as a whole.
func partitioned(gpu *topology.GPU) bool { return gpu.MIGEnabled || gpu.MIG != nil }

// cutting is what a GPU in MIG mode has to offer.
type cutting struct {
	partitions []topology.Partition
	// foreign are the instances that this agent has not made.
	foreign []topology.MIGInstance
	// capacity of the GPU, and what is free of it without the foreign ones.
	capacity, free amounts
}

func (o *offering) cuttingOf(gpu *topology.GPU) *cutting {
	if gpu.MIG == nil {
		return nil
	}
	if slots := gpu.MIG.MemorySlices; slots < 1 || slots > maxMemorySlices {
		o.fault(fmt.Sprintf("GPU %s says that it has %d memory slices, where 1 to %d are expected: its partitions are not published", gpu.Name, slots, maxMemorySlices))
		return nil
	}
	c := &cutting{partitions: topology.Partitions(gpu), capacity: migCounters(&gpu.MIG.Capacity)}
	c.free = c.capacity
	for _, instance := range gpu.MIG.Instances {
		at := slices.IndexFunc(c.partitions, func(p topology.Partition) bool {
			return p.Profile.ID == instance.ProfileID && p.Placement == instance.Placement
		})
		if at >= 0 && o.in.Made[c.partitions[at].Name] {
			continue
		}
		c.foreign = append(c.foreign, instance)
		if at >= 0 {
			c.free = c.free.less(migCounters(&c.partitions[at].Profile.Resources))
		}
	}
	return c
}

func (o *offering) addPartitions(gpu *topology.GPU, cutting *cutting, on *shelf) {
	for i := range cutting.partitions {
		p := &cutting.partitions[i]
		if !o.offers(gpu, cutting, p) {
			continue
		}
		wants := memorySlices(p.Placement)
		if !o.foreign(p) {
			// What a foreign instance takes besides is not in the set to begin with.
			wants = append(wants, migCounters(&p.Profile.Resources)...)
		}
		o.add(on, 1+i, partitionKind, resourceapi.Device{
			Name:             p.Name,
			Attributes:       partitionAttributes(gpu, p, o.in.Made[p.Name], &o.snapshot.Driver, o.wiring),
			Capacity:         partitionCapacity(&p.Profile.Resources),
			ConsumesCounters: o.takes(gpu.Name, wants.counters()),
			Taints:           together(o.taints[gpu.Name], o.taints[p.Name]),
		})
	}
}

// foreign reports whether somebody else made the partition.
func (o *offering) foreign(p *topology.Partition) bool {
	return p.Instance != nil && !o.in.Made[p.Name]
}

// engaged reports whether a claim has what the partition is made of, other than by itself.
func (o *offering) engaged(gpu *topology.GPU, cutting *cutting, p *topology.Partition) bool {
	return o.inUse(gpu.Name) || o.joined[gpu.Name] || slices.ContainsFunc(cutting.partitions, func(other topology.Partition) bool {
		return o.inUse(other.Name) && other.Placement.Overlaps(p.Placement)
	})
}

func (o *offering) offers(gpu *topology.GPU, cutting *cutting, p *topology.Partition) bool {
	at := p.Placement
	switch within := at.Start >= 0 && at.Size > 0 && at.Size <= gpu.MIG.MemorySlices && at.Start <= gpu.MIG.MemorySlices-at.Size; {
	case !within, o.partitionStranded(gpu, cutting, p):
		return false
	case o.inUse(p.Name):
		return true
	case !o.in.Features.Counters && o.engaged(gpu, cutting, p):
		o.withhold(lacksCounters, "%s where a claim has the GPU", partitionKind)
		return false
	case o.foreign(p):
		if n := len(p.Instance.ComputeInstances); n != 1 {
			o.fault(fmt.Sprintf("MIG instance %d of GPU %s is not published: it has %d compute instances, and a claim gets one that spans it all", p.Instance.GPUInstance, gpu.Name, n))
			return false
		}
		return true
	case o.in.Publish.Partitions == v1alpha1.PartitionsExisting:
		return false
	case slices.ContainsFunc(cutting.foreign, func(i topology.MIGInstance) bool { return i.Placement.Overlaps(at) }):
		return false
	case !cutting.fits(&p.Profile.Resources):
		return false
	case !o.in.Features.Counters:
		o.withhold(lacksCounters, "%s that no administrator made", partitionKind)
		return false
	}
	return true
}

// less is what remains of an amount.
func (list amounts) less(taken amounts) amounts {
	rest := slices.Clone(list)
	for i := range rest {
		rest[i].value -= min(rest[i].value, taken[i].value)
	}
	return rest
}

// fits reports whether a partition can be made of what is free. A resource of which
// the GPU did not say how much it has cannot be counted, and limits nothing.
func (c *cutting) fits(r *topology.MIGResources) bool {
	for i, need := range migCounters(r) {
		if c.capacity[i].known() && need.value > c.free[i].value {
			return false
		}
	}
	return true
}
