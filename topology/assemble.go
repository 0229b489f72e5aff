// Assemble joins the two views of the machine. The bus says where a GPU sits,
// the driver what it is; where they disagree about which GPUs exist, the bus is believed
// and the GPU is lost: present, known by name, and not to be given to anyone.

package topology

import (
	"cmp"
	"slices"
	"strings"
)

// Why a GPU is lost, or is not there although it could be.
const (
	notListed = "the GPU is on the PCI bus but the driver does not list it: it fell off the bus, is being reset, or failed to initialise; see the kernel log for NVRM messages"
	notBound  = "no driver is bound to the GPU: it was taken from its driver, or the driver refused it; bind it again by writing its address to /sys/bus/pci/drivers/nvidia/bind, or see the kernel log for NVRM messages"
	notOnBus  = "the driver still lists the GPU but the PCI bus does not: it was removed or fell off the bus; rescan the bus by writing 1 to /sys/bus/pci/rescan, or reboot the node"
)

// Assemble makes a snapshot of the kernel's and the driver's view. GPUs that
// are lost keep what previous (nil at start) knew of them for as long as the bus or
// the driver shows them. It is pure.
func Assemble(bootID string, hardware Hardware, driver Driver, gpus []GPU, previous *Snapshot) *Snapshot {
	s := &Snapshot{
		BootID: bootID, Driver: driver, NUMANodes: hardware.NUMANodes, NICs: slices.Clone(hardware.NICs),
		NVSwitches: slices.Clone(hardware.NVSwitches), StackedLinks: slices.Clone(hardware.StackedLinks), Problems: slices.Clone(hardware.Problems),
		RDMANamespaces: hardware.RDMANamespaces,
	}
	functions := make(map[string]GPUFunction, len(hardware.GPUFunctions))
	for _, function := range hardware.GPUFunctions {
		functions[function.PCI] = function
	}
	listed := map[string]bool{}
	for _, gpu := range gpus {
		listed[gpu.Placement.PCI] = true
		s.GPUs = append(s.GPUs, shown(gpu, hardware, functions, previous.find(gpu.Name)))
	}
	for _, function := range hardware.GPUFunctions {
		if !listed[function.PCI] {
			s.addMissing(function, previous.find(GPUName(function.PCI)))
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
	slices.SortFunc(s.NVSwitches, func(a, b NVSwitch) int { return cmp.Compare(a.Placement.PCI, b.Placement.PCI) })
	slices.SortFunc(s.StackedLinks, func(a, b StackedLink) int { return cmp.Compare(a.Name, b.Name) })
	s.Bridges = s.bridgesAbove(hardware.Bridges)
	return s
}

func (s *Snapshot) find(gpu string) *GPU {
	if s == nil {
		return nil
	}
	return s.GPU(gpu)
}

// shown is a GPU that the driver lists, lost if the bus does not agree.
func shown(gpu GPU, hardware Hardware, functions map[string]GPUFunction, last *GPU) GPU {
	_, onBus := hardware.Placements[gpu.Placement.PCI]
	function, isGPU := functions[gpu.Placement.PCI]
	switch {
	case len(hardware.Placements) == 0: // the bus could not be read
	case !onBus:
		gpu.lose(Problem{Subject: "PCI bus", Message: notOnBus})
	case isGPU && !function.Bound:
		gpu.lose(Problem{Subject: "PCI bus", Message: notBound})
	}
	// A driver that was loaded anew may know little of a GPU that does not answer.
	sameCard := last != nil && (gpu.UUID == "" || last.UUID == gpu.UUID)
	if !gpu.Lost || !sameCard {
		return gpu
	}
	known := *last
	known.Lost, known.Problems = true, gpu.Problems
	return known
}

// lose marks a GPU as lost; gpu.Problems may be shared with the reader.
func (gpu *GPU) lose(reason Problem) {
	gpu.Lost, gpu.Problems = true, append(slices.Clip(gpu.Problems), reason)
}

// addMissing adds a GPU that is on the bus but not in the driver's list, if it
// was there before or the driver ought to list it.
func (s *Snapshot) addMissing(function GPUFunction, last *GPU) {
	reason := Problem{Subject: "NVML", Message: notListed}
	switch {
	case !function.Bound:
		reason = Problem{Subject: "PCI bus", Message: notBound}
	case s.Driver.State != DriverReady:
		reason.Message = "the driver does not answer: " + strings.TrimPrefix(s.Driver.Message, "the driver does not answer: ")
	}
	switch {
	case last != nil:
		gpu := *last
		gpu.Lost, gpu.Problems = true, []Problem{reason}
		s.GPUs = append(s.GPUs, gpu)
	case s.Driver.State != DriverReady:
		// A node whose driver is not (yet) there offers no GPUs.
	case function.Bound:
		s.GPUs = append(s.GPUs, GPU{
			Name: GPUName(function.PCI), Index: -1, Minor: -1, Lost: true, Problems: []Problem{reason},
			Placement: Placement{PCI: function.PCI, NUMANode: -1, Socket: -1},
		})
	default:
		// Never seen with a driver, it is nothing that was lost.
		s.Problems = append(s.Problems, Problem{Subject: "GPU at " + function.PCI, Message: notBound})
	}
}

// bridgesAbove keeps the bridges that lead to some device of the snapshot.
func (s *Snapshot) bridgesAbove(all []Bridge) []Bridge {
	wanted := map[string]bool{}
	mark := func(p *Placement) {
		for _, pci := range p.Path {
			wanted[pci] = true
		}
	}
	for i := range s.GPUs {
		mark(&s.GPUs[i].Placement)
	}
	for i := range s.NICs {
		mark(&s.NICs[i].Placement)
		if direct := s.NICs[i].DataDirect; direct != nil {
			mark(direct)
		}
	}
	for i := range s.NVSwitches {
		mark(&s.NVSwitches[i].Placement)
	}
	var above []Bridge
	for _, b := range all {
		if wanted[b.PCI] {
			above = append(above, b)
		}
	}
	return above
}
