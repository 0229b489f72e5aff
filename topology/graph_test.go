package topology_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/hostler-dev/hostler/topology"
)

func TestDistancesOfADGX1(t *testing.T) {
	s := dgx1()
	gpu := func(i int) string { return s.GPUs[i].Name }
	nic := func(i int) string { return s.NICs[i].Name }
	for _, c := range []struct{ name, a, b, want string }{
		{"itself", gpu(0), gpu(0), "X"},
		{"two links straight to the neighbour", gpu(0), gpu(3), "NV2"},
		{"NVLink to the other socket", gpu(0), gpu(4), "NV2"},
		{"no link to the other socket", gpu(0), gpu(5), "SYS"},
		{"a NIC below the same switch", gpu(1), nic(0), "PIX"},
		{"a NIC below another switch of the same root complex", gpu(0), nic(1), "PHB"},
		{"a NIC of the other socket", gpu(0), nic(2), "SYS"},
		{"a device that does not exist", gpu(0), "gpu-nowhere", "?"},
	} {
		if got := topology.Distance(s, c.a, c.b).String(); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

func TestAffinityGroupsOfADGX1(t *testing.T) {
	s := dgx1()
	groups := topology.AffinityGroups(s)
	for i, gpu := range s.GPUs {
		if want := groups[s.NICs[i/2].Name]; groups[gpu.Name] != want || want == "" {
			t.Errorf("%s is in group %q, its NIC in %q", gpu.Name, groups[gpu.Name], want)
		}
	}
}

func TestIslands(t *testing.T) {
	s := dgx1()
	all := make([]string, len(s.GPUs))
	for i := range s.GPUs {
		all[i] = s.GPUs[i].Name
	}
	if diff := cmp.Diff([][]string{all}, topology.NVLinkIslands(s)); diff != "" {
		t.Errorf("a hybrid cube mesh is one island although not all GPUs are neighbours: %s", diff)
	}
	for i := range s.GPUs { // cut the four links between the sockets
		s.GPUs[i].NVLinks = slices.DeleteFunc(s.GPUs[i].NVLinks, func(l topology.NVLink) bool {
			return (l.PeerPCI > "0000:80") != (s.GPUs[i].Placement.PCI > "0000:80")
		})
	}
	if diff := cmp.Diff([][]string{all[:4], all[4:]}, topology.NVLinkIslands(s)); diff != "" {
		t.Error(diff)
	}
	for i := range s.GPUs {
		s.GPUs[i].NVLinks = nil
	}
	if got := topology.NVLinkIslands(s); len(got) != 8 {
		t.Errorf("without links there are %d islands, want one for each GPU", len(got))
	}
}

func TestGPUsOfTwoFabricPartitionsAreNotJoined(t *testing.T) {
	s := &topology.Snapshot{}
	for i := range 4 {
		pci := fmt.Sprintf("0000:%d0:00.0", i+1)
		s.GPUs = append(s.GPUs, topology.GPU{
			Name: topology.GPUName(pci), Placement: topology.Placement{PCI: pci, NUMANode: -1},
			Fabric:  &topology.Fabric{CliqueID: uint32(i / 2), State: "Completed"},
			NVLinks: []topology.NVLink{{Active: true, Peer: topology.NVLinkPeerSwitch}, {Link: 1, Active: i != 3, Peer: topology.NVLinkPeerSwitch}},
		})
	}
	if got := topology.Distance(s, s.GPUs[0].Name, s.GPUs[1].Name).String(); got != "NV2" {
		t.Errorf("within a clique the distance is %s", got)
	}
	if got := topology.Distance(s, s.GPUs[2].Name, s.GPUs[3].Name).String(); got != "NV1" {
		t.Errorf("with a link down on one side the distance is %s", got)
	}
	if got := topology.NVLinkIslands(s); len(got) != 2 {
		t.Errorf("islands are %v", got)
	}
	s.GPUs[1].Fabric.State = topology.FabricFailed
	if got := topology.Distance(s, s.GPUs[1].Name, s.GPUs[0].Name).String(); strings.HasPrefix(got, "NV") {
		t.Errorf("to a GPU that could not join the fabric the distance is %s", got)
	}
	if got := topology.NVLinkIslands(s); len(got) != 3 {
		t.Errorf("with a GPU that could not join the islands are %v", got)
	}
}

// machines draws consistent machines of any shape: devices at random places of
// a tree of nodes, roots, ports and switches, and random links between GPUs.
func machines() *rapid.Generator[*topology.Snapshot] {
	return rapid.Custom(func(t *rapid.T) *topology.Snapshot {
		s := &topology.Snapshot{NUMANodes: []topology.NUMANode{{ID: 0}, {ID: 1}}}
		for i := range rapid.IntRange(0, 12).Draw(t, "devices") {
			node := rapid.IntRange(0, 1).Draw(t, "node")
			root := fmt.Sprintf("pci000%d:%d0", node, rapid.IntRange(0, 1).Draw(t, "root"))
			path := []string{root + "-port" + rapid.SampledFrom([]string{"1", "2"}).Draw(t, "port")}
			place := topology.Placement{PCI: fmt.Sprintf("0000:%02x:00.0", i), PCIeRoot: root, NUMANode: node, Socket: node}
			for range rapid.IntRange(0, 2).Draw(t, "switches") {
				place.PCIeSwitch = path[len(path)-1] + "-up" + rapid.SampledFrom([]string{"1", "2"}).Draw(t, "switch")
				s.Bridges = append(s.Bridges, topology.Bridge{PCI: place.PCIeSwitch, PCIeRoot: root, Port: topology.PortUpstream})
				path = append(path, place.PCIeSwitch, fmt.Sprintf("%s-down%d", place.PCIeSwitch, rapid.IntRange(0, 1).Draw(t, "down")))
			}
			place.Path = path
			if rapid.Bool().Draw(t, "isGPU") {
				s.GPUs = append(s.GPUs, topology.GPU{Name: topology.GPUName(place.PCI), Placement: place})
			} else {
				s.NICs = append(s.NICs, topology.NIC{Name: topology.NICName(place.PCI), Kind: topology.PF, Placement: place})
			}
		}
		for i := range s.GPUs {
			for j := range i {
				for range rapid.IntRange(-4, 2).Draw(t, "links") {
					s.GPUs[i].NVLinks = append(s.GPUs[i].NVLinks, topology.NVLink{Active: true, Peer: topology.NVLinkPeerGPU, PeerPCI: s.GPUs[j].Placement.PCI})
					s.GPUs[j].NVLinks = append(s.GPUs[j].NVLinks, topology.NVLink{Active: true, Peer: topology.NVLinkPeerGPU, PeerPCI: s.GPUs[i].Placement.PCI})
				}
			}
		}
		return s
	})
}

func names(s *topology.Snapshot) []string {
	var all []string
	for _, gpu := range s.GPUs {
		all = append(all, gpu.Name)
	}
	for _, nic := range s.NICs {
		all = append(all, nic.Name)
	}
	return all
}

func TestDistanceIsSymmetric(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := machines().Draw(t, "machine")
		for _, a := range names(s) {
			for _, b := range names(s) {
				if ab, ba := topology.Distance(s, a, b), topology.Distance(s, b, a); ab != ba {
					t.Fatalf("%s to %s is %s, back %s", a, b, ab, ba)
				}
			}
		}
	})
}

