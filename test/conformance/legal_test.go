package conformance

// On every API server, with pairs and without: slices that it takes as they are. What
// real API servers say to the worst machines is tested in test/apiserver.

import (
	"maps"
	"slices"
	"testing"

	"github.com/hostler-dev/hostler/api/v1alpha1"
	"github.com/hostler-dev/hostler/driver/publish"
	"github.com/hostler-dev/hostler/test/allocator"
	"github.com/hostler-dev/hostler/test/conformance/legal"
	"github.com/hostler-dev/hostler/topology"
)

func legalEverywhere(t *testing.T, n *node) {
	for _, server := range []struct {
		name     string
		features publish.Features
		config   v1alpha1.PublishConfig
	}{
		{"Kubernetes 1.34", publish.Features{}, v1alpha1.PublishConfig{}},
		{"Kubernetes 1.34 with device taints", publish.Features{Taints: true, FewTaints: true}, v1alpha1.PublishConfig{}},
		{"Kubernetes 1.36", publish.Features{Taints: true, Counters: true, SharedDevices: true}, v1alpha1.PublishConfig{}},
		{"Kubernetes 1.37 with lists of NUMA nodes", kubernetes137, v1alpha1.PublishConfig{NUMANode: v1alpha1.NUMANodeList}},
	} {
		for _, pairs := range []bool{false, true} {
			server.config.CompositeDevices = pairs
			resources := publish.Resources(publish.Input{NodeName: nodeName, Features: server.features, Publish: server.config, Snapshot: n.snapshot})
			for name, pool := range resources.Pools {
				for _, problem := range legal.Problems(name, pool, legal.Server(server.features)) {
					t.Errorf("%s, pairs %t: %s", server.name, pairs, problem)
				}
			}
		}
	}
}

// oldServer has neither taints nor counters. What only they keep apart is not offered
// there: no uplink, no PF with VFs, no GPU in MIG mode and nothing that it could be cut into.
func oldServer(t *testing.T, n *node) {
	resources := publish.Resources(publish.Input{NodeName: nodeName, Snapshot: n.snapshot})
	devices := devicesByName(resources)
	for _, uplink := range n.want.Uplinks {
		if devices[uplink] != nil {
			t.Errorf("%s is an uplink and published, where no taint can keep claims off it", uplink)
		}
	}
	for _, nic := range n.Profile.NICs {
		if name := topology.NICName(nic.PCI); len(nic.VFs) > 0 && devices[name] != nil {
			t.Errorf("%s is published beside its VFs, and nothing keeps both from being given away", name)
		}
	}
	s := &scheduler{devices: devices, Scheduler: allocator.New(allocator.Config{
		Driver: publish.DriverName, NodeName: nodeName, Resources: resources, Features: allocator.Features134,
		Classes: allocator.TypeClasses(publish.DriverName, "gpu", "mig", "nic"),
	})}
	var gpus []string
	for _, got := range s.all(t, allocator.Request("gpu", 1)) {
		gpus = append(gpus, got...)
	}
	same(t, "GPUs that are given as a whole", slices.Collect(maps.Keys(n.wholeGPUs())), gpus)
	for _, gpu := range n.Profile.GPUs {
		existing := 0
		if gpu.MIG == nil {
			continue
		}
		for _, instance := range gpu.MIG.Instances {
			if len(instance.ComputeSlices) <= 1 {
				existing++
			}
		}
		if got := s.all(t, allocator.Request("mig", 1, at(gpu.PCI))); len(got) != existing {
			t.Errorf("%s has %d instances of one compute instance, and %d partitions were given away: %v", gpu.PCI, existing, len(got), got)
		}
	}
}
