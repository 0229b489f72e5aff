// The scheduler's own allocator, run over what is published: that attributes and
// counters mean to it what they are meant to. Each case is a sequence of claims
// against one node; an empty answer is a claim that stays pending.

package publish

import (
	"strings"
	"testing"

	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/dynamic-resource-allocation/structured"
	"k8s.io/klog/v2"
	"k8s.io/klog/v2/ktesting"
	"k8s.io/utils/ptr"

	"github.com/hostler-dev/hostler/api/v1alpha1"
	"github.com/hostler-dev/hostler/test/allocator"
	"github.com/hostler-dev/hostler/topology"
)

const (
	island   = "hostler.dev/nvlinkIsland"
	affinity = "hostler.dev/affinityGroup"
	root     = "resource.kubernetes.io/pcieRoot"
	numaNode = "resource.kubernetes.io/numaNode"
)

func scheduler(in Input, features structured.Features) *allocator.Scheduler {
	in.NodeName = node
	return allocator.New(allocator.Config{
		Driver: DriverName, NodeName: node, Resources: Resources(in), Features: features,
		Classes: allocator.TypeClasses(DriverName, "gpu", "mig", "nic", "pair", "egress"),
	})
}

// step is a claim, or several of one pod, and the devices that it gets.
type step struct {
	claims []*resourceapi.ResourceClaim
	want   string
}

func claim(want string, parts ...allocator.Part) step {
	return step{[]*resourceapi.ResourceClaim{allocator.Claim("c", parts...)}, want}
}

func run(t *testing.T, in Input, features structured.Features, steps []step) {
	t.Helper()
	_, ctx := ktesting.NewTestContext(t)
	s := scheduler(in, features)
	for i, step := range steps {
		got, err := s.Allocate(ctx, step.claims...)
		if err != nil {
			t.Fatalf("claim %d: %v", i+1, err)
		}
		if strings.Join(got, " ") != step.want {
			t.Fatalf("claim %d was allocated %v, want %q", i+1, got, step.want)
		}
	}
}

// profile asks for one partition.
func profile(name string) allocator.Part {
	return allocator.Request("mig", 1, `device.attributes["hostler.dev"].migProfile == "`+name+`"`)
}

func TestSchedulerFindsWhatBelongsTogether(t *testing.T) {
	one := func(class string) allocator.Part { return allocator.Request(class, 1) }
	pairs := func(n int) []allocator.Part {
		var parts []allocator.Part
		for range n {
			parts = append(parts, one("gpu"), one("nic"))
		}
		parts = append(parts, allocator.Match(affinity, "r0", "r1"))
		if n == 2 {
			parts = append(parts, allocator.Match(affinity, "r2", "r3"))
		}
		return parts
	}
	twoIslands := dgx()
	for i := range twoIslands.GPUs {
		for link := range twoIslands.GPUs[i].NVLinks {
			twoIslands.GPUs[i].NVLinks[link].Active = link < 1 && i != 0
			twoIslands.GPUs[i].NVLinks[link].Peer = topology.NVLinkPeerGPU
			twoIslands.GPUs[i].NVLinks[link].PeerPCI = twoIslands.GPUs[[]int{0, 3, 1, 1, 6, 6, 4, 5}[i]].Placement.PCI
		}
	}
	faulty := []Taint{{Device: dgx().GPUs[0].Name, Key: "hostler.dev/xid", Value: "79", Effect: resourceapi.DeviceTaintEffectNoSchedule}}
	for _, test := range []struct {
		name  string
		in    Input
		steps []step
	}{
		{"a GPU and a NIC under one root complex", Input{Snapshot: dgx()}, []step{claim("gpu-0000-13-00-0 nic-0000-15-00-0", one("gpu"), one("nic"), allocator.Match(root))}},
		{"the same by affinity group", Input{Snapshot: dgx()}, []step{claim("gpu-0000-13-00-0 nic-0000-15-00-0", pairs(1)...)}},
		{"two such in one claim", Input{Snapshot: dgx()}, []step{
			claim("gpu-0000-13-00-0 nic-0000-15-00-0 gpu-0000-23-00-0 nic-0000-25-00-0", pairs(2)...),
			claim("gpu-0000-33-00-0 nic-0000-35-00-0 gpu-0000-43-00-0 nic-0000-45-00-0", pairs(2)...),
		}},
		{"a faulty GPU is avoided, and so is its NIC", Input{Snapshot: dgx(), Taints: faulty}, []step{claim("gpu-0000-23-00-0 nic-0000-25-00-0", pairs(1)...)}},
		{"four GPUs of one island, though GPUs of none and of a smaller one come first", Input{Snapshot: twoIslands}, []step{
			claim("gpu-0000-53-00-0 gpu-0000-63-00-0 gpu-0000-73-00-0 gpu-0000-83-00-0", allocator.Request("gpu", 4), allocator.Match(island)),
			claim("", allocator.Request("gpu", 4), allocator.Match(island)),
			claim("gpu-0000-23-00-0 gpu-0000-33-00-0 gpu-0000-43-00-0", allocator.Request("gpu", 3), allocator.Match(island)),
		}},
		{"two GPUs spread over NUMA nodes", Input{Snapshot: dgx()}, []step{
			claim("gpu-0000-13-00-0 gpu-0000-53-00-0", allocator.Request("gpu", 2), allocator.Distinct(numaNode)),
			claim("", allocator.Request("gpu", 3), allocator.Distinct(numaNode)),
		}},
		{"the same by selectors", Input{Snapshot: dgx()}, []step{
			claim("gpu-0000-13-00-0 gpu-0000-53-00-0",
				allocator.Request("gpu", 1, `device.attributes["resource.kubernetes.io"].numaNode == 0`),
				allocator.Request("gpu", 1, `device.attributes["resource.kubernetes.io"].numaNode == 1`)),
		}},
		{"nine NICs, of which none is the uplink", Input{Snapshot: dgx()}, []step{
			claim("nic-0000-15-00-0 nic-0000-25-00-0 nic-0000-35-00-0 nic-0000-45-00-0 nic-0000-55-00-0 nic-0000-65-00-0 nic-0000-75-00-0 nic-0000-85-00-0 nic-0000-a2-00-0", allocator.Request("nic", 9)),
			claim("", one("nic")),
		}},
		{"three claims share the egress device", Input{Snapshot: dgx()}, []step{claim("egress", one("egress")), claim("egress", one("egress")), claim("egress", one("egress"))}},
	} {
		t.Run(test.name, func(t *testing.T) {
			test.in.Features = everything
			run(t, test.in, allocator.DefaultFeatures, test.steps)
		})
	}
}

