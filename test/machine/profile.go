// Package machine makes a directory look like a GPU server, so that an agent
// without any test hook believes it runs on one.
//
// A Profile (YAML) says what the server is: NUMA nodes, PCIe tree, GPUs, NICs.
// Render writes it as a sysfs tree, a /dev folder and a driver root with the
// NVML simulator of test/nvmlsim. Plug makes the netdevs that go with it. The
// agent's pod gets these folders mounted at /sys, /dev and the driver root.
package machine

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"sort"
	"strings"

	"sigs.k8s.io/yaml"
)

//go:embed profiles/*.yaml
var profiles embed.FS

// Profile describes a machine. PCI addresses are in the kernel's form, "0000:17:00.0".
type Profile struct {
	Name string `json:"name"`
	// Product is the DMI product name.
	Product     string      `json:"product"`
	Driver      Driver      `json:"driver"`
	NUMANodes   []NUMANode  `json:"numaNodes"`
	Bridges     []Bridge    `json:"bridges"`
	GPUModel    GPUModel    `json:"gpuModel"`
	GPUs        []GPU       `json:"gpus"`
	NVSwitches  []PCIDevice `json:"nvSwitches,omitempty"`
	NICs        []NIC       `json:"nics"`
	NVLink      *NVLink     `json:"nvLink,omitempty"`
	IOMMUGroups bool        `json:"iommuGroups,omitempty"`
}

// Driver is the simulated GPU driver.
type Driver struct {
	// Version such as "570.124.06".
	Version string `json:"version"`
	// CUDA is the highest CUDA version of the driver, "12.8".
	CUDA string `json:"cuda"`
}

// NUMANode with its CPUs in list format and its SLIT row.
type NUMANode struct {
	ID        int    `json:"id"`
	Socket    int    `json:"socket"`
	CPUs      string `json:"cpus"`
	MemoryGiB int    `json:"memoryGiB"`
	Distances []int  `json:"distances"`
}

// PCIDevice is a function below a bridge.
type PCIDevice struct {
	PCI    string `json:"pci"`
	Parent string `json:"parent"`
	// ID is vendor:device in hexadecimal, "10de:2330".
	ID string `json:"id"`
}

// Bridge is a root port (Root set), or a switch port or bridge below another (Parent set).
type Bridge struct {
	PCI    string `json:"pci"`
	Parent string `json:"parent,omitempty"`
	// Root is the root complex, "pci0000:16", and NUMANode its affinity; root ports only.
	Root     string `json:"root,omitempty"`
	NUMANode int    `json:"numaNode,omitempty"`
	ID       string `json:"id"`
}

// GPUModel holds what all GPUs of the machine share.
type GPUModel struct {
	ID                string `json:"id"`
	SubsystemID       string `json:"subsystemID"`
	Class             string `json:"class"`
	Name              string `json:"name"`
	Architecture      string `json:"architecture"`
	ComputeCapability string `json:"computeCapability"`
	Brand             int    `json:"brand"`
	VBIOS             string `json:"vbios"`
	BoardPart         string `json:"boardPart"`
	MemoryMiB         uint64 `json:"memoryMiB"`
	ReservedMiB       uint64 `json:"reservedMiB"`
	IdleWatts         int    `json:"idleWatts"`
	LimitWatts        int    `json:"limitWatts"`
	SMClockMHz        int    `json:"smClockMHz"`
	MaxSMClockMHz     int    `json:"maxSMClockMHz"`
	MemoryClockMHz    int    `json:"memoryClockMHz"`
	PCIeGeneration    int    `json:"pcieGeneration"`
	ECC               bool   `json:"ecc"`
	MIGCapable        bool   `json:"migCapable"`
	Cores             int    `json:"cores"`
	MemoryBusBits     int    `json:"memoryBusBits"`
}

