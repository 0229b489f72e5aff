// Affinity: which GPUs and NICs belong together. The same answer serves three
// uses: a group that matchAttribute can ask for, pairs that are offered as one
// device, and rails, the numbering under which the NICs of all nodes of a training
// cluster meet at the same leaf switches.

package topology

import (
	"cmp"
	"slices"
)

// AffinityGroups maps every device to the group of devices with which it shares
// its nearest PCIe switch that has both a GPU and a NIC below it; without such a
// switch, the root complex that has; without either, its own nearest switch or root
// complex. A GPU and a NIC of one group exchange data without passing the
// interconnect between root complexes. A Data Direct card counts where its second
// interface is: the root that its first one shows is the wrong one for GPUs.
func AffinityGroups(s *Snapshot) map[string]string {
	type members struct{ gpu, nic bool }
	below := map[string]members{}
	ports := make(map[string]PortKind, len(s.Bridges))
	for _, b := range s.Bridges {
		ports[b.PCI] = b.Port
	}
	anchors := make(map[string][]string, len(s.GPUs)+len(s.NICs))
	for i := range s.GPUs {
		gpu := &s.GPUs[i]
		anchors[gpu.Name] = anchorsOf(&gpu.Placement, ports)
		for _, anchor := range anchors[gpu.Name] {
			below[anchor] = members{gpu: true, nic: below[anchor].nic}
		}
	}
	for i := range s.NICs {
		nic := &s.NICs[i]
		anchors[nic.Name] = anchorsOf(nic.dataPlacement(), ports)
		for _, anchor := range anchors[nic.Name] {
			below[anchor] = members{gpu: below[anchor].gpu, nic: true}
		}
	}
	groups := make(map[string]string, len(anchors))
	for device, list := range anchors {
		if len(list) == 0 {
			continue
		}
		groups[device] = list[0]
		for _, anchor := range list {
			if below[anchor] == (members{gpu: true, nic: true}) {
				groups[device] = anchor
				break
			}
		}
	}
	return groups
}

// anchorsOf lists the switches above a function and its root complex, nearest first.
func anchorsOf(p *Placement, ports map[string]PortKind) []string {
	var anchors []string
	for _, bridge := range slices.Backward(p.Path) {
		if bridge == p.PCIeSwitch || ports[bridge] == PortUpstream {
			anchors = append(anchors, "switch-"+dashed(bridge))
		}
	}
	if len(anchors) == 0 && p.PCIeSwitch != "" {
		anchors = append(anchors, "switch-"+dashed(p.PCIeSwitch))
	}
	if p.PCIeRoot != "" {
		anchors = append(anchors, "root-"+dashed(p.PCIeRoot))
	}
	return anchors
}

// dataPlacement is where the NIC's data enters PCIe towards GPUs.
func (n *NIC) dataPlacement() *Placement {
	if n.DataDirect != nil {
		return n.DataDirect
	}
	return &n.Placement
}

// Pair is a GPU with the NIC that is nearest to it.
type Pair struct {
	// Name of the two as one device.
	Name     string
	GPU, NIC string
	Distance DistanceClass
}

// Pairs matches every GPU with the nearest NIC that is still free, no farther
// than its own NUMA node: the nearest pairs first, those of one affinity group before
// others as near, in PCI order, each NIC once. The node's uplinks are left out. A PF that has VFs gives those instead of itself.
func Pairs(s *Snapshot) []Pair {
	vfs := map[string][]string{}
	for _, vf := range byVFID(s.NICs) {
		if vf.Uplink == "" {
			vfs[vf.Parent] = append(vfs[vf.Parent], vf.Name)
		}
	}
	matched := match(s, func(pf *NIC) int {
		if pf.NumVFs > 0 {
			return len(vfs[pf.Name])
		}
		return 1
	}, nil)
	var pairs []Pair
	given := map[string]int{}
	for _, m := range matched {
		name := m.nic.Name
		pci := m.nic.Placement.PCI
		if m.nic.NumVFs > 0 {
			vf := s.NIC(vfs[name][given[name]])
			given[name]++
			name, pci = vf.Name, vf.Placement.PCI
		}
		pairs = append(pairs, Pair{Name: PairName(m.gpu.Placement.PCI, pci), GPU: m.gpu.Name, NIC: name, Distance: m.class})
	}
	return pairs
}

