// Package topology knows the machine: which accelerators and NICs it has, how
// they hang together (PCIe, NUMA, NVLink) and what each one is called.
//
// Discovery (topology/nvml, topology/pci, topology/nic) reads the machine and
// yields one immutable Snapshot. Everything else in Hostler - publishing,
// preparing, measuring, judging - is a function of a Snapshot. A device's name
// is derived from its PCI address once, here, and is a key into the snapshot
// from then on: no other package builds or parses one.
//
// topology/host shows how an Observer is wired from these readers.
package topology

// Snapshot is the machine at one moment. It is never modified after Observe
// returned it, so it may be shared between goroutines without a lock. All
// slices are sorted by PCI address, which makes two snapshots of an unchanged
// machine deeply equal apart from Link counters, of which there are none here.
type Snapshot struct {
	// BootID is /proc/sys/kernel/random/boot_id.
	BootID string `json:"bootID"`
	// Driver says whether the accelerators' driver answers.
	Driver Driver `json:"driver"`
	// GPUs, sorted by PCI address. A GPU whose getters partly fail is present
	// with the attributes that could be read and a Problem for each that could not.
	GPUs []GPU `json:"gpus,omitempty"`
	// NICs are PFs and VFs that carry a netdev or an RDMA device, sorted by PCI address.
	NICs []NIC `json:"nics,omitempty"`
	// NVSwitches that the node itself can see on PCIe, sorted by address.
	NVSwitches []NVSwitch `json:"nvSwitches,omitempty"`
	// StackedLinks are the node's netdevs that lie over its NICs' (bonds, VLANs,
	// bridges, tunnels), sorted by name.
	StackedLinks []StackedLink `json:"stackedLinks,omitempty"`
	// RDMANamespaces is "shared" or "exclusive": whether an RDMA device can be used in
	// every network namespace or is in one. "" where the kernel has no RDMA.
	RDMANamespaces string `json:"rdmaNamespaces,omitempty"`
	// Bridges are the PCIe root ports, switches and bridges above the devices, sorted by address.
	Bridges []Bridge `json:"bridges,omitempty"`
	// NUMANodes of the machine, sorted by ID.
	NUMANodes []NUMANode `json:"numaNodes,omitempty"`
	// Problems that concern no single device (an unreadable sysfs folder, say).
	Problems []Problem `json:"problems,omitempty"`
}

// DriverState says how far the accelerator driver got.
type DriverState string

const (
	// DriverReady: the library is loaded and initialised.
	DriverReady DriverState = "Ready"
	// DriverMissing: no NVML library was found under the driver root. A node
	// without GPUs, or one whose driver is not installed yet: a state, not a fault.
	DriverMissing DriverState = "Missing"
	// DriverFailed: the library is there but does not work (wrong version,
	// kernel module absent, every call fails).
	DriverFailed DriverState = "Failed"
)

// Driver is the accelerator driver of the node.
type Driver struct {
	State DriverState `json:"state"`
	// Version as NVML reports it, such as "570.124.06".
	Version string `json:"version,omitempty"`
	// CUDAVersion is the highest CUDA version that the driver supports, "major.minor".
	CUDAVersion string `json:"cudaVersion,omitempty"`
	// Library is the path that was loaded.
	Library string `json:"library,omitempty"`
	// Message explains a state other than Ready in a sentence for an administrator.
	Message string `json:"message,omitempty"`
}

// Problem is something that discovery could not read or make sense of. It costs
// the attribute that it names and nothing else.
type Problem struct {
	// Subject names what could not be read: an attribute, a file, a call.
	Subject string `json:"subject"`
	Message string `json:"message"`
}

// Placement is where a PCI function sits. Empty strings and -1 mean that the
// machine does not say.
type Placement struct {
	// PCI is the function's address in canonical form, "0000:17:00.0".
	PCI string `json:"pci"`
	// PCIeRoot is the root complex, "pci0000:16", as in the standard attribute
	// resource.kubernetes.io/pcieRoot.
	PCIeRoot string `json:"pcieRoot,omitempty"`
	// Path lists the bridges from the root complex down to the function's
	// parent, nearest to the root first.
	Path []string `json:"path,omitempty"`
	// PCIeSwitch is the address of the upstream port of the nearest switch
	// above the function, or "" if it hangs directly under a root port.
	PCIeSwitch string `json:"pcieSwitch,omitempty"`
	// NUMANode is -1 where the firmware reports no affinity.
	NUMANode int `json:"numaNode"`
	// Socket is the physical package of the NUMA node's CPUs, of a node without CPUs
	// that of the nearest ones; -1 if unknown or ambiguous.
	Socket int `json:"socket"`
	// IOMMUGroup is the number of the function's IOMMU group, "" without an IOMMU.
	IOMMUGroup string `json:"iommuGroup,omitempty"`
}

// Bridge is a PCIe root port, switch port or bridge above some device.
type Bridge struct {
	PCI      string `json:"pci"`
	PCIeRoot string `json:"pcieRoot"`
	// Parent is the bridge above, "" directly under the root complex.
	Parent   string `json:"parent,omitempty"`
	VendorID string `json:"vendorID,omitempty"`
	DeviceID string `json:"deviceID,omitempty"`
	NUMANode int    `json:"numaNode"`
	// Port is the bridge's kind, "" where neither its configuration space nor its place tells.
	Port PortKind `json:"port,omitempty"`
}

// PortKind is the PCI Express port type of a bridge.
type PortKind string

const (
	PortRoot       PortKind = "root"
	PortUpstream   PortKind = "upstream"
	PortDownstream PortKind = "downstream"
)

// NUMANode is a memory domain with its SLIT row.
type NUMANode struct {
	ID int `json:"id"`
	// Socket is the physical package of its CPUs, -1 for a node without CPUs.
	Socket int `json:"socket"`
	// CPUs in the kernel's list format, "0-55,112-167".
	CPUs string `json:"cpus,omitempty"`
	// Distances to all nodes in ID order, 10 = local (ACPI SLIT).
	Distances []int `json:"distances,omitempty"`
}

// GPU returns the GPU of that name, nil if the snapshot has none.
func (s *Snapshot) GPU(name string) *GPU {
	for i := range s.GPUs {
		if s.GPUs[i].Name == name {
			return &s.GPUs[i]
		}
	}
	return nil
}

// NIC returns the NIC of that name, nil if the snapshot has none.
func (s *Snapshot) NIC(name string) *NIC {
	for i := range s.NICs {
		if s.NICs[i].Name == name {
			return &s.NICs[i]
		}
	}
	return nil
}