// On PCIe no way is longer than the longer leg of a detour: the classes nest.
func TestPCIeDistancesNest(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := machines().Draw(t, "machine")
		for i := range s.GPUs {
			s.GPUs[i].NVLinks = nil
		}
		rank := func(a, b string) int { return topology.Distance(s, a, b).Class.Rank() }
		for _, a := range names(s) {
			for _, b := range names(s) {
				for _, c := range names(s) {
					if rank(a, c) > max(rank(a, b), rank(b, c)) {
						t.Fatalf("%s–%s is %s, but over %s it is %s and %s", a, c, topology.Distance(s, a, c), b, topology.Distance(s, a, b), topology.Distance(s, b, c))
					}
				}
			}
		}
	})
}

func TestIslandsPartitionTheGPUs(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := machines().Draw(t, "machine")
		island := map[string]int{}
		for i, members := range topology.NVLinkIslands(s) {
			for _, name := range members {
				if _, twice := island[name]; twice {
					t.Fatalf("%s is in two islands", name)
				}
				island[name] = i
			}
		}
		if len(island) != len(s.GPUs) {
			t.Fatalf("islands hold %d of %d GPUs", len(island), len(s.GPUs))
		}
		for _, a := range s.GPUs {
			for _, b := range s.GPUs {
				if topology.Distance(s, a.Name, b.Name).Class == topology.DistanceNVLink && island[a.Name] != island[b.Name] {
					t.Fatalf("%s and %s are joined but on two islands", a.Name, b.Name)
				}
			}
		}
	})
}

func TestNamesAreUnique(t *testing.T) {
	address := rapid.Custom(func(t *rapid.T) string {
		return fmt.Sprintf("%04x:%02x:%02x.%x", rapid.Uint32().Draw(t, "domain"), rapid.Uint8().Draw(t, "bus"),
			rapid.IntRange(0, 31).Draw(t, "device"), rapid.IntRange(0, 7).Draw(t, "function"))
	})
	rapid.Check(t, func(t *rapid.T) {
		a, b := address.Draw(t, "a"), address.Draw(t, "b")
		if (topology.GPUName(a) == topology.GPUName(b)) != (a == b) || topology.GPUName(a) == topology.NICName(a) {
			t.Fatalf("%s and %s have the names %s and %s", a, b, topology.GPUName(a), topology.GPUName(b))
		}
	})
}

func TestCanonicalPCI(t *testing.T) {
	for in, want := range map[string]string{
		"00000000:17:00.0": "0000:17:00.0", "0000:AF:1f.7": "0000:af:1f.7", " 0000:17:00.0\n": "0000:17:00.0", "10000:01:00.0": "10000:01:00.0",
		"0000:17:00.0x": "", "0000:17:00": "", "17:00.0": "", "0000:17:20.0": "", "0000:17:00.8": "", "0000:100:00.0": "", "0000:+1:00.0": "", "": "",
	} {
		got, err := topology.CanonicalPCI(in)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%q becomes %q (%v), want %q", in, got, err, want)
		}
	}
}

func FuzzCanonicalPCI(f *testing.F) {
	for _, seed := range []string{"00000000:17:00.0", "0000:af:1f.7", "0:0:0.0", "0000:17:00.0 ", "ffffffff:ff:1f.7"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, address string) {
		pci, err := topology.CanonicalPCI(address)
		if err != nil {
			return
		}
		if again, err := topology.CanonicalPCI(pci); err != nil || again != pci {
			t.Errorf("%q becomes %q, and that %q (%v)", address, pci, again, err)
		}
	})
}
