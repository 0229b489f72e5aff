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

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

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
	// Socket is the physical package of the NUMA node's CPUs, -1 if unknown.
	Socket int `json:"socket"`
}

// GPU is one physical GPU.
type GPU struct {
	// Name is the device's name in slices, logs and metrics, "gpu-0000-17-00-0".
	Name string `json:"name"`
	// Index is NVML's enumeration index. It is for display beside nvidia-smi only.
	Index int `json:"index"`
	// Minor is the number in /dev/nvidia<minor>, -1 if unknown.
	Minor int `json:"minor"`
	// UUID as NVML reports it, "GPU-…".
	UUID              string `json:"uuid,omitempty"`
	ProductName       string `json:"productName,omitempty"`
	Architecture      string `json:"architecture,omitempty"`
	ComputeCapability string `json:"computeCapability,omitempty"`
	Serial            string `json:"serial,omitempty"`
	VBIOSVersion      string `json:"vbiosVersion,omitempty"`
	MemoryBytes       uint64 `json:"memoryBytes,omitempty"`
	// MIGEnabled is the current MIG mode.
	MIGEnabled bool `json:"migEnabled,omitempty"`
	// NVLinks by link number; only links that the GPU has.
	NVLinks []NVLink `json:"nvlinks,omitempty"`
	// Fabric is set on GPUs that NVSwitches or an NVLink network connect.
	Fabric    *Fabric   `json:"fabric,omitempty"`
	Placement Placement `json:"placement"`
	// Lost: the driver knows of the GPU but answers "GPU is lost" for it.
	Lost     bool      `json:"lost,omitempty"`
	Problems []Problem `json:"problems,omitempty"`
}

// NVLinkPeer is what sits at the far end of a link.
type NVLinkPeer string

const (
	NVLinkPeerGPU     NVLinkPeer = "GPU"
	NVLinkPeerSwitch  NVLinkPeer = "Switch"
	NVLinkPeerCPU     NVLinkPeer = "CPU"
	NVLinkPeerUnknown NVLinkPeer = "Unknown"
)

// NVLink is one NVLink port of a GPU.
type NVLink struct {
	Link   int  `json:"link"`
	Active bool `json:"active"`
	// Version is the NVLink generation as NVML numbers it, 0 if unknown.
	Version int `json:"version,omitempty"`
	// Peer kind and PCI address of the far end ("" where NVML does not say).
	Peer    NVLinkPeer `json:"peer"`
	PeerPCI string     `json:"peerPCI,omitempty"`
}

// Fabric is a GPU's membership of an NVLink fabric (nvmlDeviceGetGpuFabricInfoV).
type Fabric struct {
	ClusterUUID string `json:"clusterUUID,omitempty"`
	CliqueID    uint32 `json:"cliqueID"`
	// State is NVML's own word: "NotSupported", "NotStarted", "InProgress" or "Completed".
	State string `json:"state"`
}

// NICKind tells physical from virtual functions.
type NICKind string

const (
	PF NICKind = "pf"
	VF NICKind = "vf"
)

// NIC is one PCI function that carries a netdev, an RDMA device or both.
type NIC struct {
	// Name is the device's name in slices, logs and metrics, "nic-0000-18-00-0".
	Name string  `json:"name"`
	Kind NICKind `json:"kind"`
	// Parent is the PF's name if this is a VF.
	Parent string `json:"parent,omitempty"`
	// VFID is the VF's number at its PF, -1 on a PF.
	VFID int `json:"vfID"`
	// NumVFs and TotalVFs are a PF's configured and possible VFs.
	NumVFs   int `json:"numVFs,omitempty"`
	TotalVFs int `json:"totalVFs,omitempty"`
	// Driver is the bound kernel driver, "" if none.
	Driver   string `json:"driver,omitempty"`
	VendorID string `json:"vendorID,omitempty"` // "15b3"
	DeviceID string `json:"deviceID,omitempty"` // "1021"
	// Link is the function's netdev; nil on IB-only devices and while the
	// netdev is in a pod's network namespace.
	Link *Link `json:"link,omitempty"`
	// RDMA is the function's RDMA device, nil if it has none.
	RDMA *RDMADevice `json:"rdma,omitempty"`
	// Uplink, if not empty, is the reason why the node itself lives on this
	// device ("carries the default route 0.0.0.0/0 via eth0"). Such a device is
	// never given to a pod.
	Uplink    string    `json:"uplink,omitempty"`
	Placement Placement `json:"placement"`
	Problems  []Problem `json:"problems,omitempty"`
}

