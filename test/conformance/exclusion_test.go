package conformance

// What shares hardware is given away once: a pair and its halves, a PF and its VFs,
// a MIG GPU and what it is cut into.

import (
	"cmp"
	"slices"
	"testing"

	"github.com/hostler-dev/hostler/api/v1alpha1"
	"github.com/hostler-dev/hostler/test/allocator"
	"github.com/hostler-dev/hostler/test/machine"
	"github.com/hostler-dev/hostler/topology"
)

// pairClaims take all pairs. Each is what the graph calls one; its halves are gone with it.
func pairClaims(t *testing.T, n *node) {
	whole := n.wholeGPUs()
	s := n.scheduler(withPairs)
	var want, got []string
	for _, pair := range topology.Pairs(n.snapshot) {
		if whole[pair.GPU] {
			want = append(want, pair.GPU+" with "+pair.NIC)
		}
	}
	for _, devices := range s.all(t, allocator.Request("pair", 1)) {
		pair := s.devices[devices[0]]
		gpu, nic := value(pair, own+"gpuName"), value(pair, own+"nicName")
		got = append(got, gpu+" with "+nic)
		n.neighbours(t, gpu, n.snapshot.NIC(nic), value(pair, own+"distance"))
		s.refused(t, gpu+" is in a pair that is taken", allocator.Request("gpu", 1, at(n.snapshot.GPU(gpu).Placement.PCI)))
		s.refused(t, nic+" is in a pair that is taken", allocator.Request("nic", 1, at(n.snapshot.NIC(nic).Placement.PCI)))
	}
	same(t, "pairs that the scheduler gives", want, got)
}

// neighbours are, by the published topology, a GPU and a NIC of its own rail, or a VF
// of a PF on its NUMA node, since that can serve several GPUs.
func (n *node) neighbours(t *testing.T, gpu string, nic *topology.NIC, distance string) {
	t.Helper()
	pf := nic.Name
	if nic.Kind == topology.VF {
		pf = nic.Parent
	}
	if cell := n.want.Cell(gpu, pf); cell == "SYS" || cell != "" && cell != distance {
		t.Errorf("the pair of %s and %s is published as %q apart, and %s by the matrix", gpu, nic.Name, distance, cell)
	}
	if nic.Kind != topology.VF && n.want.Rails[pf] != gpu {
		t.Errorf("%s was paired with %s, which is not on its rail: that has %v", gpu, pf, keysOf(n.want.Rails, gpu))
	}
}

// functionClaims try the first and the last PF that has VFs.
func functionClaims(t *testing.T, n *node) {
	var pfs []machine.NIC
	for _, nic := range n.Profile.NICs {
		if len(nic.VFs) > 0 && !slices.Contains(n.want.Uplinks, topology.NICName(nic.PCI)) {
			pfs = append(pfs, nic)
		}
	}
	for i := 0; i < len(pfs); i += max(1, len(pfs)-1) {
		pf, vf := allocator.Request("nic", 1, at(pfs[i].PCI)), allocator.Request("nic", 1, at(pfs[i].VFs[0].PCI))
		vfs := allocator.Request("nic", 1, attribute("pfName", topology.NICName(pfs[i].PCI)))

		s := n.scheduler(v1alpha1.PublishConfig{})
		if s.ask(t, pf) == nil {
			t.Errorf("the free PF %s was not given to a claim", pfs[i].PCI)
		}
		s.refused(t, "the PF "+pfs[i].PCI+" is taken with all its VFs", vfs)

		s = n.scheduler(v1alpha1.PublishConfig{})
		if s.ask(t, vf) == nil {
			t.Errorf("the free VF %s was not given to a claim", pfs[i].VFs[0].PCI)
		}
		s.refused(t, "a VF of "+pfs[i].PCI+" is taken, and with it the PF", pf)
		rest := min(len(pfs[i].VFs)-1, 3)
		for range rest {
			if s.ask(t, vfs) == nil {
				t.Errorf("a VF of %s is taken, and now no other can be had", pfs[i].PCI)
			}
		}
	}
}

// fits is how many partitions of a profile a GPU has room for, if no other is asked for.
type fits map[string]int

// cuts are written down by hand from NVIDIA's MIG User Guide ("A100 MIG Profiles") and
// the instances that the profile gives each GPU (test/machine/profiles).
var cuts = map[string]fits{
	// 3g at slice 4 and 1g at slice 0 exist; slices 1 to 3 and three of seven engines are free.
	"0000:47:00.0": {"1g.5gb": 4, "1g.5gb+me": 1, "1g.10gb": 1, "2g.10gb": 1, "3g.20gb": 1, "4g.20gb": 0, "7g.40gb": 0},
	// Seven times 1g exist.
	"0000:4e:00.0": {"1g.5gb": 7, "1g.5gb+me": 0, "1g.10gb": 0, "2g.10gb": 0, "3g.20gb": 0, "4g.20gb": 0, "7g.40gb": 0},
	// 3g at slice 0 in three compute instances, which is nobody's to give, and 2g at slice 4; 6 and 7
	// are free, where 1g can be but 2g cannot.
	"0000:87:00.0": {"1g.5gb": 1, "1g.5gb+me": 1, "1g.10gb": 1, "2g.10gb": 1, "3g.20gb": 0, "4g.20gb": 0, "7g.40gb": 0},
	// Not cut.
	"0000:90:00.0": {"1g.5gb": 7, "1g.5gb+me": 1, "1g.10gb": 4, "2g.10gb": 3, "3g.20gb": 2, "4g.20gb": 1, "7g.40gb": 1},
}

