// The attribute numaNode, as k8s.io/dynamic-resource-allocation makes it from
// sysfs, but made from the snapshot: the machine is read in one place. The list
// form adds the neighbours that are as good as the device's own node, so that a
// device matches CPUs of any of them.

package publish

import (
	"slices"

	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/utils/ptr"

	"github.com/hostler-dev/hostler/topology"
)

// maxNUMAValues keeps a device with 31 other attributes within the 48 values
// that the API allows it in all.
const maxNUMAValues = 16

type numa struct {
	nodes []topology.NUMANode
	list  bool
}

// attribute is absent for a device without affinity: -1 would match every other such device.
func (n numa) attribute(node int) (resourceapi.DeviceAttribute, bool) {
	if node < 0 {
		return resourceapi.DeviceAttribute{}, false
	}
	if !n.list {
		return resourceapi.DeviceAttribute{IntValue: ptr.To(int64(node))}, true
	}
	values := append([]int64{int64(node)}, n.neighbours(node)...)
	return resourceapi.DeviceAttribute{IntValues: values[:min(len(values), maxNUMAValues)]}, true
}

// neighbours are the other nodes at the smallest distance of all, without those
// that are known to be of another socket. Columns of the distance table count as
// node IDs, as they do in the library, since other drivers' lists have to match ours.
func (n numa) neighbours(node int) []int64 {
	row := n.node(node)
	if row == nil || node >= len(row.Distances) {
		return nil
	}
	others := slices.Delete(slices.Clone(row.Distances), node, node+1)
	if len(others) == 0 {
		return nil
	}
	nearest := slices.Min(others)
	var neighbours []int64
	for id, distance := range row.Distances {
		if id == node || distance != nearest {
			continue
		}
		other := n.node(id)
		if row.Socket >= 0 && other != nil && other.Socket >= 0 && other.Socket != row.Socket {
			continue
		}
		neighbours = append(neighbours, int64(id))
	}
	return neighbours
}

func (n numa) node(id int) *topology.NUMANode {
	for i := range n.nodes {
		if n.nodes[i].ID == id {
			return &n.nodes[i]
		}
	}
	return nil
}
