// NUMA nodes: memory domains, their CPUs, the socket that these CPUs sit in,
// and the distances that the firmware's SLIT table gives.

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
		id, err := strconv.Atoi(strings.TrimPrefix(name, "node"))
		if err != nil || !strings.HasPrefix(name, "node") {
			continue // possible, online, has_cpu and the like
		}
		node := topology.NUMANode{ID: id, Socket: -1, CPUs: sys.OptionalText("devices", "system", "node", name, "cpulist")}
		node.Distances, err = parseDistances(sys.OptionalText("devices", "system", "node", name, "distance"))
		if err != nil {
			t.problem("distances of NUMA "+name, err)
		}
		if cpu, ok := firstCPU(node.CPUs); ok {
			// -1 on virtual machines and architectures without packages.
			node.Socket = sys.OptionalInt(-1, "devices", "system", "cpu", "cpu"+strconv.Itoa(cpu), "topology", "physical_package_id")
		}
		t.NUMANodes = append(t.NUMANodes, node)
	}
	slices.SortFunc(t.NUMANodes, func(a, b topology.NUMANode) int { return cmp.Compare(a.ID, b.ID) })
}

// parseDistances reads a SLIT row, "10 21".
func parseDistances(row string) ([]int, error) {
	var distances []int
	for _, field := range strings.Fields(row) {
		distance, err := strconv.Atoi(field)
		if err != nil || distance < 0 {
			return nil, fmt.Errorf("the row %q is not a list of numbers", row)
		}
		distances = append(distances, distance)
	}
	return distances, nil
}

// firstCPU is the first CPU of a list such as "0-55,112-167"; a node without
// CPUs (memory of an accelerator, say) has none.
func firstCPU(list string) (int, bool) {
	end := strings.IndexAny(list, "-,")
	if end < 0 {
		end = len(list)
	}
	cpu, err := strconv.Atoi(list[:end])
	return cpu, err == nil && cpu >= 0
}
