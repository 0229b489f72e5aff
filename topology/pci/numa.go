// NUMA nodes: memory domains, their CPUs, the socket that these CPUs sit in,
// and the distances that the firmware's SLIT table gives.
//
// A node need not have CPUs: the HBM of a Grace Blackwell GPU is several such nodes,
// CXL memory is one. It belongs to no socket of its own; what is attached to
// it is driven by the CPUs nearest to it, if the table names one socket as the nearest.

package pci

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/hostler-dev/hostler/topology"
	"github.com/hostler-dev/hostler/topology/sysfs"
)

func (t *Tree) readNUMANodes(sys sysfs.Root) {
	names, err := sys.Names("devices", "system", "node")
	if err != nil {
		t.problem("NUMA nodes", err)
		return
	}
	for _, name := range names {
		digits, isNode := strings.CutPrefix(name, "node")
		id, err := strconv.ParseUint(digits, 10, 16)
		if !isNode || err != nil {
			continue // possible, online, has_cpu and the like
		}
		t.NUMANodes = append(t.NUMANodes, t.readNUMANode(sys, name, int(id)))
	}
	slices.SortFunc(t.NUMANodes, func(a, b topology.NUMANode) int { return cmp.Compare(a.ID, b.ID) })
	for i := range t.NUMANodes {
		node := &t.NUMANodes[i]
		// A row without an entry for each node cannot be read: which one lacks?
		if n := len(node.Distances); n != 0 && n != len(t.NUMANodes) {
			t.problem(fmt.Sprintf("distances of NUMA node%d", node.ID), fmt.Errorf("%d distances to %d nodes", n, len(t.NUMANodes)))
			node.Distances = nil
		}
	}
	t.sockets = make(map[int]int, len(t.NUMANodes))
	for _, node := range t.NUMANodes {
		t.sockets[node.ID] = nearestSocket(t.NUMANodes, node)
	}
}

func (t *Tree) readNUMANode(sys sysfs.Root, name string, id int) topology.NUMANode {
	node := topology.NUMANode{ID: id, Socket: -1}
	text := func(attribute string) string {
		text, err := sys.Text("devices", "system", "node", name, attribute)
		if err != nil && !sysfs.Absent(err) {
			t.problem(attribute+" of NUMA "+name, err)
		}
		return text
	}
	cpus, err := parseCPUs(text("cpulist"))
	if err != nil {
		t.problem("CPUs of NUMA "+name, err)
	}
	node.CPUs = cpus.String()
	if node.Distances, err = parseDistances(text("distance")); err != nil {
		t.problem("distances of NUMA "+name, err)
	}
	if len(cpus) > 0 {
		node.Socket = socketOf(sys, cpus)
	}
	return node
}

// socketOf is the physical package of a node's CPUs. It is -1 on virtual
// machines and architectures without packages, and where the firmware was told to
// make one node of several sockets (node interleaving): then no socket is nearer.
func socketOf(sys sysfs.Root, cpus cpuList) int {
	first := "cpu" + strconv.Itoa(cpus[0].first)
	socket := sys.OptionalInt(-1, "devices", "system", "cpu", first, "topology", "physical_package_id")
	// Since Linux 5.3; on an older kernel the first CPU is believed for all.
	sameSocket, err := parseCPUs(sys.OptionalText("devices", "system", "cpu", first, "topology", "package_cpus_list"))
	if socket < 0 || err == nil && len(sameSocket) > 0 && !cpus.within(sameSocket) {
		return -1
	}
	return socket
}

// nearestSocket is the node's own socket or, for a node without CPUs, the one
// socket that all nearest nodes with CPUs are in; -1 where there is no such one.
func nearestSocket(nodes []topology.NUMANode, node topology.NUMANode) int {
	if node.CPUs != "" || len(node.Distances) != len(nodes) {
		return node.Socket
	}
	nearest, socket := -1, -1
	for i, other := range nodes {
		distance := node.Distances[i]
		switch {
		case other.CPUs == "" || distance >= unreachable:
		case nearest < 0 || distance < nearest:
			nearest, socket = distance, other.Socket
		case distance == nearest && other.Socket != socket:
			socket = -1
		}
	}
	return socket
}

// unreachable is the distance of nodes without a way between them (ACPI, 5.2.17).
const unreachable = 255

// parseDistances reads a SLIT row, "10 21".
func parseDistances(row string) ([]int, error) {
	var distances []int
	for _, field := range strings.Fields(row) {
		distance, err := strconv.ParseUint(field, 10, 16)
		if err != nil {
			return nil, fmt.Errorf("the row %q is not a list of distances", row)
		}
		distances = append(distances, int(distance))
	}
	return distances, nil
}
