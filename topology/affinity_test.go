package topology_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/hostler-dev/hostler/topology"
)

// below makes a device's place under a chain of switches, nearest to the root first.
func below(s *topology.Snapshot, pci, root string, node int, switches ...string) topology.Placement {
	place := topology.Placement{PCI: pci, PCIeRoot: root, NUMANode: node, Socket: node, Path: []string{"port of " + root}}
	if len(switches) == 0 { // each has a root port of its own then, but for functions of one card
		place.Path = []string{"port to " + pci[:10]}
	}
	for _, upstream := range switches {
		place.PCIeSwitch = upstream
		place.Path = append(place.Path, upstream, "downstream of "+upstream+" to "+pci)
		s.Bridges = append(s.Bridges, topology.Bridge{PCI: upstream, PCIeRoot: root, Port: topology.PortUpstream})
	}
	return place
}

func gpuAt(s *topology.Snapshot, place topology.Placement) string {
	s.GPUs = append(s.GPUs, topology.GPU{Name: topology.GPUName(place.PCI), Placement: place})
	return topology.GPUName(place.PCI)
}

func nicAt(s *topology.Snapshot, place topology.Placement, change ...func(*topology.NIC)) string {
	nic := topology.NIC{Name: topology.NICName(place.PCI), Kind: topology.PF, VFID: -1, Placement: place}
	for _, c := range change {
		c(&nic)
	}
	s.NICs = append(s.NICs, nic)
	return nic.Name
}

func twoNodes() *topology.Snapshot {
	return &topology.Snapshot{NUMANodes: []topology.NUMANode{{ID: 0}, {ID: 1}}}
}

// On an A100 board the GPU's nearest switch holds GPUs only; the NICs hang on the switch above it.
func TestAffinityClimbsToTheSwitchThatHasBothKinds(t *testing.T) {
	s := twoNodes()
	a := gpuAt(s, below(s, "0000:07:00.0", "pci0000:00", 0, "0000:01:00.0", "0000:05:00.0"))
	b := gpuAt(s, below(s, "0000:0f:00.0", "pci0000:00", 0, "0000:01:00.0", "0000:0d:00.0"))
	near := nicAt(s, below(s, "0000:0c:00.0", "pci0000:00", 0, "0000:01:00.0", "0000:0a:00.0"))
	far := nicAt(s, below(s, "0000:4b:00.0", "pci0000:40", 0, "0000:41:00.0"))
	want := map[string]string{a: "switch-0000-01-00-0", b: "switch-0000-01-00-0", near: "switch-0000-01-00-0", far: "switch-0000-41-00-0"}
	if diff := cmp.Diff(want, topology.AffinityGroups(s)); diff != "" {
		t.Error(diff)
	}
}

func TestWithoutASwitchTheRootComplexIsTheGroup(t *testing.T) {
	s := twoNodes()
	gpu, nic := gpuAt(s, below(s, "0000:17:00.0", "pci0000:16", 0)), nicAt(s, below(s, "0000:18:00.0", "pci0000:16", 0))
	if groups := topology.AffinityGroups(s); groups[gpu] != "root-pci0000-16" || groups[nic] != groups[gpu] {
		t.Errorf("groups are %v", groups)
	}
}

// A ConnectX-8 shows its first interface at the CPU's root and reaches the GPU's
// memory by a second one, below the GPU's.
func TestADataDirectNICBelongsWhereItsSecondInterfaceIs(t *testing.T) {
	s := twoNodes()
	gpu := gpuAt(s, below(s, "0009:01:00.0", "pci0009:00", 0, "0009:00:01.0"))
	direct := below(s, "0009:02:00.0", "pci0009:00", 0, "0009:00:01.0")
	nic := nicAt(s, below(s, "0000:03:00.0", "pci0000:00", 1, "0000:01:00.0"), func(n *topology.NIC) { n.DataDirect = &direct })
	plain := nicAt(s, below(s, "0000:04:00.0", "pci0000:00", 1, "0000:01:00.0"))
	groups := topology.AffinityGroups(s)
	if groups[nic] != groups[gpu] || groups[plain] == groups[gpu] {
		t.Errorf("groups are %v", groups)
	}
	if got := topology.Distance(s, nic, gpu).String(); got != "PIX" {
		t.Errorf("the distance is %s, want that of the second interface", got)
	}
	if got := topology.Distance(s, plain, gpu).String(); got != "SYS" {
		t.Errorf("without a second interface the distance is %s", got)
	}
	if pairs := topology.Pairs(s); len(pairs) != 1 || pairs[0].NIC != nic {
		t.Errorf("pairs are %v", pairs)
	}
}

