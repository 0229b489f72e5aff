// Package vfio gives PCI functions to user space: it takes them from their kernel
// driver, binds them to vfio-pci and brings them back. A virtual machine in a pod
// (KubeVirt, Kata) or a user-space driver (DPDK) opens them by their IOMMU group.
//
// The unit is the group and not the function: whoever has one function of a group
// can reach the memory of the others by DMA. So either all that is in the group is
// part of the claimed device, or the device cannot be given away like this.
package vfio

// Binding is one device on its way into user space. It is a plain value, which the
// journal keeps: what is in it is enough to undo what was done.
type Binding struct {
	// Group is the number of the IOMMU group, as under /sys/kernel/iommu_groups.
	Group string `json:"group"`
	// Functions are all PCI functions of the group but bridges, the device's own first.
	Functions []Function `json:"functions"`
	// Paired is the binding of the NIC of a pair whose GPU is given to user space, too.
	Paired *Binding `json:"paired,omitempty"`
}

// Function is one PCI function as it was before.
type Function struct {
	// PCI address, "0000:17:00.0".
	PCI string `json:"pci"`
	// Driver that was bound, "" if none.
	Driver string `json:"driver,omitempty"`
	// Override is what driver_override said, "" if nothing.
	Override string `json:"override,omitempty"`
}
