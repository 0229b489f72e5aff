// Machines for the tests of this package, made up of published hardware.

package publish

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	resourceapi "k8s.io/api/resource/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/dynamic-resource-allocation/resourceslice"

	"github.com/hostler-dev/hostler/api/v1alpha1"
	"github.com/hostler-dev/hostler/topology"
)

const node = "node-a.example"

// everything is an API server that lacks nothing.
var everything = Features{Taints: true, Counters: true, SharedDevices: true, ListAttributes: true}

// withPairs offers pairs too.
var withPairs = v1alpha1.PublishConfig{CompositeDevices: true}

func gpu(pci string) topology.GPU {
	return topology.GPU{
		Name: topology.GPUName(pci), UUID: "GPU-" + pci, ProductName: "NVIDIA H100 80GB HBM3", Architecture: "Hopper",
		ComputeCapability: "9.0", MemoryBytes: 80 << 30,
		Placement: topology.Placement{PCI: pci, PCIeRoot: "pci0000:16", PCIeSwitch: "0000:15:00.0", NUMANode: 0, Socket: 0, IOMMUGroup: "7"},
	}
}

func nic(pci string) topology.NIC {
	return topology.NIC{
		Name: topology.NICName(pci), Kind: topology.PF, VFID: -1, Driver: "mlx5_core", Firmware: "28.39.1002 (MT_0000000838)",
		Link:      &topology.Link{Name: "eth0", MAC: "02:00:00:00:00:01", Type: "ethernet", SpeedMbps: 400_000},
		RDMA:      &topology.RDMADevice{Name: "mlx5_0"},
		Placement: topology.Placement{PCI: pci, PCIeRoot: "pci0000:16", PCIeSwitch: "0000:15:00.0", NUMANode: 0, Socket: -1},
	}
}

func vf(pf topology.NIC, id int) topology.NIC {
	v := nic(fmt.Sprintf("%s%02x.%d", strings.TrimSuffix(pf.Placement.PCI, "00.0"), 1+id/8, id%8))
	v.Kind, v.Parent, v.VFID, v.Placement.PCIeRoot, v.Placement.PCIeSwitch = topology.VF, pf.Name, id, pf.Placement.PCIeRoot, pf.Placement.PCIeSwitch
	v.Placement.NUMANode = pf.Placement.NUMANode
	return v
}

// withVFs is the PF and n VFs of it, of 128 that it can have.
func withVFs(pf topology.NIC, n int) []topology.NIC {
	pf.NumVFs, pf.TotalVFs = n, 128
	nics := []topology.NIC{pf}
	for i := range n {
		nics = append(nics, vf(pf, i))
	}
	return nics
}

// migGPU is an H100 in MIG mode. Profiles are those of `nvidia-smi mig -lgip` and -lgipp in
// NVIDIA's MIG user guide.
func migGPU(pci string, instances ...topology.MIGInstance) topology.GPU {
	g := gpu(pci)
	resources := func(compute, sms, engines, ofa int, mib uint64) topology.MIGResources {
		return topology.MIGResources{ComputeSlices: compute, Multiprocessors: sms, CopyEngines: engines, Decoders: engines, JPEGEngines: engines, OFAEngines: ofa, MemoryBytes: mib << 20}
	}
	at := func(size int, starts ...int) []topology.MIGPlacement {
		var places []topology.MIGPlacement
		for _, start := range starts {
			places = append(places, topology.MIGPlacement{Start: start, Size: size})
		}
		return places
	}
	g.MIGEnabled = true
	g.MIG = &topology.MIG{
		Capacity: resources(7, 132, 8, 1, 81559), MemorySlices: 8, Instances: instances,
		Profiles: []topology.MIGProfile{
			{ID: 0, Name: "7g.80gb", Resources: resources(7, 132, 8, 1, 81152), Placements: at(8, 0)},
			{ID: 5, Name: "4g.40gb", Resources: resources(4, 64, 4, 0, 40448), Placements: at(4, 0)},
			{ID: 9, Name: "3g.40gb", Resources: resources(3, 60, 3, 0, 40448), Placements: at(4, 0, 4)},
			{ID: 14, Name: "2g.20gb", Resources: resources(2, 32, 2, 0, 20096), Placements: at(2, 0, 2, 4)},
			{ID: 15, Name: "1g.20gb", Resources: resources(1, 26, 1, 0, 20096), Placements: at(2, 0, 2, 4, 6)},
			{ID: 19, Name: "1g.10gb", Resources: resources(1, 16, 1, 0, 9984), Placements: at(1, 0, 1, 2, 3, 4, 5, 6)},
			{ID: 20, Name: "1g.10gb+me", Resources: resources(1, 16, 1, 1, 9984), Placements: at(1, 0, 1, 2, 3, 4, 5, 6)},
		},
	}
	return g
}

// instance is a GPU instance with one compute instance.
func instance(profile, start, size int) topology.MIGInstance {
	return topology.MIGInstance{
		ProfileID: profile, Placement: topology.MIGPlacement{Start: start, Size: size}, GPUInstance: 10 + start,
		ComputeInstances: []topology.MIGComputeInstance{{UUID: fmt.Sprintf("MIG-%d-%d", profile, start)}},
	}
}

