package publish

import (
	"slices"
	"strings"
	"testing"

	resourceapi "k8s.io/api/resource/v1"

	"github.com/hostler-dev/hostler/api/v1alpha1"
	"github.com/hostler-dev/hostler/test/allocator"
	"github.com/hostler-dev/hostler/topology"
)

// crowded is a machine that has something of everything that can be withheld.
func crowded() *topology.Snapshot {
	s := &topology.Snapshot{
		GPUs: []topology.GPU{gpu("0000:17:00.0"), migGPU("0000:27:00.0", instance(9, 4, 4))},
		NICs: append(withVFs(nic("0000:18:00.0"), 2), nic("0000:19:00.0"), nic("0000:1a:00.0")),
	}
	s.NICs[4].Uplink = "carries the default route"
	return s
}

const (
	plainGPU, migmodeGPU = "gpu-0000-17-00-0", "gpu-0000-27-00-0"
	existing             = "gpu-0000-27-00-0-mig-3g-40gb-4"
	unmade               = "gpu-0000-27-00-0-mig-1g-10gb-0"
	sriovPF, firstVF     = "nic-0000-18-00-0", "nic-0000-18-01-0"
	plainNIC, uplinkNIC  = "nic-0000-19-00-0", "nic-0000-1a-00-0"
	plainPair            = "pair-0000-17-00-0-0000-18-01-0"
)

func TestWhatAnAPIServerCannotExpressIsWithheld(t *testing.T) {
	noTaints, noCounters := everything, everything
	noTaints.Taints, noCounters.Counters = false, false
	fault := func(device string) []Taint {
		return []Taint{{Device: device, Key: "hostler.dev/xid", Effect: resourceapi.DeviceTaintEffectNoSchedule}}
	}
	for _, test := range []struct {
		name        string
		in          Input
		there, gone []string
	}{
		{"all features: everything is there", Input{Features: everything, Publish: withPairs},
			[]string{plainGPU, migmodeGPU, existing, unmade, sriovPF, firstVF, plainNIC, uplinkNIC, plainPair}, nil},
		{"without taints: no uplink, no GPU in MIG mode", Input{Features: noTaints},
			[]string{plainGPU, existing, unmade, sriovPF, firstVF, plainNIC}, []string{migmodeGPU, uplinkNIC}},
		{"without taints: no faulty GPU", Input{Features: noTaints, Taints: fault(plainGPU)}, []string{plainNIC}, []string{plainGPU}},
		{"without taints: no partitions of a faulty GPU", Input{Features: noTaints, Taints: fault(migmodeGPU)}, []string{plainGPU}, []string{existing, unmade}},
		{"without taints: no pair with a faulty half", Input{Features: noTaints, Taints: fault(firstVF), Publish: withPairs}, []string{plainGPU}, []string{firstVF, plainPair}},
		{"without taints: a faulty device in use stays", Input{Features: noTaints, Taints: fault(plainGPU), InUse: inUse(plainGPU, uplinkNIC)}, []string{plainGPU, uplinkNIC}, []string{migmodeGPU}},
		{"without taints: a held NIC stays", Input{Features: noTaints, Taints: fault(plainNIC), Held: map[string]topology.NIC{plainNIC: nic("0000:19:00.0")}}, []string{plainNIC}, nil},
		{"without taints: a fault without consequence is none", Input{Features: noTaints, Taints: []Taint{{Device: plainGPU, Key: "hostler.dev/slow", Effect: resourceapi.DeviceTaintEffectNone}}}, []string{plainGPU}, nil},
		{"without counters: only what exists and excludes nothing", Input{Features: noCounters, Publish: withPairs},
			[]string{plainGPU, existing, firstVF, plainNIC, uplinkNIC}, []string{migmodeGPU, unmade, sriovPF, plainPair}},
		{"without counters: a partition of this agent goes when its claim goes", Input{Features: noCounters, Made: map[string]bool{existing: true}}, nil, []string{existing}},
		{"without counters: a partition in use stays", Input{Features: noCounters, Made: map[string]bool{existing: true}, InUse: inUse(existing)}, []string{existing}, []string{unmade}},
		{"without counters: a PF in use stays, and its VFs go", Input{Features: noCounters, InUse: inUse(sriovPF)}, []string{sriovPF}, []string{firstVF}},
		{"without counters: a pair in use stays, and its halves go", Input{Features: noCounters, Publish: withPairs, InUse: map[string]Use{plainPair: {GPU: plainGPU, NIC: firstVF}}, Held: map[string]topology.NIC{firstVF: crowded().NICs[1]}},
			[]string{plainPair, plainNIC}, []string{plainGPU, firstVF, sriovPF}},
		{"nothing optional at all", Input{},
			[]string{plainGPU, existing, firstVF, plainNIC, EgressDevice}, []string{migmodeGPU, unmade, sriovPF, uplinkNIC}},
	} {
		t.Run(test.name, func(t *testing.T) {
			test.in.NodeName, test.in.Snapshot = node, crowded()
			resources := Resources(test.in)
			for _, name := range test.there {
				if find(resources, name) == nil {
					t.Errorf("%s is not published", name)
				}
			}
			for _, name := range test.gone {
				if find(resources, name) != nil {
					t.Errorf("%s is published", name)
				}
			}
			for name, pool := range resources.Pools {
				for _, slice := range pool.Slices {
					if len(slice.SharedCounters) > 0 && !test.in.Features.Counters {
						t.Errorf("pool %s has counters", name)
					}
					for _, d := range slice.Devices {
						if len(d.Taints) > 0 && !test.in.Features.Taints || len(d.ConsumesCounters) > 0 && !test.in.Features.Counters || d.AllowMultipleAllocations != nil && !test.in.Features.SharedDevices {
							t.Errorf("%s has fields that the API server does not know: %+v", d.Name, d)
						}
					}
				}
			}
		})
	}
}