func partitionClaims(t *testing.T, n *node) {
	for _, gpu := range n.Profile.GPUs {
		if gpu.MIG == nil {
			continue
		}
		n.scheduler(v1alpha1.PublishConfig{}).refused(t, gpu.PCI+" is in MIG mode and of no use as a whole", allocator.Request("gpu", 1, at(gpu.PCI)))
		room, known := cuts[gpu.PCI]
		if !known {
			t.Errorf("%s is in MIG mode, and nobody wrote down what fits on it (cuts)", gpu.PCI)
		}
		for _, profile := range n.Profile.GPUModel.MIGProfiles {
			got := n.scheduler(v1alpha1.PublishConfig{}).all(t, partition(gpu, profile.Name))
			if len(got) != room[profile.Name] {
				t.Errorf("%s fits %d times on %s, and %d claims were served: %v", profile.Name, room[profile.Name], gpu.PCI, len(got), got)
			}
		}
		n.existing(t, gpu)
		if len(gpu.MIG.Instances) == 0 {
			n.largest(t, gpu)
		}
		n.besideNIC(t, gpu)
	}
}

func partition(gpu machine.GPU, profile string) allocator.Part {
	return allocator.Request("mig", 1, at(gpu.PCI), attribute("migProfile", profile))
}

// existing instances can be had by their UUID, once, if one compute instance spans them.
func (n *node) existing(t *testing.T, gpu machine.GPU) {
	t.Helper()
	offered, found := map[string]bool{}, n.snapshot.GPU(topology.GPUName(gpu.PCI)).MIG.Instances
	for _, instance := range found {
		for _, compute := range instance.ComputeInstances {
			offered[compute.UUID] = len(instance.ComputeInstances) == 1
		}
	}
	if len(found) != len(gpu.MIG.Instances) {
		t.Errorf("%d instances were found on %s, and it has %d", len(found), gpu.PCI, len(gpu.MIG.Instances))
	}
	for uuid, can := range offered {
		s := n.scheduler(v1alpha1.PublishConfig{})
		exactly := allocator.Request("mig", 1, attribute("uuid", uuid))
		if got := s.ask(t, exactly); can != (got != nil) {
			t.Errorf("the MIG device %s of %s is offered: %t; a claim for it got %s", uuid, gpu.PCI, can, given(got))
		}
		s.refused(t, uuid+" is taken, or not offered", exactly)
	}
}

// largest takes an empty GPU as one partition, and another time only its smallest.
func (n *node) largest(t *testing.T, gpu machine.GPU) {
	t.Helper()
	bySize := func(a, b machine.MIGProfile) int { return cmp.Compare(a.Size, b.Size) }
	all := slices.MaxFunc(n.Profile.GPUModel.MIGProfiles, bySize).Name
	little := slices.MinFunc(n.Profile.GPUModel.MIGProfiles, bySize).Name
	s := n.scheduler(v1alpha1.PublishConfig{})
	if s.ask(t, partition(gpu, all)) == nil {
		t.Errorf("%s is empty and was not given as one %s", gpu.PCI, all)
	}
	for _, profile := range n.Profile.GPUModel.MIGProfiles {
		s.refused(t, gpu.PCI+" is taken as one "+all, partition(gpu, profile.Name))
	}
	s = n.scheduler(v1alpha1.PublishConfig{})
	if s.ask(t, partition(gpu, little)) == nil {
		t.Errorf("%s is empty and has no %s to give", gpu.PCI, little)
	}
	s.refused(t, "a "+little+" of "+gpu.PCI+" is taken", partition(gpu, all))
}

// besideNIC wants a partition to be as near to NICs as its GPU.
func (n *node) besideNIC(t *testing.T, gpu machine.GPU) {
	t.Helper()
	name := topology.GPUName(gpu.PCI)
	got := n.scheduler(v1alpha1.PublishConfig{}).ask(t, allocator.Request("mig", 1, at(gpu.PCI)), allocator.Request("nic", 1), allocator.Match(own+"affinityGroup"))
	for _, group := range n.want.AffinityGroups {
		if slices.Contains(group.GPUs, name) && (len(got) != 2 || !slices.Contains(group.NICs, got[1])) {
			t.Errorf("a claim for a partition of %s and a NIC beside it got %s; beside it are %v", name, given(got), group.NICs)
		}
	}
}
