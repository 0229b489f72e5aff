package conformance

// What is discovered, and what is published of it, against what is known of the
// machine. The two are asked apart: the graph can be right and the attribute that a
// claim matches wrong.

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/dynamic-resource-allocation/resourceslice"

	"github.com/hostler-dev/hostler/api/v1alpha1"
	"github.com/hostler-dev/hostler/driver/publish"
	"github.com/hostler-dev/hostler/topology"
)

func discovered(t *testing.T, n *node) {
	if gpus, nics := len(n.snapshot.GPUs), len(n.snapshot.NICs); gpus != n.want.GPUs || nics != n.want.NICs {
		t.Errorf("%d GPUs and %d NICs were found, the machine has %d and %d", gpus, nics, n.want.GPUs, n.want.NICs)
	}
	for i, a := range n.want.Columns {
		for _, b := range n.want.Columns[i:] {
			if got := topology.Distance(n.snapshot, a, b).String(); got != n.want.Cell(a, b) {
				t.Errorf("from %s to %s it is %s, and %s by the published matrix", a, b, got, n.want.Cell(a, b))
			}
		}
	}
	for _, problem := range n.snapshot.Problems {
		if problem.Subject != "uplink" || len(n.want.Uplinks) > 0 { // that there is none is a problem of its own
			t.Errorf("there is a problem with %s: %s", problem.Subject, problem.Message)
		}
	}
	for _, gpu := range n.snapshot.GPUs {
		for _, problem := range gpu.Problems {
			t.Errorf("%s has a problem with %s: %s", gpu.Name, problem.Subject, problem.Message)
		}
	}
	for _, nic := range n.snapshot.NICs {
		isUplink := slices.Contains(n.want.Uplinks, nic.Name)
		if isUplink != (nic.Uplink != "") {
			t.Errorf("%s is an uplink: %t; the reason found is %q", nic.Name, isUplink, nic.Uplink)
		}
		for _, problem := range nic.Problems {
			t.Errorf("%s has a problem with %s: %s", nic.Name, problem.Subject, problem.Message)
		}
	}
	n.uplinkReasons(t)
}

// uplinkReasons wants each reason to name what an administrator has to look at: the
// default route's own link, the PF of a VF, and else a link that lies over the NIC.
func (n *node) uplinkReasons(t *testing.T) {
	t.Helper()
	for _, nic := range n.snapshot.NICs {
		var name string
		if nic.Link != nil {
			name = nic.Link.Name
		}
		because := n.over(name)
		switch {
		case nic.Kind == topology.VF:
			because = []string{nic.Parent}
		case name == n.Profile.UplinkName():
			because = []string{"default route 0.0.0.0/0 via " + name}
		}
		names := func(reason string) bool { return strings.Contains(nic.Uplink, reason) }
		if nic.Uplink != "" && !slices.ContainsFunc(because, names) {
			t.Errorf("%s (%s) is an uplink because of one of %q, and the reason found is %q", nic.Name, name, because, nic.Uplink)
		}
	}
}

// over are the stacked links above a link, near and far; a profile lists them in
// the order in which they are stacked.
func (n *node) over(link string) []string {
	below := []string{link}
	for _, stacked := range n.Profile.Stacked {
		if slices.ContainsFunc(stacked.Lower, func(lower string) bool { return slices.Contains(below, lower) }) {
			below = append(below, stacked.Name)
		}
	}
	return below[1:]
}