// On the oldest API server the scheduler has no counters to go by, and still
// cannot give anything away twice.
func TestSchedulerWithoutCountersGivesNothingTwice(t *testing.T) {
	in := Input{Snapshot: crowded()}
	run(t, in, allocator.Features134, []step{
		claim("nic-0000-19-00-0 nic-0000-18-01-0 nic-0000-18-01-1", allocator.Request("nic", 3)),
		claim("", allocator.Request("nic", 1)),
		claim(existing, allocator.Request("mig", 1)),
		claim("", allocator.Request("mig", 1)),
		claim(plainGPU, allocator.Request("gpu", 1)),
		claim("", allocator.Request("gpu", 1)),
		claim(EgressDevice, allocator.Request("egress", 1)),
		claim("", allocator.Request("egress", 1)),
	})
}

func TestShortfalls(t *testing.T) {
	faulty := []Taint{{Device: plainGPU, Key: "hostler.dev/xid", Effect: resourceapi.DeviceTaintEffectNoExecute}}
	twoInstances, odd := crowded(), crowded()
	twoInstances.GPUs[1].MIG.Instances[0].ComputeInstances = append(twoInstances.GPUs[1].MIG.Instances[0].ComputeInstances, topology.MIGComputeInstance{})
	odd.GPUs[0].Name = "GPU 0"
	for _, test := range []struct {
		name string
		in   Input
		want []string
	}{
		{"nothing lacks", Input{Features: everything, Snapshot: crowded(), Publish: withPairs, Taints: faulty}, nil},
		{"no snapshot yet", Input{Features: everything}, nil},
		{
			"no taints", Input{Features: Features{Counters: true, SharedDevices: true}, Snapshot: crowded(), Taints: faulty},
			[]string{"the API server lacks DRADeviceTaints (Kubernetes 1.36 or newer): 1 GPU with a fault, 1 GPU in MIG mode as a whole and 1 NIC that the node lives on are not published"},
		},
		{
			"no counters", Input{Features: Features{Taints: true, SharedDevices: true}, Snapshot: crowded(), Publish: withPairs},
			[]string{"the API server lacks DRAPartitionableDevices (Kubernetes 1.36 or newer): 2 pairs, 1 GPU in MIG mode as a whole, 14 MIG partitions that no administrator made and 1 PF with VFs are not published"},
		},
		{
			"lists are wanted, and neither they nor shared devices are there", Input{Features: Features{Taints: true, Counters: true}, Publish: v1alpha1.PublishConfig{NUMANode: v1alpha1.NUMANodeList}},
			[]string{
				"the API server lacks DRAConsumableCapacity (Kubernetes 1.36 or newer): only one claim at a time can have an egress scope on this node",
				"the API server lacks DRAListTypeAttributes: devices have their own NUMA node only, as if publish.numaNode were Scalar",
			},
		},
		{
			"NICs are to be shared, and the API server has no shares", Input{Features: Features{Taints: true, Counters: true}, Publish: sharedNICs},
			[]string{
				"the API server lacks DRAConsumableCapacity (Kubernetes 1.36 or newer): only one claim at a time can have an egress scope on this node",
				"the API server lacks DRAConsumableCapacity (Kubernetes 1.36 or newer): NICs are not shared, as if publish.sharedNICs were false",
			},
		},
		{
			"an instance that is cut further", Input{Features: everything, Snapshot: twoInstances},
			[]string{"MIG instance 14 of GPU gpu-0000-27-00-0 is not published: it has 2 compute instances, and a claim gets one that spans it all"},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := Shortfalls(test.in); !slices.Equal(got, test.want) {
				t.Errorf("got  %q\nwant %q", got, test.want)
			}
		})
	}
	got := Shortfalls(Input{Features: everything, Snapshot: odd})
	if len(got) != 1 || !strings.HasPrefix(got[0], `device "GPU 0" is not published: its name is none that the API server takes (`) {
		t.Errorf("an impossible name: %q", got)
	}
}
