package topology_test

// More machines written down by hand: what the drawings must cope with.

import (
	"fmt"
	"net/netip"

	"github.com/hostler-dev/hostler/topology"
)

// numaNodes of that many sockets, one each.
func numaNodes(sockets int) []topology.NUMANode {
	var nodes []topology.NUMANode
	for i := range sockets {
		node := topology.NUMANode{ID: i, Socket: i, CPUs: fmt.Sprintf("%d-%d", 64*i, 64*i+63)}
		for j := range sockets {
			distance := 10
			if i != j {
				distance = 32
			}
			node.Distances = append(node.Distances, distance)
		}
		nodes = append(nodes, node)
	}
	return nodes
}

// sixteenPFs is a node without GPUs: 16 PFs on root complexes of their own, 128 VFs each.
func sixteenPFs() *topology.Snapshot {
	s := &topology.Snapshot{Driver: topology.Driver{State: topology.DriverMissing}, NUMANodes: numaNodes(2)}
	for i := range 16 {
		bus := 0x10 + 8*i
		place := func(pci string) topology.Placement {
			return topology.Placement{PCI: pci, PCIeRoot: fmt.Sprintf("pci0000:%02x", bus), Path: []string{fmt.Sprintf("0000:%02x:01.0", bus)}, NUMANode: i / 8, Socket: i / 8}
		}
		pf := fmt.Sprintf("0000:%02x:00.0", bus+1)
		s.NICs = append(s.NICs, topology.NIC{
			Name: topology.NICName(pf), Kind: topology.PF, VFID: -1, NumVFs: 128, TotalVFs: 128, Placement: place(pf),
			Link: &topology.Link{Name: fmt.Sprintf("enp%ds0np0", bus+1), Type: "ethernet", SpeedMbps: 200000, Up: i != 3},
			RDMA: &topology.RDMADevice{Name: fmt.Sprintf("mlx5_%d", i)},
		})
		for v := range 128 {
			vf := fmt.Sprintf("0000:%02x:%02x.%d", bus+1+(v+2)/256, (v+2)/8%32, (v+2)%8)
			s.NICs = append(s.NICs, topology.NIC{
				Name: topology.NICName(vf), Kind: topology.VF, Parent: topology.NICName(pf), VFID: v, Placement: place(vf),
				Link: &topology.Link{Name: fmt.Sprintf("enp%ds0v%d", bus+1, v), Type: "ethernet", Up: true},
			})
		}
	}
	return s
}