// dgx is wired like a DGX H100: eight GPUs of one NVLink island, each below a
// switch with its NIC, four on each NUMA node, and two more NICs for storage of which
// the first is the node's uplink.
func dgx() *topology.Snapshot {
	s := &topology.Snapshot{Driver: topology.Driver{State: topology.DriverReady, Version: "570.124.06", CUDAVersion: "12.8"}}
	for socket := range 2 {
		s.NUMANodes = append(s.NUMANodes, topology.NUMANode{ID: socket, Socket: socket, Distances: [][]int{{10, 21}, {21, 10}}[socket]})
	}
	for i := range 8 {
		bus := 0x10 + 0x10*i
		root, port, upstream := fmt.Sprintf("pci0000:%02x", bus), fmt.Sprintf("0000:%02x:01.0", bus), fmt.Sprintf("0000:%02x:00.0", bus+1)
		s.Bridges = append(s.Bridges, topology.Bridge{PCI: port, PCIeRoot: root, Port: topology.PortRoot}, topology.Bridge{PCI: upstream, PCIeRoot: root, Parent: port, Port: topology.PortUpstream})
		place := func(pci string) topology.Placement {
			return topology.Placement{PCI: pci, PCIeRoot: root, Path: []string{port, upstream}, PCIeSwitch: upstream, NUMANode: i / 4, Socket: i / 4}
		}
		g, n := gpu(fmt.Sprintf("0000:%02x:00.0", bus+3)), nic(fmt.Sprintf("0000:%02x:00.0", bus+5))
		g.Placement, n.Placement = place(g.Placement.PCI), place(n.Placement.PCI)
		g.Index, n.Link.Name, n.RDMA.Name = i, fmt.Sprintf("eth%d", i), fmt.Sprintf("mlx5_%d", i)
		for link := range 18 {
			g.NVLinks = append(g.NVLinks, topology.NVLink{Link: link, Active: true, Peer: topology.NVLinkPeerSwitch})
		}
		s.GPUs, s.NICs = append(s.GPUs, g), append(s.NICs, n)
	}
	for i := range 2 {
		n := nic(fmt.Sprintf("0000:%02x:00.0", 0xa1+i))
		n.Placement = topology.Placement{PCI: n.Placement.PCI, PCIeRoot: "pci0000:a0", NUMANode: 1, Socket: 1}
		s.NICs = append(s.NICs, n)
	}
	s.NICs[8].Uplink = "carries the default route 0.0.0.0/0 via eth8"
	return s
}

func device(t *testing.T, resources resourceslice.DriverResources, pool, name string) resourceapi.Device {
	t.Helper()
	if d := find(resources, name); d != nil {
		return *d
	}
	t.Fatalf("device %s is not in pool %s", name, pool)
	return resourceapi.Device{}
}

func find(resources resourceslice.DriverResources, name string) *resourceapi.Device {
	for _, pool := range resources.Pools {
		for _, slice := range pool.Slices {
			for i := range slice.Devices {
				if slice.Devices[i].Name == name {
					return &slice.Devices[i]
				}
			}
		}
	}
	return nil
}

// inUse are devices that claims have from where they are published.
func inUse(names ...string) map[string]Use {
	all := map[string]Use{}
	for _, name := range names {
		all[name] = Use{}
	}
	return all
}

// names are those of all devices whose name begins so, in the order of the slices.
func names(resources resourceslice.DriverResources, pool, prefix string) []string {
	var list []string
	for _, slice := range resources.Pools[pool].Slices {
		for _, d := range slice.Devices {
			if strings.HasPrefix(d.Name, prefix) {
				list = append(list, d.Name)
			}
		}
	}
	return list
}

// changes are the slices that have to be written to get from one pool to the
// other: those of the second that the first does not have at the same index.
func changes(before, after resourceslice.Pool) []resourceslice.Slice {
	var changed []resourceslice.Slice
	for i, slice := range after.Slices {
		if i >= len(before.Slices) || !apiequality.Semantic.DeepEqual(before.Slices[i], slice) {
			changed = append(changed, slice)
		}
	}
	return changed
}

// newSlices are those of the second pool that the first has at no index.
func newSlices(before, after resourceslice.Pool) []resourceslice.Slice {
	return slices.DeleteFunc(slices.Clone(after.Slices), func(s resourceslice.Slice) bool {
		return slices.ContainsFunc(before.Slices, func(b resourceslice.Slice) bool { return apiequality.Semantic.DeepEqual(b, s) })
	})
}

func text(d resourceapi.Device, name string) string {
	a, ok := d.Attributes[resourceapi.QualifiedName(name)]
	switch {
	case !ok:
		return "absent"
	case a.StringValue != nil:
		return *a.StringValue
	case a.VersionValue != nil:
		return "version " + *a.VersionValue
	case a.IntValue != nil:
		return fmt.Sprint(*a.IntValue)
	case a.BoolValue != nil:
		return fmt.Sprint(*a.BoolValue)
	case a.IntValues != nil:
		return fmt.Sprint(a.IntValues)
	}
	return "no value"
}