func TestPairs(t *testing.T) {
	vf := func(parent string, id int) func(*topology.NIC) {
		return func(n *topology.NIC) { n.Kind, n.Parent, n.VFID = topology.VF, parent, id }
	}
	vfs := func(n *topology.NIC) { n.NumVFs, n.TotalVFs = 2, 8 }
	uplink := func(n *topology.NIC) { n.Uplink = "carries the default route" }
	for _, test := range []struct {
		name string
		make func(*topology.Snapshot)
		want []string
	}{
		{"the nearest first: a GPU farther away takes what is left", func(s *topology.Snapshot) {
			gpuAt(s, below(s, "0000:01:00.0", "pci0000:00", 0))
			gpuAt(s, below(s, "0000:11:00.0", "pci0000:10", 0, "0000:10:01.0"))
			nicAt(s, below(s, "0000:12:00.0", "pci0000:10", 0, "0000:10:01.0"))
			nicAt(s, below(s, "0000:22:00.0", "pci0000:20", 0))
		}, []string{"pair-0000-01-00-0-0000-22-00-0 NODE", "pair-0000-11-00-0-0000-12-00-0 PIX"}},
		{"an uplink is nobody's", func(s *topology.Snapshot) {
			gpuAt(s, below(s, "0000:01:00.0", "pci0000:00", 0))
			nicAt(s, below(s, "0000:02:00.0", "pci0000:00", 0), uplink)
		}, nil},
		{"the other NUMA node is too far", func(s *topology.Snapshot) {
			gpuAt(s, below(s, "0000:01:00.0", "pci0000:00", 0))
			nicAt(s, below(s, "0000:82:00.0", "pci0000:80", 1))
		}, nil},
		{"a PF that has VFs gives those, one to each GPU", func(s *topology.Snapshot) {
			for _, pci := range []string{"0000:01:00.0", "0000:02:00.0", "0000:03:00.0"} {
				gpuAt(s, below(s, pci, "pci0000:00", 0))
			}
			pf := nicAt(s, below(s, "0000:04:00.0", "pci0000:00", 0), vfs)
			nicAt(s, below(s, "0000:04:00.2", "pci0000:00", 0), vf(pf, 1))
			nicAt(s, below(s, "0000:04:00.3", "pci0000:00", 0), vf(pf, 0))
		}, []string{"pair-0000-01-00-0-0000-04-00-3 PHB", "pair-0000-02-00-0-0000-04-00-2 PHB"}},
		{"equally near NICs are spread", func(s *topology.Snapshot) {
			gpuAt(s, below(s, "0000:01:00.0", "pci0000:00", 0))
			gpuAt(s, below(s, "0000:02:00.0", "pci0000:00", 0))
			for i, pci := range []string{"0000:04:00", "0000:05:00"} {
				pf := nicAt(s, below(s, pci+".0", "pci0000:00", 0), vfs)
				nicAt(s, below(s, pci+".2", "pci0000:00", 0), vf(pf, i))
			}
		}, []string{"pair-0000-01-00-0-0000-04-00-2 PHB", "pair-0000-02-00-0-0000-05-00-2 PHB"}},
		{"of two as near the one of its affinity group", func(s *topology.Snapshot) {
			gpuAt(s, below(s, "0000:07:00.0", "pci0000:00", 0, "0000:01:00.0", "0000:05:00.0"))
			gpuAt(s, below(s, "0000:0f:00.0", "pci0000:00", 0, "0000:01:00.0", "0000:0a:00.0", "0000:0d:00.0"))
			nicAt(s, below(s, "0000:0c:00.0", "pci0000:00", 0, "0000:01:00.0", "0000:0a:00.0", "0000:0b:00.0"))
			nicAt(s, below(s, "0000:12:00.0", "pci0000:00", 0, "0000:01:00.0", "0000:11:00.0"))
		}, []string{"pair-0000-07-00-0-0000-12-00-0 PXB", "pair-0000-0f-00-0-0000-0c-00-0 PXB"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := twoNodes()
			test.make(s)
			var got []string
			for _, pair := range topology.Pairs(s) {
				got = append(got, fmt.Sprintf("%s %s", pair.Name, pair.Distance))
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestRails(t *testing.T) {
	s := twoNodes()
	first := gpuAt(s, below(s, "0000:01:00.0", "pci0000:00", 0, "0000:00:01.0"))
	second := gpuAt(s, below(s, "0000:11:00.0", "pci0000:10", 0, "0000:10:01.0"))
	alone := gpuAt(s, below(s, "0000:81:00.0", "pci0000:80", 1, "0000:80:01.0"))
	port0 := nicAt(s, below(s, "0000:12:00.0", "pci0000:10", 0, "0000:10:01.0"))
	port1 := nicAt(s, below(s, "0000:12:00.1", "pci0000:10", 0, "0000:10:01.0"))
	other := nicAt(s, below(s, "0000:02:00.0", "pci0000:00", 0, "0000:00:01.0"))
	vf := nicAt(s, below(s, "0000:02:00.2", "pci0000:00", 0, "0000:00:01.0"), func(n *topology.NIC) { n.Kind, n.Parent = topology.VF, other })
	storage := nicAt(s, below(s, "0000:22:00.0", "pci0000:20", 0))
	want := map[string]int{first: 0, other: 0, vf: 0, second: 1, port0: 1, port1: 1}
	if diff := cmp.Diff(want, topology.Rails(s)); diff != "" {
		t.Errorf("%s and %s have no rail: %s", alone, storage, diff)
	}
}

// shuffled is the same machine as another boot enumerates it, sorted as discovery sorts.
func shuffled(s *topology.Snapshot, seed uint64) *topology.Snapshot {
	other := *s
	random := rand.New(rand.NewPCG(seed, 0))
	other.Bridges = slices.Clone(s.Bridges)
	random.Shuffle(len(other.Bridges), func(i, j int) { other.Bridges[i], other.Bridges[j] = other.Bridges[j], other.Bridges[i] })
	other.GPUs = slices.Clone(s.GPUs)
	for i := range other.GPUs {
		other.GPUs[i].Index = len(other.GPUs) - i
		links := slices.Clone(other.GPUs[i].NVLinks)
		random.Shuffle(len(links), func(i, j int) { links[i], links[j] = links[j], links[i] })
		other.GPUs[i].NVLinks = links
	}
	return &other
}

func TestGroupsDoNotDependOnEnumeration(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := machines().Draw(t, "machine")
		other := shuffled(s, rapid.Uint64().Draw(t, "seed"))
		for what, answer := range map[string]func(*topology.Snapshot) any{
			"islands": func(s *topology.Snapshot) any { return topology.NVLinkIslands(s) },
			"groups":  func(s *topology.Snapshot) any { return topology.AffinityGroups(s) },
			"pairs":   func(s *topology.Snapshot) any { return topology.Pairs(s) },
			"rails":   func(s *topology.Snapshot) any { return topology.Rails(s) },
		} {
			if diff := cmp.Diff(answer(s), answer(other)); diff != "" {
				t.Fatalf("%s depend on the order of enumeration: %s", what, diff)
			}
		}
	})
}

// No GPU and NIC would both rather have each other than what they were given.
func TestPairsAreStable(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := machines().Draw(t, "machine")
		partner := map[string]topology.DistanceClass{}
		for _, pair := range topology.Pairs(s) {
			for _, name := range []string{pair.GPU, pair.NIC} {
				if _, twice := partner[name]; twice {
					t.Fatalf("%s is in two pairs", name)
				}
				partner[name] = pair.Distance
			}
		}
		for _, gpu := range s.GPUs {
			for _, nic := range s.NICs {
				class := topology.Distance(s, gpu.Name, nic.Name).Class
				rather := func(name string) bool {
					given, paired := partner[name]
					return !paired || class.Rank() < given.Rank()
				}
				if class.Rank() <= topology.DistanceNode.Rank() && rather(gpu.Name) && rather(nic.Name) {
					t.Fatalf("%s and %s are %s apart and not together", gpu.Name, nic.Name, class)
				}
			}
		}
	})
}

func TestAGroupIsSharedByWhateverSharesTheNearestSwitch(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := machines().Draw(t, "machine")
		groups := topology.AffinityGroups(s)
		if len(groups) != len(s.GPUs)+len(s.NICs) {
			t.Fatalf("%d of %d devices have a group", len(groups), len(s.GPUs)+len(s.NICs))
		}
		for _, gpu := range s.GPUs {
			for _, nic := range s.NICs {
				same := gpu.Placement.PCIeSwitch != "" && gpu.Placement.PCIeSwitch == nic.Placement.PCIeSwitch
				if same && groups[gpu.Name] != groups[nic.Name] {
					t.Fatalf("%s and %s are below %s but in groups %s and %s", gpu.Name, nic.Name, gpu.Placement.PCIeSwitch, groups[gpu.Name], groups[nic.Name])
				}
				if gpu.Placement.PCIeRoot != nic.Placement.PCIeRoot && groups[gpu.Name] == groups[nic.Name] {
					t.Fatalf("%s and %s share no root complex but the group %s", gpu.Name, nic.Name, groups[gpu.Name])
				}
			}
		}
	})
}

func TestPartitionNamesAreLabelsAndDistinct(t *testing.T) {
	gpu := topology.GPU{Name: topology.GPUName("10000:17:1f.7"), MIG: &topology.MIG{}}
	for id, name := range []string{"1g.24gb", "1g.24gb+me", "1g.24gb-me", "1g.24gb+gfx", "1g.24gb+me.all", "4g.96gb", "1g.10gb", "1g.1gb0"} {
		gpu.MIG.Profiles = append(gpu.MIG.Profiles, topology.MIGProfile{Name: name, ID: id, Placements: []topology.MIGPlacement{{Start: 0, Size: 1}, {Start: 11, Size: 1}}})
	}
	seen := map[string]bool{}
	for _, p := range topology.Partitions(&gpu) {
		if seen[p.Name] || len(p.Name) > 63 || p.Name != string(slices.DeleteFunc([]byte(p.Name), func(b byte) bool {
			return (b < 'a' || b > 'z') && (b < '0' || b > '9') && b != '-'
		})) {
			t.Errorf("%q is no name of its own", p.Name)
		}
		seen[p.Name] = true
	}
}
