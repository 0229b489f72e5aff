// The judgement whether a device may be given to user space. It is pure: what it
// goes by was read before.

package vfio

import (
	"fmt"
	"slices"
	"strings"
)

// PCI class codes, from the PCI code and ID assignment specification.
const (
	classBridge = 0x0604 // PCI-to-PCI, root and switch ports among them
	baseStorage = 0x01
	baseNetwork = 0x02
	baseDisplay = 0x03
	baseCompute = 0x12 // processing accelerators
)

// Judge returns how to give the device at a PCI address to user space, or why it
// cannot be given. Others at its slot go with it if they are parts of the same
// device, like the audio and USB functions of a GPU. Bridges stay: the kernel lets
// a group be used while their own driver has them.
func Judge(pci string, group Group) (*Binding, error) {
	switch {
	case !group.IOMMU:
		return nil, fmt.Errorf("PCI function %s cannot be given to user space: the machine has no IOMMU that is switched on, without which the device could reach all memory; enable it in the firmware (VT-d, AMD-Vi) and boot the kernel with intel_iommu=on or amd_iommu=on", pci)
	case group.Number == "":
		return nil, fmt.Errorf("PCI function %s cannot be given to user space: it is behind no IOMMU and belongs to no IOMMU group, while others of the machine do; use another device, or look for DMAR or AMD-Vi in the kernel log", pci)
	case group.Emulated:
		return nil, fmt.Errorf("PCI function %s cannot be given to user space: its group %s was made up by vfio without an IOMMU (enable_unsafe_noiommu_mode), so that the device could reach all memory; boot the kernel with intel_iommu=on or amd_iommu=on", pci, group.Number)
	case !group.DriverThere:
		return nil, fmt.Errorf("PCI function %s cannot be given to user space: the kernel has no driver %s; load it (modprobe vfio-pci), and at each boot (/etc/modules-load.d)", pci, Driver)
	}
	at := slices.IndexFunc(group.Members, func(m Member) bool { return m.PCI == pci })
	if at < 0 {
		return nil, fmt.Errorf("PCI function %s is not listed in its own IOMMU group %s; it is being unplugged; the kubelet tries again", pci, group.Number)
	}
	self := group.Members[at]
	if self.VFs > 0 {
		return nil, fmt.Errorf("PCI function %s cannot be given to user space while it has %d VFs, which would go with its driver; ask for one of the VFs, or remove them first (write 0 to its sriov_numvfs)", pci, self.VFs)
	}
	binding := &Binding{Group: group.Number, Functions: []Function{self.Function}}
	var strangers []string
	for _, m := range group.Members {
		switch {
		case m.PCI == pci || m.Class>>8 == classBridge:
		case self.isPart(m):
			binding.Functions = append(binding.Functions, m.Function)
		default:
			strangers = append(strangers, m.PCI)
		}
	}
	if len(strangers) > 0 {
		return nil, fmt.Errorf("PCI function %s cannot be given to user space: it shares IOMMU group %s with %s, which whoever has it could reach; put the cards into slots of different root ports, or enable ACS in the firmware", pci, group.Number, strings.Join(strangers, ", "))
	}
	return binding, nil
}

// isPart reports whether another function of the group is a part of the same
// device: one of the same slot that nobody would use by itself. The second port of a NIC
// is a device of its own, and so is every VF, whose slot says nothing.
func (m *Member) isPart(other Member) bool {
	sameSlot := slot(m.PCI) == slot(other.PCI) && !m.VF && !other.VF
	return sameSlot && !slices.Contains([]uint32{baseStorage, baseNetwork, baseDisplay, baseCompute}, other.Class>>16)
}

// slot is an address without its function number.
func slot(pci string) string {
	before, _, _ := strings.Cut(pci, ".")
	return before
}
