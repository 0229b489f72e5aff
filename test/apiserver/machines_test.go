// The machines of the tests: as large as servers get, in the forms that fill
// slices most.

package apiserver

import (
	"fmt"

	"github.com/hostler-dev/hostler/topology"
)

const gib = 1 << 30

// gpus are 16 H100 in MIG mode, two under each PCIe switch, eight on each
// socket. Cut, each has seven instances that an administrator made.
func gpus(cut bool) []topology.GPU {
	var list []topology.GPU
	for i := range 16 {
		at := placement(i, 0)
		gpu := topology.GPU{
			Name: topology.GPUName(at.PCI), Index: i, Minor: i, UUID: fmt.Sprintf("GPU-9ff0a1b6-0000-4a6e-b0d4-%012x", i),
			ProductName: "NVIDIA H100 80GB HBM3", Architecture: "Hopper", ComputeCapability: "9.0", MemoryBytes: 80 * gib,
			MIGEnabled: true, MIG: h100(), Placement: at,
		}
		if cut {
			for start := range 7 {
				gpu.MIG.Instances = append(gpu.MIG.Instances, topology.MIGInstance{
					ProfileID: 19, Placement: topology.MIGPlacement{Start: start, Size: 1}, GPUInstance: 7 + start,
					ComputeInstances: []topology.MIGComputeInstance{{UUID: fmt.Sprintf("MIG-2e7b6c1e-0000-5c4f-9b1d-%06x%06x", i, start)}},
				})
			}
		}
		list = append(list, gpu)
	}
	return list
}

// h100 is how an H100 with 80 GB can be cut, as `nvidia-smi mig -lgip` and
// -lgipp list it (NVIDIA's MIG user guide, "Supported MIG Profiles").
func h100() *topology.MIG {
	profile := func(name string, id, compute, size, copies, decoders, jpeg, ofa int, starts ...int) topology.MIGProfile {
		p := topology.MIGProfile{Name: name, ID: id, Resources: topology.MIGResources{
			ComputeSlices: compute, Multiprocessors: 16 * compute, CopyEngines: copies, Decoders: decoders,
			JPEGEngines: jpeg, OFAEngines: ofa, MemoryBytes: uint64(size) * 10 * gib,
		}}
		for _, start := range starts {
			p.Placements = append(p.Placements, topology.MIGPlacement{Start: start, Size: size})
		}
		return p
	}
	return &topology.MIG{
		MemorySlices: 8,
		Capacity: topology.MIGResources{
			ComputeSlices: 7, Multiprocessors: 132, CopyEngines: 8, Decoders: 7, JPEGEngines: 7, OFAEngines: 1, MemoryBytes: 80 * gib,
		},
		Profiles: []topology.MIGProfile{
			profile("7g.80gb", 0, 7, 8, 8, 7, 7, 1, 0),
			profile("4g.40gb", 5, 4, 4, 4, 4, 4, 0, 0),
			profile("3g.40gb", 9, 3, 4, 3, 3, 3, 0, 0, 4),
			profile("2g.20gb", 14, 2, 2, 2, 2, 2, 0, 0, 2, 4),
			profile("1g.20gb", 15, 1, 2, 1, 1, 1, 0, 0, 2, 4, 6),
			profile("1g.10gb", 19, 1, 1, 1, 1, 1, 0, 0, 1, 2, 3, 4, 5, 6),
			profile("1g.10gb+me", 20, 1, 1, 1, 1, 1, 1, 0, 1, 2, 3, 4, 5, 6),
		},
	}
}

// nics are 16 PFs that can have 128 VFs each and have so many now.
func nics(vfs int) []topology.NIC {
	var list []topology.NIC
	for i := range 16 {
		at := placement(i, 1)
		pf := topology.NIC{
			Name: topology.NICName(at.PCI), Kind: topology.PF, VFID: -1, NumVFs: vfs, TotalVFs: 128, Driver: "mlx5_core",
			VendorID: "15b3", DeviceID: "1021", Firmware: "28.43.1014", Placement: at,
			Link: link(fmt.Sprintf("ens%dnp0", i), i, -1), RDMA: &topology.RDMADevice{Name: fmt.Sprintf("mlx5_%d", i)},
		}
		list = append(list, pf)
		list = append(list, virtualFunctions(pf, i, vfs)...)
	}
	return list
}

func virtualFunctions(pf topology.NIC, i, count int) []topology.NIC {
	var list []topology.NIC
	for id := range count {
		vf := pf
		vf.Kind, vf.Parent, vf.VFID, vf.NumVFs, vf.TotalVFs, vf.DeviceID = topology.VF, pf.Name, id, 0, 0, "101e"
		vf.Placement.PCI = fmt.Sprintf("%04x:%02x:%02x.%d", i/2, 0x40+16*(i%2), 8+id/8, id%8)
		vf.Name = topology.NICName(vf.Placement.PCI)
		vf.Link, vf.RDMA = link(fmt.Sprintf("ens%dv%d", i, id), i, id), &topology.RDMADevice{Name: fmt.Sprintf("mlx5_%d", 16+128*i+id)}
		list = append(list, vf)
	}
	return list
}

func link(name string, pf, vf int) *topology.Link {
	return &topology.Link{Name: name, MAC: fmt.Sprintf("02:00:00:%02x:00:%02x", pf, vf+1), MTU: 9000, Type: "ethernet", SpeedMbps: 400_000, Up: true}
}

// placement of the i-th GPU (kind 0) or PF (kind 1): eight PCIe roots with a
// switch each, two of both kinds under a switch.
func placement(i, kind int) topology.Placement {
	root := i / 2
	return topology.Placement{
		PCI:      fmt.Sprintf("%04x:%02x:00.0", root, 0x20+16*kind+i%2),
		PCIeRoot: fmt.Sprintf("pci%04x:00", root), Path: []string{fmt.Sprintf("%04x:00:01.0", root), fmt.Sprintf("%04x:01:00.0", root)},
		PCIeSwitch: fmt.Sprintf("%04x:01:00.0", root), NUMANode: nodesPerSocket * (i / 8), Socket: i / 8,
	}
}

// nodesPerSocket are more NUMA nodes than the list of a device has room for.
const nodesPerSocket = 20

func numaNodes() []topology.NUMANode {
	var nodes []topology.NUMANode
	for id := range 2 * nodesPerSocket {
		node := topology.NUMANode{ID: id, Socket: id / nodesPerSocket}
		for other := range 2 * nodesPerSocket {
			distance := 12
			switch {
			case other == id:
				distance = 10
			case other/nodesPerSocket != node.Socket:
				distance = 32
			}
			node.Distances = append(node.Distances, distance)
		}
		nodes = append(nodes, node)
	}
	return nodes
}

func machine(gpus []topology.GPU, nics []topology.NIC) *topology.Snapshot {
	return &topology.Snapshot{
		BootID: "boot", Driver: topology.Driver{State: topology.DriverReady, Version: "570.124.06", CUDAVersion: "12.8"},
		GPUs: gpus, NICs: nics,
		NUMANodes: numaNodes(),
	}
}
