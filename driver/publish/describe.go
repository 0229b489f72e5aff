// A device outside its slice: the same attributes, for those who want to say of
// a device in a claim's hands what the scheduler read of it.

package publish

import (
	"maps"

	resourceapi "k8s.io/api/resource/v1"

	"github.com/hostler-dev/hostler/topology"
)

// Attributes of one device by qualified name.
type Attributes map[resourceapi.QualifiedName]resourceapi.DeviceAttribute

// Describer knows what slices say of the devices of one machine. It is not
// changed after it was made, and costs as much as one look at the whole machine.
type Describer struct {
	snapshot topology.Snapshot
	wiring   *wiring
}

// NewDescriber describes the machine as Offer would of the same input, whatever
// of it is offered.
func NewDescriber(in Input) *Describer {
	o := newOffering(in)
	return &Describer{snapshot: o.snapshot, wiring: o.wiring}
}

// Subject is a device as a claim has it. A GPU and a NIC together are a pair;
// neither is the egress device.
type Subject struct {
	GPU *topology.GPU
	// Partition of the GPU, with the instance that it is at present; nil for the whole GPU.
	Partition *topology.Partition
	NIC       *topology.NIC
}

// Describe returns the subject's attributes, those of a partition with the UUID
// that it has now, which its slice leaves out where the partition comes and goes
// with claims. Known is false if the machine does not show the hardware at
// present, without which its place among the rest cannot be told.
func (d *Describer) Describe(s Subject) (described Attributes, known bool) {
	driver := &d.snapshot.Driver
	known = (s.GPU == nil || d.snapshot.GPU(s.GPU.Name) != nil) && (s.NIC == nil || d.snapshot.NIC(s.NIC.Name) != nil)
	switch {
	case s.GPU != nil && s.NIC != nil:
		pair := &topology.Pair{GPU: s.GPU.Name, NIC: s.NIC.Name, Distance: topology.Distance(&d.snapshot, s.GPU.Name, s.NIC.Name).Class}
		return Attributes(pairAttributes(pair, s.GPU, s.NIC, driver, d.wiring)), known
	case s.Partition != nil:
		return Attributes(partitionAttributes(s.GPU, s.Partition, false, driver, d.wiring)), known
	case s.GPU != nil:
		return Attributes(gpuAttributes(s.GPU, driver, d.wiring)), known
	case s.NIC != nil:
		return Attributes(nicAttributes(s.NIC, d.wiring)), known
	}
	return Attributes(egressAttributes()), known
}

// WithVFIO adds what a program needs that drives the device itself: the IOMMU
// group, and the PCI addresses of all functions of it that it was given.
func (a Attributes) WithVFIO(group string, functions []string) Attributes {
	more := attributes(maps.Clone(a))
	more.text("mode", "vfio").numberIn("vfioGroup", group)
	more[own("vfioFunctions")] = resourceapi.DeviceAttribute{StringValues: functions}
	return Attributes(more)
}
