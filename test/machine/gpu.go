// GPUs, their NVLinks, and what the simulator is told about both.

package machine

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

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
	// MIGProfiles are the kinds of GPU instance that a GPU in MIG mode can be cut into.
	MIGProfiles []MIGProfile `json:"migProfiles,omitempty"`
}

// GPU is one GPU; its UUID follows from machine, node and address (GPUUUID).
type GPU struct {
	PCI    string `json:"pci"`
	Parent string `json:"parent"`
	// Minor is the number of /dev/nvidia<minor>.
	Minor int `json:"minor"`
	// NVSwitchLinks is the number of NVLinks to each of the machine's NVSwitches.
	NVSwitchLinks []int `json:"nvSwitchLinks,omitempty"`
	// HiddenSwitchLinks is the number of NVLinks to switches that are not on the
	// node's PCIe tree: NVML says of them "a switch", with an address of zeroes.
	HiddenSwitchLinks int `json:"hiddenSwitchLinks,omitempty"`
	// NVLinks is the number of NVLinks straight to other GPUs, by their PCI
	// address. Both GPUs name the same number.
	NVLinks map[string]int `json:"nvLinks,omitempty"`
	// MemoryNode is the NUMA node that the GPU's memory is (nvidia-smi's "GPU
	// NUMA ID"), nil where it is none.
	MemoryNode *int `json:"memoryNode,omitempty"`
	// MIG puts the GPU in MIG mode.
	MIG *GPUMIG `json:"mig,omitempty"`
}

// NVLink describes the NVLink fabric of the machine.
type NVLink struct {
	Version int `json:"version"`
	// Fabric is the state that nvmlDeviceGetGpuFabricInfo reports: notSupported, notStarted, inProgress, completed.
	Fabric string `json:"fabric"`
	// ClusterUUID and Clique of a fabric over several nodes; single nodes have the nil UUID.
	ClusterUUID string `json:"clusterUUID,omitempty"`
	Clique      uint32 `json:"clique,omitempty"`
}

// architectures as NVML_DEVICE_ARCH_* numbers them, fabricStates as NVML_GPU_FABRIC_STATE_*.
var (
	architectures = map[string]int{"Volta": 5, "Turing": 6, "Ampere": 7, "Ada": 8, "Hopper": 9, "Blackwell": 10}
	fabricStates  = map[string]int{"notSupported": 0, "notStarted": 1, "inProgress": 2, "completed": 3}
)

// nvlinks lists a GPU's links: switch by switch, then those to hidden switches, then peer by peer.
func (p *Profile) nvlinks(g GPU) string {
	var lines strings.Builder
	link := 0
	add := func(count int, kind, address string) {
		for range count {
			fmt.Fprintf(&lines, "%d 1 %d %s %s\n", link, p.NVLink.Version, kind, address)
			link++
		}
	}
	for i, count := range g.NVSwitchLinks {
		add(count, "switch", p.NVSwitches[i].PCI)
	}
	add(g.HiddenSwitchLinks, "switch", "0000:00:00.0")
	for _, peer := range slices.Sorted(maps.Keys(g.NVLinks)) {
		add(g.NVLinks[peer], "gpu", peer)
	}
	return lines.String()
}

// fabricInfo is the simulator's line about the NVLink fabric, "" without one.
// Its health mask says of each fault that it is absent: on a node of its own only
// degraded bandwidth is known, in a rack every kind (nvmlGpuFabricInfo_v3_t).
func (p *Profile) fabricInfo() string {
	if p.NVLink == nil || p.NVLink.Fabric == "notSupported" {
		return ""
	}
	cluster, health := strings.Repeat("0", 32), "0x2"
	if p.NVLink.ClusterUUID != "" {
		cluster, health = strings.ReplaceAll(p.NVLink.ClusterUUID, "-", ""), "0xaa"
	}
	return fmt.Sprintf("%d %d %s %s", fabricStates[p.NVLink.Fabric], p.NVLink.Clique, health, cluster)
}
