package apiserver

import (
	"cmp"
	"fmt"
	"slices"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	resourceapi "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/dynamic-resource-allocation/deviceattribute"

	"github.com/hostler-dev/hostler/api/v1alpha1"
	"github.com/hostler-dev/hostler/driver/publish"
	"github.com/hostler-dev/hostler/topology"
)

// offer is how many devices of each type a node offers.
type offer map[string]int

// largest are the machines that fill slices most. What is offered of them depends
// on what the API server can express.
var largest = []struct {
	name  string
	input func() publish.Input
	offer func(publish.Features) offer
	// faulty: every device has more taints than any server takes.
	faulty bool
}{{
	name:  "16 GPUs in MIG mode with every placement free",
	input: func() publish.Input { return input(gpus(false), nil) },
	offer: func(f publish.Features) offer {
		switch {
		case !f.Counters:
			return offer{}
		case !f.Taints: // by which the whole GPU says that it cannot be used as one
			return offer{"mig": 16 * 25}
		}
		return offer{"gpu": 16, "mig": 16 * 25}
	},
}, {
	name:  "16 GPUs cut into seven instances each",
	input: func() publish.Input { return input(gpus(true), nil) },
	offer: func(f publish.Features) offer {
		if !f.Counters || !f.Taints {
			return offer{"mig": 16 * 7}
		}
		return offer{"gpu": 16, "mig": 16 * 7}
	},
}, {
	name:  "16 PFs with 128 VFs each",
	input: func() publish.Input { return input(nil, nics(128)) },
	offer: func(f publish.Features) offer {
		if !f.Counters {
			return offer{"nic": 16 * 128}
		}
		return offer{"nic": 16 * 129}
	},
}, {
	name: "16 GPUs in pairs with VFs of 16 PFs with 128 each",
	input: func() publish.Input {
		in := input(gpus(false), nics(128))
		for i := range in.Snapshot.GPUs {
			in.Snapshot.GPUs[i].MIGEnabled, in.Snapshot.GPUs[i].MIG = false, nil
		}
		in.Publish.CompositeDevices = true
		return in
	},
	offer: func(f publish.Features) offer {
		if !f.Counters {
			return offer{"gpu": 16, "nic": 16 * 128}
		}
		return offer{"gpu": 16, "nic": 16 * 129, "pair": 16}
	},
}, {
	name: "16 PFs with 128 VFs each, of each of which claims can have a share",
	input: func() publish.Input {
		in := input(nil, nics(128))
		in.Publish.SharedNICs = true
		return in
	},
	offer: func(f publish.Features) offer {
		if !f.Counters {
			return offer{"nic": 16 * 128}
		}
		return offer{"nic": 16 * 129}
	},
}, {
	name:   "every GPU and NIC with more faults than there may be taints",
	faulty: true,
	input: func() publish.Input {
		in := input(gpus(false), nics(128))
		for _, gpu := range in.Snapshot.GPUs {
			in.Taints = append(in.Taints, faults(gpu.Name)...)
		}
		for _, nic := range in.Snapshot.NICs {
			in.Taints = append(in.Taints, faults(nic.Name)...)
		}
		return in
	},
	offer: func(f publish.Features) offer {
		switch {
		case !f.Taints:
			return offer{}
		case !f.Counters:
			return offer{"nic": 16 * 128}
		}
		return offer{"gpu": 16, "mig": 16 * 25, "nic": 16 * 129}
	},
}}

func input(gpus []topology.GPU, nics []topology.NIC) publish.Input {
	return publish.Input{NodeName: nodeName, Snapshot: machine(gpus, nics), Publish: v1alpha1.PublishConfig{
		NUMANode: v1alpha1.NUMANodeList, Partitions: v1alpha1.PartitionsAll,
	}}
}

// faults are twenty taints of every effect.
func faults(device string) []publish.Taint {
	effects := []resourceapi.DeviceTaintEffect{resourceapi.DeviceTaintEffectNone, resourceapi.DeviceTaintEffectNoSchedule, resourceapi.DeviceTaintEffectNoExecute}
	var taints []publish.Taint
	for i := range 20 {
		taints = append(taints, publish.Taint{
			Device: device, Key: fmt.Sprintf("hostler.dev/fault-%d", i), Value: "a sentence about what is wrong with it",
			Effect: effects[i%len(effects)], TimeAdded: metav1.NewTime(time.Date(2026, 1, 2, 3, 4, 5, 678, time.UTC)),
		})
	}
	return taints
}

// listOf is the length of the longest list of NUMA nodes, 0 where there are none.
func listOf(f publish.Features) int {
	if f.ListAttributes {
		return 16
	}
	return 0
}

func taintsOf(f publish.Features) int {
	if f.FewTaints {
		return 4
	}
	return 16
}

