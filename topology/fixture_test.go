package topology_test

// Machines written down by hand, for what needs no sysfs.

import (
	"fmt"

	"github.com/hostler-dev/hostler/topology"
)

// dgx1 is a DGX-1 with V100: eight GPUs in a hybrid cube mesh of six NVLinks
// each, four NICs, each behind the switch of two GPUs. Links and distances are
// those of the machine's widely published `nvidia-smi topo -m`; bus numbers are made up.
func dgx1() *topology.Snapshot {
	mesh := map[[2]int]int{
		{0, 1}: 1, {0, 2}: 1, {0, 3}: 2, {0, 4}: 2, {1, 2}: 2, {1, 3}: 1, {1, 5}: 2, {2, 3}: 2, {2, 6}: 1, {3, 7}: 1,
		{4, 5}: 1, {4, 6}: 1, {4, 7}: 2, {5, 6}: 2, {5, 7}: 1, {6, 7}: 2,
	}
	s := &topology.Snapshot{
		Driver: topology.Driver{State: topology.DriverReady, Version: "570.124.06"},
		NUMANodes: []topology.NUMANode{
			{ID: 0, Socket: 0, CPUs: "0-19,40-59", Distances: []int{10, 21}}, {ID: 1, Socket: 1, CPUs: "20-39,60-79", Distances: []int{21, 10}},
		},
	}
	place := func(pci string, switchNumber int) topology.Placement {
		root := []string{"pci0000:00", "pci0000:00", "pci0000:80", "pci0000:80"}[switchNumber]
		port, upstream := fmt.Sprintf("%s:%02x.0", root[3:], switchNumber+1), fmt.Sprintf("0000:%02x:00.0", switchNumber+2)
		return topology.Placement{
			PCI: pci, PCIeRoot: root, PCIeSwitch: upstream, Path: []string{port, upstream, "downstream of " + pci},
			NUMANode: switchNumber / 2, Socket: switchNumber / 2,
		}
	}
	addresses := []string{"0000:06:00.0", "0000:07:00.0", "0000:0a:00.0", "0000:0b:00.0", "0000:85:00.0", "0000:86:00.0", "0000:89:00.0", "0000:8a:00.0"}
	for i, pci := range addresses {
		gpu := topology.GPU{
			Name: topology.GPUName(pci), Index: i, Minor: i, UUID: fmt.Sprintf("GPU-%d", i), ProductName: "Tesla V100-SXM2-32GB",
			MemoryBytes: 32 << 30, Placement: place(pci, i/2),
		}
		for j, peer := range addresses {
			for range mesh[[2]int{min(i, j), max(i, j)}] {
				gpu.NVLinks = append(gpu.NVLinks, topology.NVLink{
					Link: len(gpu.NVLinks), Active: true, Version: 2, Peer: topology.NVLinkPeerGPU, PeerPCI: peer,
				})
			}
		}
		s.GPUs = append(s.GPUs, gpu)
	}
	for i, pci := range []string{"0000:05:00.0", "0000:0c:00.0", "0000:84:00.0", "0000:8b:00.0"} {
		s.NICs = append(s.NICs, topology.NIC{
			Name: topology.NICName(pci), Kind: topology.PF, VFID: -1, Placement: place(pci, i),
			RDMA: &topology.RDMADevice{Name: fmt.Sprintf("mlx5_%d", i), Ports: []topology.RDMAPort{
				{Port: 1, State: "ACTIVE", LinkLayer: "InfiniBand", Rate: "100 Gb/sec (4X EDR)"},
			}},
		})
	}
	return s
}
