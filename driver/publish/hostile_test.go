package publish

import (
	"fmt"
	"strings"

	resourceapi "k8s.io/api/resource/v1"
	"pgregory.net/rapid"

	"github.com/hostler-dev/hostler/api/v1alpha1"
	"github.com/hostler-dev/hostler/topology"
)

// drawInput makes machines out of lies: names, versions and numbers that no
// hardware should report, and claims on devices that may be there or not.
func drawInput(t *rapid.T) Input {
	lie := rapid.OneOf(rapid.String(), rapid.SampledFrom([]string{"", "570.124.06", "NVIDIA H100", strings.Repeat("ü", 40), "1g.10gb"}))
	number := rapid.OneOf(rapid.IntRange(-2, 12), rapid.Int())
	in := Input{
		NodeName: node,
		Features: Features{
			Taints: rapid.Bool().Draw(t, "taints"), FewTaints: rapid.Bool().Draw(t, "few"), Counters: rapid.Bool().Draw(t, "counters"),
			SharedDevices: rapid.Bool().Draw(t, "shared"), ListAttributes: rapid.Bool().Draw(t, "lists"),
		},
		Publish: v1alpha1.PublishConfig{
			NUMANode:   rapid.SampledFrom([]v1alpha1.NUMANodeForm{v1alpha1.NUMANodeScalar, v1alpha1.NUMANodeList}).Draw(t, "numaNode"),
			Partitions: rapid.SampledFrom([]v1alpha1.PartitionOffer{v1alpha1.PartitionsAll, v1alpha1.PartitionsExisting}).Draw(t, "partitions"), CompositeDevices: rapid.Bool().Draw(t, "composite"), SharedNICs: rapid.Bool().Draw(t, "shared NICs"),
		},
		Snapshot: &topology.Snapshot{Driver: topology.Driver{Version: lie.Draw(t, "version"), CUDAVersion: lie.Draw(t, "cuda")}},
		Made:     map[string]bool{}, InUse: map[string]Use{}, Held: map[string]topology.NIC{},
	}
	use := func(name, gpu, nic string) {
		if rapid.Bool().Draw(t, "used") {
			in.InUse[name] = Use{Pool: rapid.SampledFrom([]string{"", DevicePool(node), GPUPool(node), NICPool(node)}).Draw(t, "pool"), GPU: gpu, NIC: nic, Shared: gpu == "" && rapid.Bool().Draw(t, "a share")}
		}
	}
	for id := range rapid.IntRange(0, 40).Draw(t, "nodes") {
		in.Snapshot.NUMANodes = append(in.Snapshot.NUMANodes, topology.NUMANode{ID: id, Socket: rapid.IntRange(-1, 1).Draw(t, "socket"), Distances: rapid.SliceOfN(rapid.IntRange(10, 12), 0, 40).Draw(t, "distances")})
	}
	place := func(p *topology.Placement) {
		p.PCIeRoot, p.PCIeSwitch, p.IOMMUGroup = rapid.SampledFrom([]string{"pci0000:16", "pci0000:46", ""}).Draw(t, "root"), lie.Draw(t, "switch"), lie.Draw(t, "group")
		p.NUMANode, p.Socket = number.Draw(t, "numa"), number.Draw(t, "package")
	}
	for i := range rapid.IntRange(0, 70).Draw(t, "gpus") {
		g := gpu(fmt.Sprintf("0000:%02x:00.0", i))
		if rapid.Bool().Draw(t, "mig") {
			g = migGPU(g.Placement.PCI)
			g.MIG.MemorySlices, g.MIG.Capacity.CopyEngines = number.Draw(t, "memory slices"), number.Draw(t, "engines")
			p := &g.MIG.Profiles[rapid.IntRange(0, 6).Draw(t, "profile")]
			p.Name, p.Resources.Decoders, p.Resources.MemoryBytes = lie.Draw(t, "profile name"), number.Draw(t, "decoders"), rapid.Uint64().Draw(t, "memory")
			p.Placements = append(p.Placements, topology.MIGPlacement{Start: number.Draw(t, "start"), Size: number.Draw(t, "size")})
			g.MIG.Instances = append(g.MIG.Instances, instance(number.Draw(t, "instance"), number.Draw(t, "at"), number.Draw(t, "length")))
			for range rapid.IntRange(0, 2).Draw(t, "instances") {
				p := g.MIG.Profiles[rapid.IntRange(0, 6).Draw(t, "of")]
				at := p.Placements[rapid.IntRange(0, len(p.Placements)-1).Draw(t, "where")]
				g.MIG.Instances = append(g.MIG.Instances, instance(p.ID, at.Start, at.Size))
			}
			for _, partition := range topology.Partitions(&g) {
				in.Made[partition.Name] = rapid.Bool().Draw(t, "made")
				use(partition.Name, g.Name, "")
			}
		}
		place(&g.Placement)
		g.ProductName, g.UUID, g.MemoryBytes = lie.Draw(t, "product"), lie.Draw(t, "uuid"), rapid.Uint64().Draw(t, "memory")
		if rapid.IntRange(0, 20).Draw(t, "odd name") == 0 {
			g.Name = lie.Draw(t, "name")
		}
		in.Snapshot.GPUs = append(in.Snapshot.GPUs, g)
		in.Taints = append(in.Taints, drawTaints(t, g.Name)...)
	}
	for i := range rapid.IntRange(0, 10).Draw(t, "pfs") {
		pf := nic(fmt.Sprintf("0001:%02x:00.0", i))
		place(&pf.Placement)
		pf.Uplink, pf.Firmware, pf.Link.Name = rapid.SampledFrom([]string{"", "carries the default route"}).Draw(t, "uplink"), lie.Draw(t, "firmware"), lie.Draw(t, "ifname")
		nics := withVFs(pf, rapid.IntRange(0, 130).Draw(t, "vfs"))
		nics[0].NumVFs, nics[0].TotalVFs = number.Draw(t, "NumVFs"), number.Draw(t, "TotalVFs")
		for n := range nics {
			nics[n].VFID = rapid.SampledFrom([]int{nics[n].VFID, -1, 1 << 40}).Draw(t, "vfID")
		}
		use(nics[len(nics)-1].Name, "", nics[len(nics)-1].Name)
		if len(in.Snapshot.GPUs) > 0 {
			first := in.Snapshot.GPUs[0]
			use(topology.PairName(first.Placement.PCI, nics[len(nics)-1].Placement.PCI), first.Name, nics[len(nics)-1].Name)
		}
		in.Held[nics[0].Name] = nics[0]
		in.Snapshot.NICs = append(in.Snapshot.NICs, nics[rapid.IntRange(0, 1).Draw(t, "without PF"):]...)
		in.Taints = append(in.Taints, drawTaints(t, pf.Name)...)
	}
	return in
}

func drawTaints(t *rapid.T, device string) []Taint {
	var taints []Taint
	for i := range rapid.IntRange(0, 18).Draw(t, "taints") {
		taints = append(taints, Taint{Device: device, Key: fmt.Sprintf("hostler.dev/f%d", i), Value: rapid.String().Draw(t, "value"), Effect: rapid.SampledFrom([]resourceapi.DeviceTaintEffect{"None", "NoSchedule", "NoExecute"}).Draw(t, "effect")})
	}
	return taints
}
