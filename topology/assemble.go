// Assemble joins the two views of the machine. The bus says where a GPU sits,
// the driver what it is; where they disagree about which GPUs exist, the bus is believed
// and the GPU is lost: present, known by name, and not to be given to anyone.

package topology

import (
	"cmp"
	"slices"
)

// Assemble makes a snapshot of the kernel's and the driver's view. GPUs that
// the driver no longer shows keep what previous (nil at start) knew of them as long
// as they are on the bus. It is pure.
func Assemble(bootID string, hardware Hardware, driver Driver, gpus []GPU, previous *Snapshot) *Snapshot {
	s := &Snapshot{
		BootID: bootID, Driver: driver, NICs: slices.Clone(hardware.NICs), NUMANodes: hardware.NUMANodes,
		Problems: slices.Clone(hardware.Problems),
	}
	listed := map[string]bool{}
	for _, gpu := range gpus {
		listed[gpu.Placement.PCI] = true
		s.GPUs = append(s.GPUs, gpu)
	}
	for _, function := range hardware.GPUFunctions {
		if gpu, ok := missing(function, driver, previous); ok && !listed[function.PCI] {
			s.GPUs = append(s.GPUs, gpu)
		}
	}
	for i := range s.GPUs {
		gpu := &s.GPUs[i]
		if place, ok := hardware.Placements[gpu.Placement.PCI]; ok {
			gpu.Placement = place
		}
	}
	slices.SortFunc(s.GPUs, func(a, b GPU) int { return cmp.Compare(a.Placement.PCI, b.Placement.PCI) })
	slices.SortFunc(s.NICs, func(a, b NIC) int { return cmp.Compare(a.Placement.PCI, b.Placement.PCI) })
	s.Bridges = s.bridgesAbove(hardware.Bridges)
	return s
}

// missing makes the entry of a GPU that is on the bus but not in the driver's
// list, if it is one that the driver ought to list.
func missing(function GPUFunction, driver Driver, previous *Snapshot) (GPU, bool) {
	name := GPUName(function.PCI)
	reason := Problem{Subject: "NVML", Message: "the GPU is on the PCI bus but the driver does not list it: it fell off the bus, is being reset, or failed to initialise; see the kernel log for NVRM messages"}
	if driver.State != DriverReady {
		reason.Message = "the driver does not answer: " + driver.Message
	}
	if previous != nil {
		if last := previous.GPU(name); last != nil {
			gpu := *last
			gpu.Lost, gpu.Problems = true, []Problem{reason}
			return gpu, true
		}
	}
	if !function.Bound || driver.State != DriverReady {
		return GPU{}, false // a node whose driver is not (yet) there offers no GPUs
	}
	return GPU{
		Name: name, Index: -1, Minor: -1, Lost: true, Problems: []Problem{reason},
		Placement: Placement{PCI: function.PCI, NUMANode: -1, Socket: -1},
	}, true
}

// bridgesAbove keeps the bridges that lead to some device of the snapshot.
func (s *Snapshot) bridgesAbove(all []Bridge) []Bridge {
	wanted := map[string]bool{}
	mark := func(p Placement) {
		for _, pci := range p.Path {
			wanted[pci] = true
		}
	}
	for _, gpu := range s.GPUs {
		mark(gpu.Placement)
	}
	for _, nic := range s.NICs {
		mark(nic.Placement)
	}
	var above []Bridge
	for _, b := range all {
		if wanted[b.PCI] {
			above = append(above, b)
		}
	}
	return above
}