func published(t *testing.T, n *node) {
	devices := devicesByName(n.resources(v1alpha1.PublishConfig{}))
	count := map[string]int{}
	var tainted []string
	numa, rails := map[string]string{}, map[string]string{}
	for name, d := range devices {
		count[value(d, own+"type")]++
		if slices.ContainsFunc(d.Taints, func(t resourceapi.DeviceTaint) bool { return t.Key == publish.UplinkTaint }) {
			tainted = append(tainted, name)
		}
		numa[name], rails[name] = value(d, numaNode), value(d, own+"rail")
	}
	if count["gpu"] != n.want.GPUs || count["nic"] != n.want.NICs {
		t.Errorf("%d GPUs and %d NICs are published, the machine has %d and %d", count["gpu"], count["nic"], n.want.GPUs, n.want.NICs)
	}
	same(t, "NICs with the taint "+publish.UplinkTaint, n.want.Uplinks, tainted)
	for gpu, node := range n.want.NUMA {
		if numa[gpu] != fmt.Sprint(node) {
			t.Errorf("%s is published on NUMA node %q, and is on %d", gpu, numa[gpu], node)
		}
	}
	same(t, "GPUs by nvlinkIsland", together(n.want.Islands), together(members(devices, own+"nvlinkIsland", "gpu")))
	same(t, "GPUs and NICs by affinityGroup", together(n.groups()), together(n.mixed(members(devices, own+"affinityGroup", "gpu", "nic"))))
	for nic, gpu := range n.want.Rails {
		if rails[nic] == "" || rails[nic] != rails[gpu] || rails[gpu] != n.railOf(gpu) {
			t.Errorf("%s has the rail %q, %s has %q, and both are on rail %s", nic, rails[nic], gpu, rails[gpu], n.railOf(gpu))
		}
	}
	for _, nic := range n.want.NoRail {
		if rails[nic] != "" {
			t.Errorf("%s has the rail %s, and is on none", nic, rails[nic])
		}
	}
}

// groups are the expected affinity groups as plain lists.
func (n *node) groups() [][]string {
	var groups [][]string
	for _, group := range n.want.AffinityGroups {
		groups = append(groups, slices.Concat(group.GPUs, group.NICs))
	}
	return groups
}

// mixed leaves the groups that have both GPUs and NICs.
func (n *node) mixed(groups [][]string) [][]string {
	isGPU := func(name string) bool { return strings.HasPrefix(name, "gpu-") }
	isNIC := func(name string) bool { return strings.HasPrefix(name, "nic-") }
	return slices.DeleteFunc(groups, func(group []string) bool {
		return !slices.ContainsFunc(group, isGPU) || !slices.ContainsFunc(group, isNIC)
	})
}

// railOf is the number of a GPU's rail: its place among the GPUs in PCI order,
// which is that of the matrix.
func (n *node) railOf(gpu string) string {
	return fmt.Sprint(slices.Index(n.want.Columns, gpu))
}

const (
	own      = publish.DriverName + "/"
	numaNode = "resource.kubernetes.io/numaNode"
	pcieRoot = "resource.kubernetes.io/pcieRoot"
	pciBusID = "resource.kubernetes.io/pciBusID"
)

func devicesByName(resources resourceslice.DriverResources) map[string]*resourceapi.Device {
	devices := map[string]*resourceapi.Device{}
	for _, pool := range resources.Pools {
		for _, slice := range pool.Slices {
			for i := range slice.Devices {
				devices[slice.Devices[i].Name] = &slice.Devices[i]
			}
		}
	}
	return devices
}

// members are the devices of those types by what they have in common: a device
// without the attribute is alone.
func members(devices map[string]*resourceapi.Device, attribute string, types ...string) [][]string {
	groups := map[string][]string{}
	for name, d := range devices {
		if !slices.Contains(types, value(d, own+"type")) {
			continue
		}
		group := value(d, attribute)
		if group == "" {
			group = "only " + name
		}
		groups[group] = append(groups[group], name)
	}
	return slices.Collect(maps.Values(groups))
}

// value of an attribute as text, "" if the device does not have it.
func value(d *resourceapi.Device, name string) string {
	a, ok := d.Attributes[resourceapi.QualifiedName(name)]
	if !ok {
		return ""
	}
	return attributeText(a)
}

// same compares lists in any order.
func same(t *testing.T, what string, want, got []string) {
	t.Helper()
	missing, extra := without(want, got), without(got, want)
	if len(missing)+len(extra) > 0 || len(want) != len(got) {
		t.Errorf("%s: not found are %q, wrongly found are %q", what, missing, extra)
	}
}

// together are groups in words, for same.
func together(groups [][]string) []string {
	var list []string
	for _, group := range groups {
		list = append(list, strings.Join(slices.Sorted(slices.Values(group)), " with "))
	}
	return list
}
