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
	Product    string      `json:"product"`
	Driver     Driver      `json:"driver"`
	NUMANodes  []NUMANode  `json:"numaNodes"`
	Bridges    []Bridge    `json:"bridges"`
	GPUModel   GPUModel    `json:"gpuModel"`
	GPUs       []GPU       `json:"gpus"`
	NVSwitches []PCIDevice `json:"nvSwitches,omitempty"`
	NICs       []NIC       `json:"nics"`
	// Stacked are links over the NICs' netdevs, each listed after those it lies over.
	Stacked []StackedLink `json:"stacked,omitempty"`
	NVLink  *NVLink       `json:"nvLink,omitempty"`
	// IOMMUGroups gives every function a group of its own.
	IOMMUGroups bool `json:"iommuGroups,omitempty"`
}

// Driver is the simulated GPU driver.
type Driver struct {
	// Version such as "570.124.06".
	Version string `json:"version"`
	// CUDA is the highest CUDA version of the driver, "12.8".
	CUDA string `json:"cuda"`
}

// NUMANode with its CPUs in list format and its SLIT row. A node without CPUs
// (a GPU's memory, CXL) has the empty list.
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

// Bridge is a root port (Root set), or a port of a switch below another bridge
// (Parent set): below a root port or a downstream port it is an upstream port,
// below an upstream port a downstream port.
type Bridge struct {
	PCI    string `json:"pci"`
	Parent string `json:"parent,omitempty"`
	// Root is the root complex, "pci0000:16", and NUMANode its affinity; root ports only.
	Root     string `json:"root,omitempty"`
	NUMANode int    `json:"numaNode,omitempty"`
	ID       string `json:"id"`
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
	for i := range p.NICs {
		if err := p.NICs[i].expandVFs(); err != nil {
			return nil, fmt.Errorf("machine profile %s: nics[%d]: %w", source, i, err)
		}
	}
	if err := p.validate(); err != nil {
		return nil, fmt.Errorf("machine profile %s is not a possible machine: %w", source, err)
	}
	return p, nil
}
