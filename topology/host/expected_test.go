package host_test

// What is published of each machine, written down by hand (test/machine/expected),
// against what discovery and the graph make of it.

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/hostler-dev/hostler/test/machine"
	"github.com/hostler-dev/hostler/topology"
)

func asPublished(t *testing.T, profile string, s *topology.Snapshot) {
	t.Helper()
	want, err := machine.LoadExpected(profile)
	must(t, err)
	numa := map[string]int{}
	for _, gpu := range s.GPUs {
		numa[gpu.Name] = gpu.Placement.NUMANode
	}
	var uplinks, problems []string
	for _, nic := range s.NICs {
		if nic.Uplink != "" {
			uplinks = append(uplinks, nic.Name)
		}
	}
	for _, problem := range s.Problems {
		if problem.Subject != "uplink" || len(want.Uplinks) > 0 { // none to be found is a problem of its own
			problems = append(problems, problem.Subject+": "+problem.Message)
		}
	}
	same(t, "number of GPUs and NICs", []int{want.GPUs, want.NICs}, []int{len(s.GPUs), len(s.NICs)})
	same(t, "problems", []string(nil), problems)
	same(t, "NUMA nodes", want.NUMA, numa)
	same(t, "uplinks", want.Uplinks, uplinks)
	same(t, "islands", want.Islands, topology.NVLinkIslands(s))
	distances(t, s, want)
	groups(t, s, want)
	rails(t, s, want)
}

// same compares what has no order of its own.
func same(t *testing.T, what string, want, got any) {
	t.Helper()
	sorted := []cmp.Option{
		cmpopts.EquateEmpty(), cmpopts.SortSlices(func(a, b string) bool { return a < b }),
		cmpopts.SortSlices(func(a, b []string) bool { return slices.Min(a) < slices.Min(b) }),
	}
	if diff := cmp.Diff(want, got, sorted...); diff != "" {
		t.Errorf("%s: %s", what, diff)
	}
}

func distances(t *testing.T, s *topology.Snapshot, want *machine.Expected) {
	t.Helper()
	for _, a := range want.Columns {
		for _, b := range want.Columns {
			if got := topology.Distance(s, a, b).String(); got != want.Cell(a, b) {
				t.Errorf("from %s to %s it is %s, want %s", a, b, got, want.Cell(a, b))
			}
		}
	}
}

// groups compares those that have both GPUs and NICs.
func groups(t *testing.T, s *topology.Snapshot, want *machine.Expected) {
	t.Helper()
	var wanted, got [][]string
	for _, group := range want.AffinityGroups {
		wanted = append(wanted, slices.Concat(group.GPUs, group.NICs))
	}
	members := map[string][]string{}
	for device, group := range topology.AffinityGroups(s) {
		members[group] = append(members[group], device)
	}
	isGPU := func(name string) bool { return s.GPU(name) != nil }
	for _, devices := range members {
		if slices.ContainsFunc(devices, isGPU) && !slices.ContainsFunc(devices, func(name string) bool { return !isGPU(name) }) {
			continue // GPUs alone
		}
		if slices.ContainsFunc(devices, isGPU) {
			got = append(got, devices)
		}
	}
	same(t, "affinity groups", wanted, got)
}

func rails(t *testing.T, s *topology.Snapshot, want *machine.Expected) {
	t.Helper()
	all := topology.Rails(s)
	for nic, gpu := range want.Rails {
		rail, onRail := all[nic]
		if of, known := all[gpu]; !onRail || !known || rail != of {
			t.Errorf("%s is on rail %d (%t), want %d, that of %s", nic, rail, onRail, of, gpu)
		}
	}
	for _, nic := range want.NoRail {
		if rail, onRail := all[nic]; onRail {
			t.Errorf("%s is on rail %d, want none", nic, rail)
		}
	}
}