// GPU is one GPU; its UUID follows from machine, node and address (GPUUUID).
type GPU struct {
	PCI    string `json:"pci"`
	Parent string `json:"parent"`
	// Minor is the number of /dev/nvidia<minor>.
	Minor int `json:"minor"`
	// NVSwitchLinks is the number of NVLinks to each of the machine's NVSwitches.
	NVSwitchLinks []int `json:"nvSwitchLinks,omitempty"`
}

// NVLink describes the NVLink fabric of the machine.
type NVLink struct {
	Version int `json:"version"`
	// Fabric is the state that nvmlDeviceGetGpuFabricInfo reports: notSupported, notStarted, inProgress, completed.
	Fabric string `json:"fabric"`
}

// NIC is one physical function with a netdev, mostly with an RDMA device too.
type NIC struct {
	PCI    string `json:"pci"`
	Parent string `json:"parent"`
	ID     string `json:"id"`
	// Driver is the kernel driver, "mlx5_core".
	Driver string `json:"driver"`
	// Interface is the netdev's name.
	Interface string `json:"interface"`
	SpeedMbps int    `json:"speedMbps"`
	MTU       int    `json:"mtu"`
	// PCIeGeneration and Width of its link.
	PCIeGeneration int `json:"pcieGeneration"`
	Width          int `json:"width"`
	// Uplink marks the NIC that the node itself lives on; the cluster makes its netdev.
	Uplink bool  `json:"uplink,omitempty"`
	RDMA   *RDMA `json:"rdma,omitempty"`
	// TotalVFs is what the function could have; VFs are the ones that exist.
	TotalVFs int    `json:"totalVFs,omitempty"`
	VFID     string `json:"vfID,omitempty"`
	VFs      []VF   `json:"vfs,omitempty"`
}

// VF is a virtual function of a NIC.
type VF struct {
	PCI string `json:"pci"`
	// Interface "" means a VF without a netdev driver.
	Interface string `json:"interface,omitempty"`
	Driver    string `json:"driver,omitempty"`
	RDMA      *RDMA  `json:"rdma,omitempty"`
}

// RDMA is the RDMA device of a NIC.
type RDMA struct {
	Name string `json:"name"`
	// Index is the N of uverbsN and umadN.
	Index int `json:"index"`
	// Rate as sysfs words it, "400 Gb/sec (4X NDR)".
	Rate      string `json:"rate"`
	Firmware  string `json:"firmware"`
	BoardID   string `json:"boardID"`
	LinkLayer string `json:"linkLayer"`
}

// Names lists the profiles that come with the package.
func Names() []string {
	entries, err := fs.ReadDir(profiles, "profiles")
	if err != nil {
		return nil
	}
	var names []string
	for _, e := range entries {
		names = append(names, strings.TrimSuffix(e.Name(), ".yaml"))
	}
	sort.Strings(names)
	return names
}

// Load returns the profile of that name, or the one in the YAML file of that path.
func Load(nameOrPath string) (*Profile, error) {
	raw, err := fs.ReadFile(profiles, path.Join("profiles", nameOrPath+".yaml"))
	if errors.Is(err, fs.ErrNotExist) {
		raw, err = os.ReadFile(nameOrPath)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("machine profile %q is neither one of %s nor a file: %w", nameOrPath, strings.Join(Names(), ", "), err)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("read machine profile %s: %w", nameOrPath, err)
	}
	return Parse(nameOrPath, raw)
}

// Parse decodes and validates a profile; source names it in errors.
func Parse(source string, raw []byte) (*Profile, error) {
	p := &Profile{}
	if err := yaml.UnmarshalStrict(raw, p); err != nil {
		return nil, fmt.Errorf("machine profile %s: %w", source, err)
	}
	if err := p.validate(); err != nil {
		return nil, fmt.Errorf("machine profile %s is not a possible machine: %w", source, err)
	}
	return p, nil
}

// UplinkName is the netdev that the node lives on, "" if the profile names none.
func (p *Profile) UplinkName() string {
	for _, n := range p.NICs {
		if n.Uplink {
			return n.Interface
		}
	}
	return ""
}