func TestSchedulerMatchesListsOfNUMANodes(t *testing.T) {
	s := &topology.Snapshot{GPUs: []topology.GPU{gpu("0000:17:00.0")}, NICs: []topology.NIC{nic("0000:18:00.0")}}
	for id := range 4 {
		s.NUMANodes = append(s.NUMANodes, topology.NUMANode{ID: id, Socket: id / 2, Distances: [][]int{{10, 12, 32, 32}, {12, 10, 32, 32}, {32, 32, 10, 12}, {32, 32, 12, 10}}[id]})
	}
	features := allocator.DefaultFeatures
	features.ListTypeAttributes = true
	for node, want := range map[int]string{0: "gpu-0000-17-00-0 nic-0000-18-00-0", 1: "gpu-0000-17-00-0 nic-0000-18-00-0", 2: ""} {
		s.NICs[0].Placement.NUMANode = node
		in := Input{Snapshot: s, Features: everything, Publish: v1alpha1.PublishConfig{NUMANode: v1alpha1.NUMANodeList}}
		run(t, in, features, []step{claim(want, allocator.Request("gpu", 1), allocator.Request("nic", 1), allocator.Match(numaNode))})
	}
}

func TestSchedulerNeverGivesAnythingTwice(t *testing.T) {
	whole := allocator.Request("gpu", 1)
	// Somebody who tolerates the mode taint: only counters are between him and the partitions.
	tolerant := func(spec *resourceapi.DeviceClaim) {
		whole(spec)
		spec.Requests[0].Exactly.Tolerations = []resourceapi.DeviceToleration{{Operator: resourceapi.DeviceTolerationOpExists, Key: MIGModeTaint}}
	}
	const gpuName, pf, pairName = "gpu-0000-17-00-0", "nic-0000-18-00-0", "pair-0000-17-00-0-0000-18-00-0"
	mig := &topology.Snapshot{GPUs: []topology.GPU{migGPU("0000:17:00.0")}}
	at := func(profile, start string) string { return gpuName + "-mig-" + profile + "-" + start }
	sriov := &topology.Snapshot{NICs: withVFs(nic("0000:18:00.0"), 2)}
	kind := func(kind string) allocator.Part {
		return allocator.Request("nic", 1, `device.attributes["hostler.dev"].kind == "`+kind+`"`)
	}
	halves := &topology.Snapshot{GPUs: []topology.GPU{gpu("0000:17:00.0")}, NICs: []topology.NIC{nic("0000:18:00.0")}}
	withVF := &topology.Snapshot{GPUs: []topology.GPU{gpu("0000:17:00.0")}, NICs: withVFs(nic("0000:18:00.0"), 2)}
	vfPair := "pair-0000-17-00-0-0000-18-01-0"
	for _, test := range []struct {
		name     string
		snapshot *topology.Snapshot
		steps    []step
	}{
		{"7g fits once", mig, []step{claim(at("7g-80gb", "0"), profile("7g.80gb")), claim("", profile("7g.80gb")), claim("", profile("1g.10gb"))}},
		{"3g fits twice", mig, []step{claim(at("3g-40gb", "0"), profile("3g.40gb")), claim(at("3g-40gb", "4"), profile("3g.40gb")), claim("", profile("3g.40gb")), claim("", profile("1g.10gb"))}},
		{"4g and 3g fit together", mig, []step{claim(at("4g-40gb", "0"), profile("4g.40gb")), claim(at("3g-40gb", "4"), profile("3g.40gb")), claim("", profile("1g.10gb"))}},
		{"1g fits seven times", mig, []step{
			claim(at("1g-10gb", "0"), profile("1g.10gb")), claim(at("1g-10gb", "1"), profile("1g.10gb")), claim(at("1g-10gb", "2"), profile("1g.10gb")), claim(at("1g-10gb", "3"), profile("1g.10gb")),
			claim(at("1g-10gb", "4"), profile("1g.10gb")), claim(at("1g-10gb", "5"), profile("1g.10gb")), claim(at("1g-10gb", "6"), profile("1g.10gb")), claim("", profile("1g.10gb")),
		}},
		{"the one media engine goes to one partition", mig, []step{claim(at("1g-10gb-me", "0"), profile("1g.10gb+me")), claim("", profile("1g.10gb+me")), claim(at("1g-10gb", "1"), profile("1g.10gb"))}},
		{"two partitions of one claim do not overlap", mig, []step{claim(at("3g-40gb", "4")+" "+at("4g-40gb", "0"), profile("3g.40gb"), profile("4g.40gb"))}},
		{"a whole GPU in MIG mode is not given away", mig, []step{claim("", whole)}},
		{"nor, to one who tolerates the mode, after a partition", mig, []step{claim(at("1g-10gb", "0"), profile("1g.10gb")), claim("", tolerant)}},
		{"nor a partition after the whole", mig, []step{claim(gpuName, tolerant), claim("", profile("1g.10gb"))}},
		{"no VF after the PF", sriov, []step{claim(pf, kind("pf")), claim("", kind("vf"))}},
		{"no PF after a VF", sriov, []step{claim("nic-0000-18-01-0", kind("vf")), claim("", kind("pf")), claim("nic-0000-18-01-1", kind("vf")), claim("", kind("vf"))}},
		{"no halves after the pair", halves, []step{claim(pairName, allocator.Request("pair", 1)), claim("", whole), claim("", kind("pf"))}},
		{"no pair after its GPU", halves, []step{claim(gpuName, whole), claim("", allocator.Request("pair", 1)), claim(pf, kind("pf"))}},
		{"no pair after its NIC", halves, []step{claim(pf, kind("pf")), claim("", allocator.Request("pair", 1)), claim(gpuName, whole)}},
		{"a pair with a VF leaves the other VF, not the PF", withVF, []step{claim(vfPair, allocator.Request("pair", 1)), claim("nic-0000-18-01-1", kind("vf")), claim("", kind("vf")), claim("", kind("pf"))}},
		{"no pair with a VF after that VF", withVF, []step{claim("nic-0000-18-01-0", kind("vf")), claim("", allocator.Request("pair", 1))}},
		{"no pair with a VF after the PF", withVF, []step{claim(pf, kind("pf")), claim("", allocator.Request("pair", 1))}},
	} {
		t.Run(test.name, func(t *testing.T) {
			in := Input{Snapshot: test.snapshot, Features: everything}
			in.Publish.CompositeDevices = strings.Contains(test.name, "pair")
			run(t, in, allocator.DefaultFeatures, test.steps)
		})
	}
}