// Link is a netdev of the host's network namespace.
type Link struct {
	Name string `json:"name"`
	// Index is the netdev's ifindex, 0 if the namespace does not have it.
	Index int    `json:"index,omitempty"`
	MAC   string `json:"mac,omitempty"`
	// MTU in bytes.
	MTU int `json:"mtu,omitempty"`
	// Type is "ethernet" or "infiniband".
	Type string `json:"type,omitempty"`
	// SpeedMbps in megabits per second, 0 if unknown.
	SpeedMbps int `json:"speedMbps,omitempty"`
	// Up is the operational state: administratively up with carrier.
	Up bool `json:"up"`
	// Addresses of the netdev, link-local ones left out.
	Addresses []netip.Prefix `json:"addresses,omitempty"`
}

// RDMADevice is an InfiniBand, RoCE or iWARP device of a NIC.
type RDMADevice struct {
	// Name such as "mlx5_0".
	Name     string     `json:"name"`
	NodeGUID string     `json:"nodeGUID,omitempty"`
	Ports    []RDMAPort `json:"ports,omitempty"`
	// CharDevices are the device nodes that verbs needs for this device alone
	// (uverbsN, umadN, issmN) and the shared rdma_cm, as paths under /dev.
	CharDevices []string `json:"charDevices,omitempty"`
}

// RDMAPort is one port of an RDMA device.
type RDMAPort struct {
	Port int `json:"port"`
	// State as sysfs words it, "ACTIVE", "DOWN", "INIT", "ARMED".
	State     string `json:"state,omitempty"`
	PhysState string `json:"physState,omitempty"`
	// LinkLayer is "InfiniBand" or "Ethernet".
	LinkLayer string `json:"linkLayer,omitempty"`
	// Rate as sysfs words it, "400 Gb/sec (4X NDR)".
	Rate string `json:"rate,omitempty"`
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
}

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

// GPUName and NICName make device names. They are the only places that do.
func GPUName(pci string) string { return "gpu-" + dashed(pci) }
func NICName(pci string) string { return "nic-" + dashed(pci) }

func dashed(pci string) string {
	return strings.NewReplacer(":", "-", ".", "-").Replace(pci)
}

// CanonicalPCI brings a PCI address as NVML ("00000000:17:00.0") or a user
// writes it into the kernel's form "0000:17:00.0", lower case.
func CanonicalPCI(address string) (string, error) {
	bad := fmt.Errorf("%q is not a PCI address of the form domain:bus:device.function", address)
	head, function, dotted := strings.Cut(strings.ToLower(strings.TrimSpace(address)), ".")
	fields := strings.Split(head, ":")
	if !dotted || len(fields) != 3 {
		return "", bad
	}
	// Bits per field: PCI's own, but the kernel numbers the domains behind Intel
	// VMD from 0x10000 on, so a domain may have more than four digits.
	var numbers [4]uint64
	for i, bits := range [4]int{32, 8, 5, 3} {
		number, err := strconv.ParseUint(append(fields, function)[i], 16, bits)
		if err != nil {
			return "", bad
		}
		numbers[i] = number
	}
	return fmt.Sprintf("%04x:%02x:%02x.%x", numbers[0], numbers[1], numbers[2], numbers[3]), nil
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
