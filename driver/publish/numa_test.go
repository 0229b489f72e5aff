package publish

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/dynamic-resource-allocation/deviceattribute"
	"pgregory.net/rapid"

	"github.com/hostler-dev/hostler/topology"
)

// The attribute is the library's, whatever the machine: this renders the snapshot
// into a sysfs and asks the library.
func TestNUMANodeIsTheLibrarys(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		count := rapid.IntRange(1, 8).Draw(rt, "nodes")
		var nodes []topology.NUMANode
		for id := range count {
			row := rapid.SliceOfN(rapid.SampledFrom([]int{12, 17, 21}), count, count).Draw(rt, "distances")
			row[id] = 10
			nodes = append(nodes, topology.NUMANode{ID: id, Socket: rapid.IntRange(-1, 1).Draw(rt, "socket"), Distances: row})
		}
		sysfs := renderNUMA(t, nodes)
		for _, list := range []bool{false, true} {
			form := deviceattribute.ScalarAttribute
			if list {
				form = deviceattribute.ListAttribute
			}
			for node := -1; node <= count; node++ {
				want, err := deviceattribute.GetNUMANodeAttribute(node, form, deviceattribute.WithFSFromRoot(sysfs))
				got, ok := numa{nodes: nodes, list: list}.attribute(node)
				if ok != (err == nil) || !apiequality.Semantic.DeepEqual(got, want.Value) {
					rt.Fatalf("node %d of %+v is published as %v (%v), the library says %v (%v)", node, nodes, got, ok, want.Value, err)
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

// renderNUMA writes the part of sysfs that the library reads. A node without a
// known socket has no CPUs.
func renderNUMA(t *testing.T, nodes []topology.NUMANode) string {
	t.Helper()
	root := t.TempDir()
	write := func(content string, path ...string) {
		file := filepath.Join(append([]string{root, "devices", "system"}, path...)...)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(content+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, n := range nodes {
		name := fmt.Sprintf("node%d", n.ID)
		write(strings.Trim(fmt.Sprint(n.Distances), "[]"), "node", name, "distance")
		if n.Socket >= 0 {
			write(fmt.Sprint(n.ID), "node", name, "cpulist")
			write(fmt.Sprint(n.Socket), "cpu", fmt.Sprintf("cpu%d", n.ID), "topology", "physical_package_id")
		}
	}
	return root
}
