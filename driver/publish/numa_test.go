package publish

import (
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/dynamic-resource-allocation/deviceattribute"
	"pgregory.net/rapid"

	"github.com/hostler-dev/hostler/topology"
)

// The attribute is the library's, whatever the machine: this renders the snapshot
// into a sysfs and asks the library.
func TestNUMANodeIsTheLibrarys(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		count := rapid.IntRange(1, 8).Draw(t, "nodes")
		var nodes []topology.NUMANode
		for id := range count {
			row := rapid.SliceOfN(rapid.SampledFrom([]int{12, 17, 21}), count, count).Draw(t, "distances")
			row[id] = 10
			nodes = append(nodes, topology.NUMANode{ID: id, Socket: rapid.IntRange(-1, 1).Draw(t, "socket"), Distances: row})
		}
		sysfs := renderNUMA(nodes)
		for _, list := range []bool{false, true} {
			form := deviceattribute.ScalarAttribute
			if list {
				form = deviceattribute.ListAttribute
			}
			for node := -1; node <= count; node++ {
				want, err := deviceattribute.GetNUMANodeAttribute(node, form, deviceattribute.WithFS(sysfs))
				got, ok := numa{nodes: nodes, list: list}.attribute(node)
				if ok != (err == nil) || !apiequality.Semantic.DeepEqual(got, want.Value) {
					t.Fatalf("node %d of %+v is published as %v (%v), the library says %v (%v)", node, nodes, got, ok, want.Value, err)
				}
			}
		}
	})
}

func TestLongListsOfNUMANodesAreCut(t *testing.T) {
	var nodes []topology.NUMANode
	for id := range 64 {
		row := slices.Repeat([]int{12}, 64)
		row[id] = 10
		nodes = append(nodes, topology.NUMANode{ID: id, Distances: row})
	}
	got, _ := numa{nodes: nodes, list: true}.attribute(40)
	if len(got.IntValues) != maxNUMAValues || got.IntValues[0] != 40 {
		t.Errorf("64 equal nodes are published as %v", got.IntValues)
	}
}

// renderNUMA has the part of sysfs that the library reads. A node without a
// known socket has no CPUs.
func renderNUMA(nodes []topology.NUMANode) fs.ReadLinkFS {
	sysfs := fstest.MapFS{}
	write := func(content string, path ...string) {
		sysfs["devices/system/"+strings.Join(path, "/")] = &fstest.MapFile{Data: []byte(content + "\n")}
	}
	for _, n := range nodes {
		name := fmt.Sprintf("node%d", n.ID)
		write(strings.Trim(fmt.Sprint(n.Distances), "[]"), "node", name, "distance")
		if n.Socket >= 0 {
			write(fmt.Sprint(n.ID), "node", name, "cpulist")
			write(fmt.Sprint(n.Socket), "cpu", fmt.Sprintf("cpu%d", n.ID), "topology", "physical_package_id")
		}
	}
	return sysfs
}
