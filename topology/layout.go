// The common ground of the drawings: the devices of a snapshot sorted into
// sockets, NUMA nodes, root complexes and switches. VFs stay with their PF.

package topology

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
)

type socketGroup struct {
	socket int // -1 where the machine does not say
	nodes  []*nodeGroup
}

type nodeGroup struct {
	node  int // -1 without NUMA affinity
	cpus  string
	roots []*switchGroup
}

// switchGroup holds what hangs below a switch or, at the top of a tree of them,
// directly below the ports of a root complex.
type switchGroup struct {
	// name is the root complex ("pci0000:16"), or the address of the switch's upstream port.
	name     string
	isRoot   bool
	switches []*switchGroup
	gpus     []*GPU
	nics     []*NIC // PFs, and VFs whose PF is not in the snapshot
	// dataDirect are NICs elsewhere whose second interface is here.
	dataDirect []*NIC
}

// layout sorts the snapshot's devices. NUMA nodes that have CPUs are there even
// without devices; memory without CPUs, as of a GPU that is a NUMA node, is not.
func layout(s *Snapshot) []*socketGroup {
	sorter := sorter{ports: make(map[string]PortKind, len(s.Bridges)), sockets: map[int]*socketGroup{}}
	for _, b := range s.Bridges {
		sorter.ports[b.PCI] = b.Port
	}
	for _, n := range s.NUMANodes {
		if n.CPUs != "" {
			sorter.node(n.Socket, n.ID)
		}
	}
	for i := range s.GPUs {
		group := sorter.group(&s.GPUs[i].Placement)
		group.gpus = append(group.gpus, &s.GPUs[i])
	}
	for i := range s.NICs {
		nic := &s.NICs[i]
		if nic.Kind != PF && s.NIC(nic.Parent) != nil {
			continue
		}
		group := sorter.group(&nic.Placement)
		group.nics = append(group.nics, nic)
		if nic.DataDirect != nil {
			group := sorter.group(nic.DataDirect)
			group.dataDirect = append(group.dataDirect, nic)
		}
	}
	var sockets []*socketGroup
	for _, socket := range slices.Sorted(maps.Keys(sorter.sockets)) {
		group := sorter.sockets[socket]
		slices.SortFunc(group.nodes, func(a, b *nodeGroup) int { return cmp.Compare(a.node, b.node) })
		for _, node := range group.nodes {
			node.cpus = s.cpus(node.node)
			sortGroups(node.roots)
		}
		sockets = append(sockets, group)
	}
	return sockets
}

func sortGroups(groups []*switchGroup) {
	slices.SortFunc(groups, func(a, b *switchGroup) int { return cmp.Compare(a.name, b.name) })
	for _, group := range groups {
		sortGroups(group.switches)
	}
}

// sorter makes groups as devices ask for them.
type sorter struct {
	ports   map[string]PortKind
	sockets map[int]*socketGroup
}

func (s *sorter) node(socket, node int) *nodeGroup {
	if s.sockets[socket] == nil {
		s.sockets[socket] = &socketGroup{socket: socket}
	}
	group := s.sockets[socket]
	for _, n := range group.nodes {
		if n.node == node {
			return n
		}
	}
	group.nodes = append(group.nodes, &nodeGroup{node: node})
	return group.nodes[len(group.nodes)-1]
}

// group is where a function hangs: its nearest switch, else its root complex.
func (s *sorter) group(p *Placement) *switchGroup {
	node := s.node(p.Socket, p.NUMANode)
	at := child(&node.roots, p.PCIeRoot)
	at.isRoot = true
	for _, pci := range s.switchesAbove(p) {
		at = child(&at.switches, pci)
	}
	return at
}

// switchesAbove lists the upstream ports above a function, nearest to the root first.
func (s *sorter) switchesAbove(p *Placement) []string {
	var switches []string
	for _, bridge := range p.Path {
		if bridge == p.PCIeSwitch || s.ports[bridge] == PortUpstream {
			switches = append(switches, bridge)
		}
	}
	if len(switches) == 0 && p.PCIeSwitch != "" {
		switches = append(switches, p.PCIeSwitch)
	}
	return switches
}

func child(groups *[]*switchGroup, name string) *switchGroup {
	for _, group := range *groups {
		if group.name == name {
			return group
		}
	}
	group := &switchGroup{name: name}
	*groups = append(*groups, group)
	return group
}

func (g *switchGroup) hasGPUs() bool {
	return len(g.gpus) > 0 || slices.ContainsFunc(g.switches, (*switchGroup).hasGPUs)
}

// levels of switches below a group.
func (g *switchGroup) levels() int {
	levels := 0
	for _, below := range g.switches {
		levels = max(levels, 1+below.levels())
	}
	return levels
}

func (s *Snapshot) cpus(node int) string {
	for _, n := range s.NUMANodes {
		if n.ID == node {
			return n.CPUs
		}
	}
	return ""
}

// labels are the short names of a matrix: GPU0 by NVML's index, so that they
// read like nvidia-smi's, and NIC0 in the order of PCI addresses. VFs have none.
func labels(s *Snapshot) map[string]string {
	labels := map[string]string{}
	taken := map[int]bool{}
	for _, gpu := range s.GPUs {
		if gpu.Index >= 0 && !taken[gpu.Index] {
			taken[gpu.Index] = true
			labels[gpu.Name] = "GPU" + strconv.Itoa(gpu.Index)
		}
	}
	next := 0
	for _, gpu := range s.GPUs { // GPUs that the driver does not list get the free numbers
		if labels[gpu.Name] != "" {
			continue
		}
		for taken[next] {
			next++
		}
		taken[next] = true
		labels[gpu.Name] = "GPU" + strconv.Itoa(next)
	}
	number := 0
	for _, nic := range s.NICs {
		if nic.Kind == PF || s.NIC(nic.Parent) == nil {
			labels[nic.Name] = "NIC" + strconv.Itoa(number)
			number++
		}
	}
	return labels
}

// vfsByPF are the VFs of every PF of the snapshot, by number.
func vfsByPF(s *Snapshot) map[string][]*NIC {
	vfs := map[string][]*NIC{}
	for _, vf := range byVFID(s.NICs) {
		vfs[vf.Parent] = append(vfs[vf.Parent], vf)
	}
	return vfs
}

// byLabel orders devices for display: GPUs by number, then NICs.
func byLabel(labels map[string]string) []string {
	names := slices.Collect(maps.Keys(labels))
	slices.SortFunc(names, func(a, b string) int {
		la, lb := labels[a], labels[b]
		return cmp.Or(cmp.Compare(la[:3], lb[:3]), cmp.Compare(len(la), len(lb)), cmp.Compare(la, lb))
	})
	return names
}
