// The graph: pure functions from a snapshot to distances, islands and groups.
// The distance classes are those of `nvidia-smi topo -m`, extended to every device of
// the snapshot, so that a GPU and a NIC are as comparable as two GPUs.

package topology

import (
	"cmp"
	"slices"
	"strconv"
)

// DistanceClass is how far apart two devices are.
type DistanceClass string

const (
	// DistanceUnknown: one of the names is not in the snapshot.
	DistanceUnknown DistanceClass = ""
	// DistanceSelf: the same device.
	DistanceSelf DistanceClass = "X"
	// DistanceNVLink: joined by NVLinks, directly or through NVSwitches.
	DistanceNVLink DistanceClass = "NV"
	// DistancePIX: below the same PCIe switch, or the same bridge.
	DistancePIX DistanceClass = "PIX"
	// DistancePXB: below the same root port, over several switches.
	DistancePXB DistanceClass = "PXB"
	// DistancePHB: below the same root complex, over the CPU's host bridge.
	DistancePHB DistanceClass = "PHB"
	// DistanceNode: over the interconnect between root complexes of one NUMA node.
	DistanceNode DistanceClass = "NODE"
	// DistanceSys: over the interconnect between NUMA nodes.
	DistanceSys DistanceClass = "SYS"
)

var distanceOrder = []DistanceClass{
	DistanceSelf, DistanceNVLink, DistancePIX, DistancePXB, DistancePHB, DistanceNode, DistanceSys, DistanceUnknown,
}

// Rank orders classes from near (0) to far.
func (c DistanceClass) Rank() int { return slices.Index(distanceOrder, c) }

// Separation is the distance of two devices.
type Separation struct {
	Class DistanceClass
	// NVLinks is the number of bonded links if the class is DistanceNVLink.
	NVLinks int
}

// String is the cell of a topology matrix: "X", "NV18", "PIX", …, "?" if unknown.
func (d Separation) String() string {
	switch d.Class {
	case DistanceUnknown:
		return "?"
	case DistanceNVLink:
		return "NV" + strconv.Itoa(d.NVLinks)
	}
	return string(d.Class)
}

// Distance of two devices, by name. Two GPUs joined by NVLink are that far
// apart and no farther, wherever they sit on PCIe.
func Distance(s *Snapshot, a, b string) Separation {
	placeA, placeB := s.placement(a), s.placement(b)
	if placeA == nil || placeB == nil {
		return Separation{}
	}
	if a == b {
		return Separation{Class: DistanceSelf}
	}
	if gpuA, gpuB := s.GPU(a), s.GPU(b); gpuA != nil && gpuB != nil {
		if links := nvlinks(gpuA, gpuB); links > 0 {
			return Separation{Class: DistanceNVLink, NVLinks: links}
		}
	}
	class := pcieDistance(placeA, placeB, len(s.NUMANodes))
	// Through its second interface a Data Direct card may be nearer.
	for _, pair := range [2][2]string{{a, b}, {b, a}} {
		if nic := s.NIC(pair[0]); nic != nil && nic.DataDirect != nil {
			class = nearer(class, pcieDistance(nic.DataDirect, s.placement(pair[1]), len(s.NUMANodes)))
		}
	}
	return Separation{Class: class}
}

func nearer(a, b DistanceClass) DistanceClass {
	if b.Rank() < a.Rank() {
		return b
	}
	return a
}

func (s *Snapshot) placement(name string) *Placement {
	if gpu := s.GPU(name); gpu != nil {
		return &gpu.Placement
	}
	if nic := s.NIC(name); nic != nil {
		return &nic.Placement
	}
	return nil
}

func pcieDistance(a, b *Placement, numaNodes int) DistanceClass {
	switch {
	case len(a.Path) > 0 && slices.Equal(a.Path, b.Path):
		return DistancePIX
	case a.PCIeSwitch != "" && a.PCIeSwitch == b.PCIeSwitch:
		return DistancePIX
	case len(a.Path) > 0 && len(b.Path) > 0 && a.Path[0] == b.Path[0]:
		return DistancePXB
	case a.PCIeRoot != "" && a.PCIeRoot == b.PCIeRoot:
		return DistancePHB
	case a.NUMANode >= 0 && a.NUMANode == b.NUMANode:
		return DistanceNode
	case numaNodes <= 1:
		return DistanceNode // one node or none: the firmware's -1 hides nothing
	}
	return DistanceSys
}

// nvlinks counts the active links that join two GPUs: those that lead straight
// from one to the other or, if there are none, those through the NVSwitches that both
// reach, of which the GPU with fewer sets the width.
func nvlinks(a, b *GPU) int {
	// Both sides are asked: a GPU that is being lost may report no links any more.
	direct := max(linksTo(a, b.Placement.PCI), linksTo(b, a.Placement.PCI))
	if direct > 0 {
		return direct
	}
	if a.Fabric != nil && b.Fabric != nil && (a.Fabric.ClusterUUID != b.Fabric.ClusterUUID || a.Fabric.CliqueID != b.Fabric.CliqueID) {
		return 0
	}
	if a.isCutOff() || b.isCutOff() {
		return 0
	}
	return min(switchLinks(a), switchLinks(b))
}

// isCutOff: the switches route nothing for a GPU that could not join their fabric.
func (g *GPU) isCutOff() bool { return g.Fabric != nil && g.Fabric.State == FabricFailed }

func linksTo(gpu *GPU, pci string) int {
	n := 0
	for _, link := range gpu.NVLinks {
		if link.Active && link.Peer == NVLinkPeerGPU && link.PeerPCI == pci {
			n++
		}
	}
	return n
}

func switchLinks(gpu *GPU) int {
	n := 0
	for _, link := range gpu.NVLinks {
		if link.Active && link.Peer == NVLinkPeerSwitch {
			n++
		}
	}
	return n
}

// NVLinkIslands are the groups of GPUs that NVLinks connect, directly or over
// other GPUs, each sorted by name; together they hold every GPU exactly once. A
// GPU without links is an island of its own.
func NVLinkIslands(s *Snapshot) [][]string {
	island := make([]int, len(s.GPUs))
	for i := range island {
		island[i] = i
	}
	for i := range s.GPUs {
		for j := range i {
			if nvlinks(&s.GPUs[i], &s.GPUs[j]) == 0 || island[i] == island[j] {
				continue
			}
			from, to := island[i], island[j]
			for k := range island {
				if island[k] == from {
					island[k] = to
				}
			}
		}
	}
	members := map[int][]string{}
	for i, n := range island {
		members[n] = append(members[n], s.GPUs[i].Name)
	}
	islands := make([][]string, 0, len(members))
	for _, names := range members {
		slices.Sort(names)
		islands = append(islands, names)
	}
	slices.SortFunc(islands, func(a, b []string) int { return cmp.Compare(a[0], b[0]) })
	return islands
}