// smallCloud is a node of four NUMA nodes on two sockets, with two levels of
// switches, GPUs of two products cut into partitions, a Data Direct NIC and an uplink that is a VLAN on a bond.
func smallCloud() *topology.Snapshot {
	s := &topology.Snapshot{
		Driver: topology.Driver{State: topology.DriverReady, Version: "580.82.07", CUDAVersion: "13.0"}, NUMANodes: numaNodes(4),
		Problems: []topology.Problem{{Subject: "/sys/class/net/eno3", Message: "speed cannot be read: invalid argument"}},
	}
	for i := range s.NUMANodes {
		s.NUMANodes[i].Socket = i / 2
	}
	place := func(pci, root string, node int, path ...string) topology.Placement {
		p := topology.Placement{PCI: pci, PCIeRoot: root, Path: path, NUMANode: node, Socket: node / 2, IOMMUGroup: fmt.Sprint(len(s.GPUs) + len(s.NICs))}
		if len(path) > 1 {
			p.PCIeSwitch = path[len(path)-2]
		}
		return p
	}
	for _, pci := range []string{"0000:12:00.0", "0000:14:00.0", "0000:16:00.0"} {
		s.Bridges = append(s.Bridges, topology.Bridge{PCI: pci, Port: topology.PortUpstream})
	}
	for i, pci := range []string{"0000:18:00.0", "0000:19:00.0", "0000:1b:00.0", "0000:1c:00.0", "0001:01:00.0"} {
		gpu := topology.GPU{
			Name: topology.GPUName(pci), Index: i, Minor: i, ProductName: "NVIDIA A100-SXM4-40GB", MemoryBytes: 40 << 30, MIGEnabled: i > 0 && i < 4,
			Placement: place(pci, "pci0000:10", 0, "0000:10:01.0", "0000:12:00.0", "0000:13:00.0", fmt.Sprintf("0000:%d:00.0", 14+i/2*2), "0000:17:00.0"),
		}
		if i == 4 {
			gpu.ProductName, gpu.MemoryBytes = "NVIDIA RTX PRO 6000 Blackwell Server Edition", 96<<30
			gpu.Placement = place(pci, "pci0001:00", 2, "0001:00:01.0")
		}
		if gpu.MIGEnabled {
			gpu.MIG = a100Partitions()
			gpu.MIG.Instances = gpu.MIG.Instances[:[]int{0, 2, 3, 0}[i]]
		}
		s.GPUs = append(s.GPUs, gpu)
	}
	for i, pci := range []string{"0000:1a:00.0", "0000:1d:00.0", "0000:31:00.0", "0000:31:00.1", "0001:05:00.0"} {
		nic := topology.NIC{
			Name: topology.NICName(pci), Kind: topology.PF, VFID: -1, Driver: "mlx5_core",
			Link: &topology.Link{Name: fmt.Sprintf("eth%d", i), Type: "ethernet", SpeedMbps: 25000, Up: true},
			RDMA: &topology.RDMADevice{Name: fmt.Sprintf("mlx5_%d", i)},
		}
		switch {
		case i < 2:
			nic.Placement = place(pci, "pci0000:10", 0, "0000:10:01.0", "0000:12:00.0", "0000:13:00.0", fmt.Sprintf("0000:%d:00.0", 14+i*2), "0000:17:00.0")
		case i < 4:
			nic.Placement = place(pci, "pci0000:30", 1, "0000:30:01.0")
			nic.Uplink = "is below bond0, which is below bond0.100, which carries the default route 0.0.0.0/0"
		default:
			nic.Placement = place(pci, "pci0001:04", 3, "0001:04:01.0")
			direct := place("0001:02:00.0", "pci0001:00", 2, "0001:00:03.0")
			nic.DataDirect = &direct
			nic.Link = nil
		}
		s.NICs = append(s.NICs, nic)
	}
	s.StackedLinks = []topology.StackedLink{
		{Name: "bond0", Kind: "bond", Lower: []string{"eth2", "eth3"}, Up: true, Uplink: "is below bond0.100, which carries the default route 0.0.0.0/0"},
		{Name: "bond0.100", Kind: "vlan", Lower: []string{"bond0"}, Up: true, Uplink: "carries the default route 0.0.0.0/0 via bond0.100", Addresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.17/24")}},
		{Name: "bond0.200", Kind: "vlan", Lower: []string{"bond0"}},
		{Name: "br-storage", Kind: "bridge", Lower: []string{"eth0"}, Up: true, Addresses: []netip.Prefix{netip.MustParsePrefix("198.51.100.4/25"), netip.MustParsePrefix("2001:db8::4/64")}},
	}
	return s
}

// a100Partitions are some of an A100's profiles, and four instances.
func a100Partitions() *topology.MIG {
	profile := func(name string, id, size int, starts ...int) topology.MIGProfile {
		p := topology.MIGProfile{Name: name, ID: id}
		for _, start := range starts {
			p.Placements = append(p.Placements, topology.MIGPlacement{Start: start, Size: size})
		}
		return p
	}
	instance := func(id, start, size int) topology.MIGInstance {
		return topology.MIGInstance{ProfileID: id, Placement: topology.MIGPlacement{Start: start, Size: size},
			ComputeInstances: []topology.MIGComputeInstance{{UUID: fmt.Sprintf("MIG-%d-%d", id, start)}}}
	}
	return &topology.MIG{
		MemorySlices: 8,
		Profiles:     []topology.MIGProfile{profile("1g.5gb", 19, 1, 0, 1, 2, 3, 4, 5, 6), profile("2g.10gb", 14, 2, 0, 2, 4), profile("3g.20gb", 9, 4, 0, 4)},
		Instances:    []topology.MIGInstance{instance(9, 0, 4), instance(14, 4, 2), instance(19, 6, 1)},
	}
}

// bridged are eight GPUs on PCIe, in pairs or fours that NVLink bridges join across distances.
func bridged() *topology.Snapshot {
	s := &topology.Snapshot{Driver: topology.Driver{State: topology.DriverReady, Version: "570.124.06"}, NUMANodes: numaNodes(2)}
	links := map[[2]int]int{{0, 1}: 12, {2, 3}: 4, {4, 7}: 2, {5, 6}: 1, {0, 6}: 1, {1, 4}: 2}
	pci := func(i int) string { return fmt.Sprintf("0000:%02x:00.0", 0x11+0x10*i) }
	for i := range 8 {
		gpu := topology.GPU{Name: topology.GPUName(pci(i)), Index: i, ProductName: "NVIDIA A40", MemoryBytes: 48 << 30, Placement: topology.Placement{
			PCI: pci(i), PCIeRoot: fmt.Sprintf("pci0000:%x0", i+1), Path: []string{fmt.Sprintf("0000:%x0:01.0", i+1)}, NUMANode: i / 4, Socket: i / 4,
		}}
		for j := range 8 {
			for range links[[2]int{min(i, j), max(i, j)}] {
				gpu.NVLinks = append(gpu.NVLinks, topology.NVLink{Link: len(gpu.NVLinks), Active: true, Peer: topology.NVLinkPeerGPU, PeerPCI: pci(j)})
			}
		}
		s.GPUs = append(s.GPUs, gpu)
	}
	return s
}

// tray is a compute tray of an NVL72: two Grace CPUs with two GPUs each, whose NVSwitches are elsewhere in the rack.
func tray() *topology.Snapshot {
	s := &topology.Snapshot{Driver: topology.Driver{State: topology.DriverReady, Version: "580.82.07"}, NUMANodes: numaNodes(2)}
	for i := range 4 {
		pci := fmt.Sprintf("00%02x:01:00.0", 8+0x10*(i/2)+i%2)
		s.NUMANodes = append(s.NUMANodes, topology.NUMANode{ID: 2 + i, Socket: -1})
		gpu := topology.GPU{
			Name: topology.GPUName(pci), Index: i, ProductName: "NVIDIA GB200", MemoryBytes: 186 << 30,
			Fabric:    &topology.Fabric{ClusterUUID: "8f1c2a44-6c1d-4b0b-9a53-1d6b60f0c1aa", CliqueID: 3, State: "Completed"},
			Placement: topology.Placement{PCI: pci, PCIeRoot: "pci" + pci[:7], Path: []string{pci[:5] + "00:00.0"}, NUMANode: i / 2, Socket: i / 2},
		}
		for link := range 18 {
			gpu.NVLinks = append(gpu.NVLinks, topology.NVLink{Link: link, Active: i != 2 || link > 2, Peer: topology.NVLinkPeerSwitch})
		}
		s.GPUs = append(s.GPUs, gpu)
		nic := fmt.Sprintf("00%02x:03:00.0", 0x02+0x10*(i/2)+i%2)
		s.NICs = append(s.NICs, topology.NIC{
			Name: topology.NICName(nic), Kind: topology.PF, VFID: -1,
			Placement: topology.Placement{PCI: nic, PCIeRoot: "pci" + nic[:7], Path: []string{nic[:5] + "00:00.0"}, NUMANode: i / 2, Socket: i / 2},
			RDMA: &topology.RDMADevice{Name: fmt.Sprintf("mlx5_%d", i), Ports: []topology.RDMAPort{
				{Port: 1, State: []string{"ACTIVE", "DOWN"}[i/3], LinkLayer: "InfiniBand", Rate: "400 Gb/sec (4X NDR)"}}},
		})
	}
	return s
}
