package pci

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/hostler-dev/hostler/topology"
)

func TestNUMANodesWithSocketsAndDistances(t *testing.T) {
	want := []topology.NUMANode{
		{ID: 0, Socket: 0, CPUs: "0-3", Distances: []int{10, 21}},
		{ID: 1, Socket: -1, Distances: []int{21, 10}},
	}
	if diff := cmp.Diff(want, read(t, twoNodes()).NUMANodes); diff != "" {
		t.Error(diff)
	}
}

// The socket of a device whose node is the last one of the table.
func TestTheSocketOfADevice(t *testing.T) {
	type node struct{ cpus, distances string }
	cases := []struct {
		name     string
		nodes    []node
		packages map[string]string // files of CPUs, "cpu0/physical_package_id"
		socket   int
		problem  string
	}{
		{name: "of the node's own CPUs", nodes: []node{{"0-3", "10 21"}, {"4-7", "21 10"}}, packages: map[string]string{"0": "0", "4": "1"}, socket: 1},
		{name: "a virtual machine does not say", nodes: []node{{"0-3", "10"}}, packages: map[string]string{"0": "-1"}, socket: -1},
		{name: "one node of several sockets is in none", nodes: []node{{"0-7", "10"}}, packages: map[string]string{"0": "0", "0/cpus": "0-3"}, socket: -1},
		{name: "all of the node's CPUs are in the socket", nodes: []node{{"0-3", "10"}}, packages: map[string]string{"0": "0", "0/cpus": "0-3,8-11"}, socket: 0},
		{name: "memory of an accelerator, nearest to the second socket", nodes: []node{{"0-3", "10 40 80"}, {"4-7", "40 10 120"}, {"", "120 80 10"}},
			packages: map[string]string{"0": "0", "4": "1"}, socket: 1},
		{name: "memory as near to both sockets is in none", nodes: []node{{"0-3", "10 21 40"}, {"4-7", "21 10 40"}, {"", "40 40 10"}},
			packages: map[string]string{"0": "0", "4": "1"}, socket: -1},
		{name: "memory as near to two nodes of one socket", nodes: []node{{"0-3", "10 12 40"}, {"4-7", "12 10 40"}, {"", "40 40 10"}},
			packages: map[string]string{"0": "1", "4": "1"}, socket: 1},
		{name: "memory that no CPU reaches", nodes: []node{{"0-3", "10 255"}, {"", "255 10"}}, packages: map[string]string{"0": "0"}, socket: -1},
		{name: "no distances", nodes: []node{{"0-3", ""}, {"", ""}}, packages: map[string]string{"0": "0"}, socket: -1},
		{name: "a row of another length", nodes: []node{{"0-3", "10 20"}, {"", "20 10 30"}}, packages: map[string]string{"0": "0"}, socket: -1, problem: "3 distances to 2 nodes"},
		{name: "a row of words", nodes: []node{{"0-3", "near"}}, packages: map[string]string{"0": "0"}, socket: 0, problem: `"near"`},
		{name: "CPUs that are none", nodes: []node{{"3-0", "10"}}, packages: map[string]string{"3": "0"}, socket: -1, problem: `"3-0"`},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			files := map[string]string{}
			for i, n := range c.nodes {
				folder := "devices/system/node/node" + string(rune('0'+i))
				files[folder+"/cpulist"], files[folder+"/distance"] = n.cpus+"\n", n.distances+"\n"
			}
			for name, content := range c.packages {
				cpu, isList := strings.CutSuffix(name, "/cpus")
				folder := "devices/system/cpu/cpu" + cpu + "/topology/"
				if isList {
					files[folder+"package_cpus_list"] = content + "\n"
				} else {
					files[folder+"physical_package_id"] = content + "\n"
				}
			}
			last := string(rune('0' + len(c.nodes) - 1))
			function(files, "pci0000:16/0000:16:05.0", "0x020000", last, nil)
			tree := read(t, files)
			place := tree.Functions["0000:16:05.0"].Placement
			if place.Socket != c.socket || place.NUMANode != len(c.nodes)-1 {
				t.Errorf("the device is in node %d of socket %d, want the last node of socket %d", place.NUMANode, place.Socket, c.socket)
			}
			if c.problem == "" && len(tree.Problems) != 0 || c.problem != "" && (len(tree.Problems) != 1 || !strings.Contains(tree.Problems[0].Message, c.problem)) {
				t.Errorf("the problems are %v, want %q", tree.Problems, c.problem)
			}
		})
	}
}
