// Stranded devices: claims have them, but the scheduler does not see them, because
// the agent was restarted with other pools, a GPU's MIG mode was switched, or a pair's
// GPU is not there. What they take is then counted nowhere, so that nothing they
// share hardware with is offered until their claims are gone.

package publish

import (
	"fmt"
	"maps"
	"slices"

	"github.com/hostler-dev/hostler/topology"
)

type stranded struct {
	name string
	Use
}

func (o *offering) findStranded() {
	if len(o.in.InUse) == 0 {
		return
	}
	pools := o.poolsByDevice()
	for _, name := range slices.Sorted(maps.Keys(o.in.InUse)) {
		use := o.in.InUse[name]
		pool, published := pools[name]
		// Of a device of which no hardware is known nothing follows.
		if use.GPU == "" && use.NIC == "" || published && (use.Pool == "" || use.Pool == pool) {
			continue
		}
		o.stranded = append(o.stranded, stranded{name, use})
		o.fault(fmt.Sprintf("a claim has device %s from pool %q, in which it is not published any more: what shares hardware with it is not published until the claim is gone", name, use.Pool))
	}
}

// poolsByDevice says where every device is published that may be in use.
func (o *offering) poolsByDevice() map[string]string {
	gpus, nics := GPUPool(o.in.NodeName), NICPool(o.in.NodeName)
	if o.in.Publish.CompositeDevices {
		gpus, nics = DevicePool(o.in.NodeName), DevicePool(o.in.NodeName)
	}
	pools := make(map[string]string, len(o.snapshot.GPUs)+len(o.snapshot.NICs))
	for i := range o.snapshot.GPUs {
		pools[o.snapshot.GPUs[i].Name] = gpus
		for _, partition := range topology.Partitions(&o.snapshot.GPUs[i]) {
			pools[partition.Name] = gpus
		}
	}
	for i := range o.snapshot.NICs {
		pools[o.snapshot.NICs[i].Name] = nics
	}
	for i := range o.pairs {
		pools[o.pairs[i].Name] = gpus
	}
	return pools
}

// isStranded reports whether the device or hardware of that name is, or is part of, a stranded device.
func (o *offering) isStranded(name string) bool {
	return slices.ContainsFunc(o.stranded, func(s stranded) bool { return s.name == name || s.GPU == name || s.NIC == name })
}

func (o *offering) gpuStranded(gpu *topology.GPU) bool { return o.isStranded(gpu.Name) }

// nicStranded counts a PF and its VFs as one.
func (o *offering) nicStranded(nic *topology.NIC) bool {
	return slices.ContainsFunc(o.stranded, func(s stranded) bool {
		if s.NIC == "" {
			return false
		}
		other := o.snapshot.NIC(s.NIC)
		return s.NIC == nic.Name || s.NIC == nic.Parent || other != nil && other.Parent == nic.Name
	})
}

// partitionStranded spares the partitions beside one that is stranded.
func (o *offering) partitionStranded(gpu *topology.GPU, cutting *cutting, p *topology.Partition) bool {
	return slices.ContainsFunc(o.stranded, func(s stranded) bool {
		if s.GPU != gpu.Name {
			return false
		}
		at := slices.IndexFunc(cutting.partitions, func(other topology.Partition) bool { return other.Name == s.name })
		return at < 0 || cutting.partitions[at].Placement.Overlaps(p.Placement)
	})
}