// The scheduler of Kubernetes 1.37 charges counters to admin access too: what
// shares counters can be looked at only while nobody has it. The documentation says so.
func TestAdminAccessToDevicesInUseEndsWhereCountersBegin(t *testing.T) {
	_, ctx := ktesting.NewTestContext(t)
	ctx = klog.NewContext(ctx, klog.Logger{})
	for _, composite := range []bool{false, true} {
		in := Input{Features: everything, Snapshot: &topology.Snapshot{GPUs: []topology.GPU{gpu("0000:17:00.0")}}}
		in.Publish.CompositeDevices = composite
		s := scheduler(in, allocator.DefaultFeatures)
		monitor := allocator.Claim("monitor", allocator.Request("gpu", 1))
		monitor.Spec.Devices.Requests[0].Exactly.AdminAccess = ptr.To(true)
		if got, err := s.Find(ctx, monitor); err != nil || got == nil {
			t.Fatalf("with pairs %v: a free GPU cannot be looked at: %v", composite, err)
		}
		if got, err := s.Allocate(ctx, allocator.Claim("c", allocator.Request("gpu", 1))); err != nil || got == nil {
			t.Fatalf("with pairs %v: nothing is allocated: %v", composite, err)
		}
		if got, err := s.Find(ctx, monitor); err != nil || (got == nil) != composite {
			t.Errorf("with pairs %v: a GPU in use is given to a monitor: %v, %v", composite, got, err)
		}
	}
}