// testLargest publishes each machine in turn.
func testLargest(t *testing.T, agent kubernetes.Interface, features publish.Features) {
	for _, m := range largest {
		t.Run(m.name, func(t *testing.T) {
			in := m.input()
			in.Features = features
			p := startPublishing(t, agent, in)
			defer p.remove(t)
			got := offer{}
			stored := p.stored(t)
			mostTaints, longestList, shared := 0, 0, 0
			for _, slice := range stored {
				for _, device := range slice.Spec.Devices {
					if device.AllowMultipleAllocations != nil && device.Capacity[publish.BandwidthCapacity].RequestPolicy != nil {
						shared++
					}
					got[*device.Attributes[publish.DriverName+"/type"].StringValue]++
					mostTaints = max(mostTaints, len(device.Taints))
					longestList = max(longestList, len(device.Attributes[deviceattribute.StandardDeviceAttributeNUMANode].IntValues))
				}
			}
			want := m.offer(features)
			if wanted := in.Publish.SharedNICs && features.SharedDevices; shared > 0 != wanted || wanted && shared != want["nic"] {
				t.Errorf("%d NICs are shared of %d", shared, want["nic"])
			}
			want["egress"] = 1
			if diff := gocmp.Diff(want, got); diff != "" {
				t.Errorf("devices in the API server (-want +got):\n%s", diff)
			}
			if want := listOf(features); len(got) > 1 && longestList != want {
				t.Errorf("the longest list of NUMA nodes has %d, want %d", longestList, want)
			}
			if want := taintsOf(features); m.faulty && len(got) > 1 && mostTaints != want {
				t.Errorf("a device has at most %d taints, want %d", mostTaints, want)
			}
			t.Logf("%d slices", len(stored))
		})
	}
}

// testChanges publishes a full node and then changes of it.
func testChanges(t *testing.T, agent kubernetes.Interface, features publish.Features) {
	in := input(gpus(false), nics(128))
	in.Features = features
	p := startPublishing(t, agent, in)
	before := p.stored(t)
	// Here, because what a subtest starts ends with it.
	p.controller.Stop()
	p = startPublishing(t, agent, in)
	if names := written(before, p.stored(t)); len(names) > 0 {
		t.Errorf("an agent that was started again wrote %d slices, want none: %v", len(names), names)
	}
	// expect publishes what change makes of the node, and takes it back.
	expect := func(t *testing.T, want int, change func(*publish.Input)) []string {
		t.Helper()
		changed := input(gpus(false), nics(128))
		changed.Features = features
		change(&changed)
		p.publish(t, changed)
		after := p.stored(t)
		names := written(before, after)
		if want >= 0 && len(names) != want {
			t.Errorf("%d of %d slices were written, want %d: %v", len(names), len(before), want, names)
		}
		p.publish(t, in)
		before = p.stored(t)
		return names
	}
	t.Run("nothing changed", func(t *testing.T) {
		expect(t, 0, func(*publish.Input) {})
	})
	t.Run("a VF got another MAC address", func(t *testing.T) {
		expect(t, 1, func(in *publish.Input) { in.Snapshot.NICs[700].Link.MAC = "02:00:00:00:00:ff" })
	})
	t.Run("a VF has a fault", func(t *testing.T) {
		expect(t, 1, func(in *publish.Input) {
			in.Taints = []publish.Taint{{Device: in.Snapshot.NICs[700].Name, Key: "hostler.dev/link", Effect: resourceapi.DeviceTaintEffectNoSchedule}}
		})
	})
	if features.Counters && features.Taints {
		// Without counters, a GPU in MIG mode that nobody cut offers nothing. Without
		// taints, its fault takes it out, and its slice with it, of which the whole pool is told.
		t.Run("a GPU has a fault", func(t *testing.T) {
			expect(t, 1, func(in *publish.Input) {
				in.Taints = []publish.Taint{{Device: in.Snapshot.GPUs[7].Name, Key: "hostler.dev/xid", Effect: resourceapi.DeviceTaintEffectNoExecute}}
			})
		})
	}
	t.Run("a PF has fewer VFs", func(t *testing.T) {
		expect(t, 1, func(in *publish.Input) { withVFs(in.Snapshot, 5, 100) })
	})
	t.Run("a PF has no VFs", func(t *testing.T) {
		// The number of slices is in every slice of the pool, so the library writes them all.
		names := expect(t, -1, func(in *publish.Input) { withVFs(in.Snapshot, 5, 0) })
		pool := 0
		for _, slice := range before {
			if slice.Spec.Pool.Name == publish.NICPool(nodeName) {
				pool++
			}
		}
		t.Logf("%d slices were written, of %d in the pool of NICs and %d in all", len(names), pool, len(before))
		if len(names) > pool {
			t.Errorf("%d slices were written, more than the pool of NICs has: %v", len(names), names)
		}
	})
}

// withVFs changes the number of VFs of the i-th PF.
func withVFs(s *topology.Snapshot, i, count int) {
	pf := s.NIC(topology.NICName(placement(i, 1).PCI))
	pf.NumVFs = count
	s.NICs = slices.DeleteFunc(s.NICs, func(nic topology.NIC) bool { return nic.Parent == pf.Name && nic.VFID >= count })
	slices.SortFunc(s.NICs, func(a, b topology.NIC) int { return cmp.Compare(a.Placement.PCI, b.Placement.PCI) })
}