func byVFID(nics []NIC) []*NIC {
	var vfs []*NIC
	for i := range nics {
		if nics[i].Kind == VF {
			vfs = append(vfs, &nics[i])
		}
	}
	slices.SortFunc(vfs, func(a, b *NIC) int {
		return cmp.Or(cmp.Compare(a.VFID, b.VFID), cmp.Compare(a.Placement.PCI, b.Placement.PCI))
	})
	return vfs
}

// Rails numbers GPUs in PCI order from 0 and gives every NIC that is nearest to
// a GPU the GPU's number; VFs have their PF's. NICs that are farther from every
// GPU than the GPU's own nearest NIC (storage, management) have no rail, nor
// have GPUs without a NIC on their NUMA node.
func Rails(s *Snapshot) map[string]int {
	rails := map[string]int{}
	nearest := map[string]DistanceClass{}
	taken := map[string]bool{}
	for {
		matched := match(s, func(pf *NIC) int {
			if taken[pf.Name] {
				return 0
			}
			return 1
		}, nearest)
		for _, m := range matched {
			index := slices.IndexFunc(s.GPUs, func(g GPU) bool { return g.Name == m.gpu.Name })
			rails[m.gpu.Name], rails[m.nic.Name] = index, index
			nearest[m.gpu.Name], taken[m.nic.Name] = m.class, true
		}
		if len(matched) == 0 {
			break
		}
	}
	for i := range s.NICs {
		if rail, ok := rails[s.NICs[i].Parent]; ok && s.NICs[i].Kind == VF {
			rails[s.NICs[i].Name] = rail
		}
	}
	return rails
}

type matched struct {
	gpu   *GPU
	nic   *NIC
	class DistanceClass
}

// match gives each GPU at most one PF, nearest classes first; of equally near
// PFs one of its own affinity group, and then the one that has been given least often.
// Where only holds a class for a GPU, no other class will do; once only holds any, it must
// hold the GPU.
func match(s *Snapshot, capacity func(*NIC) int, only map[string]DistanceClass) []matched {
	m := matching{snapshot: s, groups: AffinityGroups(s), capacity: capacity, given: map[string]int{}}
	done := map[string]bool{}
	for _, class := range []DistanceClass{DistancePIX, DistancePXB, DistancePHB, DistanceNode} {
		for _, inGroup := range []bool{true, false} {
			for i := range s.GPUs {
				gpu := &s.GPUs[i]
				if wanted, ok := only[gpu.Name]; done[gpu.Name] || len(only) > 0 && (!ok || wanted != class) {
					continue
				}
				if nic := m.best(gpu, class, inGroup); nic != nil {
					m.given[nic.Name]++
					done[gpu.Name] = true
					m.result = append(m.result, matched{gpu, nic, class})
				}
			}
		}
	}
	slices.SortFunc(m.result, func(a, b matched) int { return cmp.Compare(a.gpu.Placement.PCI, b.gpu.Placement.PCI) })
	return m.result
}

type matching struct {
	snapshot *Snapshot
	groups   map[string]string
	capacity func(*NIC) int
	// given counts how often each PF was given.
	given  map[string]int
	result []matched
}

// best is the PF of that distance class that the GPU is to have, nil if there is none.
func (m *matching) best(gpu *GPU, class DistanceClass, inGroup bool) *NIC {
	var best *NIC
	for i := range m.snapshot.NICs {
		nic := &m.snapshot.NICs[i]
		switch {
		case nic.Kind == VF, nic.Uplink != "", m.given[nic.Name] >= m.capacity(nic):
		case inGroup && m.groups[gpu.Name] != m.groups[nic.Name], m.snapshot.gpuToNIC(gpu, nic) != class:
		case best == nil, m.given[nic.Name] < m.given[best.Name]:
			best = nic
		}
	}
	return best
}

func (s *Snapshot) gpuToNIC(gpu *GPU, nic *NIC) DistanceClass {
	class := pcieDistance(&gpu.Placement, &nic.Placement, len(s.NUMANodes))
	if nic.DataDirect != nil {
		class = nearer(class, pcieDistance(&gpu.Placement, nic.DataDirect, len(s.NUMANodes)))
	}
	return class
}
