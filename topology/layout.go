// The common ground of tree and picture: the devices of a snapshot sorted into
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
	nodes  []nodeGroup
}

type nodeGroup struct {
	node  int
	cpus  string
	roots []rootGroup
}

type rootGroup struct {
	root     string
	switches []switchGroup
}

// switchGroup holds the devices below one switch, or directly below the root
// complex's ports if switchPCI is "".
type switchGroup struct {
	switchPCI string
	gpus      []*GPU
	nics      []*NIC // PFs, and VFs whose PF is not in the snapshot
}

// layout sorts the snapshot's devices. Empty sockets and nodes are left out.
func layout(s *Snapshot) []socketGroup {
	places := map[int]map[int]map[string]map[string]*switchGroup{}
	at := func(p Placement) *switchGroup {
		nodes := entry(places, p.Socket)
		roots := entry(nodes, p.NUMANode)
		switches := entry(roots, p.PCIeRoot)
		if switches[p.PCIeSwitch] == nil {
			switches[p.PCIeSwitch] = &switchGroup{switchPCI: p.PCIeSwitch}
		}
		return switches[p.PCIeSwitch]
	}
	for i := range s.GPUs {
		group := at(s.GPUs[i].Placement)
		group.gpus = append(group.gpus, &s.GPUs[i])
	}
	for i := range s.NICs {
		if nic := &s.NICs[i]; nic.Kind == PF || s.NIC(nic.Parent) == nil {
			group := at(nic.Placement)
			group.nics = append(group.nics, nic)
		}
	}
	var sockets []socketGroup
	for _, socket := range slices.Sorted(maps.Keys(places)) {
		group := socketGroup{socket: socket}
		for _, node := range slices.Sorted(maps.Keys(places[socket])) {
			group.nodes = append(group.nodes, nodeGroup{node: node, cpus: s.cpus(node), roots: rootsOf(places[socket][node])})
		}
		sockets = append(sockets, group)
	}
	return sockets
}

// entry returns m[key], making the inner map first.
func entry[K, L comparable, V any](m map[K]map[L]V, key K) map[L]V {
	if m[key] == nil {
		m[key] = map[L]V{}
	}
	return m[key]
}

func rootsOf(places map[string]map[string]*switchGroup) []rootGroup {
	var roots []rootGroup
	for _, root := range slices.Sorted(maps.Keys(places)) {
		group := rootGroup{root: root}
		for _, pci := range slices.Sorted(maps.Keys(places[root])) {
			group.switches = append(group.switches, *places[root][pci])
		}
		roots = append(roots, group)
	}
	return roots
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
		if nic.Kind == PF {
			labels[nic.Name] = "NIC" + strconv.Itoa(number)
			number++
		}
	}
	return labels
}

// vfsOf counts the VFs of a PF that are in the snapshot.
func vfsOf(s *Snapshot, pf string) int {
	n := 0
	for i := range s.NICs {
		if s.NICs[i].Parent == pf {
			n++
		}
	}
	return n
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
