// The tree: where each device hangs, from the socket down, in words.

package topology

import (
	"fmt"
	"io"
	"strings"
)

// branch is a line of the tree with the lines below it.
type branch struct {
	text  string
	below []*branch
}

func (b *branch) add(format string, args ...any) *branch {
	child := &branch{text: plain(fmt.Sprintf(format, args...))}
	b.below = append(b.below, child)
	return child
}

// tree is the drawing under construction.
type tree struct {
	DrawOptions
	snapshot *Snapshot
	short    map[string]string
	vfs      map[string][]*NIC
}

// WriteTree draws sockets, NUMA nodes, root complexes, switches, and the devices
// below them with their partitions and VFs; then what lies across: NVLink
// islands, NVSwitches and the node's stacked links.
func WriteTree(w io.Writer, s *Snapshot, options DrawOptions) error {
	t := &tree{DrawOptions: options.withPairs(s), snapshot: s, short: labels(s), vfs: vfsByPF(s)}
	top := &branch{text: plain(joined(", ", "machine", s.driverWords()))}
	for _, socket := range layout(s) {
		above := top
		if socket.socket >= 0 {
			above = top.add("socket %d", socket.socket)
		}
		for _, node := range socket.nodes {
			above := above.add("%s", nodeTitle(node))
			for _, root := range node.roots {
				t.addGroup(above, root)
			}
		}
	}
	t.addIslands(top)
	t.addNVSwitches(top)
	t.addStackedLinks(top)
	for _, problem := range s.Problems {
		top.add("problem with %s: %s", problem.Subject, problem.Message)
	}
	out := &strings.Builder{}
	top.write(out, "", "")
	_, err := io.WriteString(w, out.String())
	return err
}

// driverWords say how the accelerators' driver is.
func (s *Snapshot) driverWords() string {
	switch s.Driver.State {
	case DriverReady:
		words := joined(" ", "driver", s.Driver.Version)
		if s.Driver.CUDAVersion != "" {
			words += ", CUDA " + s.Driver.CUDAVersion
		}
		return words
	case "":
		return ""
	}
	return joined(": ", "driver "+strings.ToLower(string(s.Driver.State)), s.Driver.Message)
}

func (t *tree) addGroup(above *branch, group *switchGroup) {
	above = above.add("%s", group.pcieName())
	for _, nic := range group.nics {
		t.addNIC(above, nic)
	}
	for _, nic := range group.dataDirect {
		above.add("%s  Data Direct interface of %s  %s", t.short[nic.Name], nic.interfaceName(), nic.DataDirect.PCI)
	}
	for _, gpu := range group.gpus {
		t.addGPU(above, gpu)
	}
	for _, below := range group.switches {
		t.addGroup(above, below)
	}
}

func (t *tree) iommu(p *Placement) string {
	if !t.IOMMUGroups || p.IOMMUGroup == "" {
		return ""
	}
	return "IOMMU group " + p.IOMMUGroup
}

func (t *tree) addGPU(above *branch, gpu *GPU) {
	line := above.add("%s  %s  %s", t.short[gpu.Name], gpu.Name, joined(", ", gpu.ProductName, gpu.memory(), linksTitle(gpu),
		t.iommu(&gpu.Placement), gpu.condition(), t.marks(t.snapshot, gpu.Name)))
	if !gpu.MIGEnabled || gpu.MIG == nil {
		return
	}
	for i := range gpu.MIG.Instances {
		instance := &gpu.MIG.Instances[i]
		name, uuid := gpu.instanceName(instance), count(len(instance.ComputeInstances), "compute instance")
		if len(instance.ComputeInstances) == 1 {
			uuid = instance.ComputeInstances[0].UUID
		}
		line.add("MIG %s  %s  %s", gpu.MIG.profileName(instance.ProfileID), orDash(name),
			joined(", ", slicesTitle(instance.Placement), uuid, t.marks(t.snapshot, name)))
	}
	if possible := len(Partitions(gpu)); possible > 0 {
		line.add("MIG: %s, %d of %d memory slices free", count(possible, "possible partition"), gpu.MIG.freeSlices(), gpu.MIG.MemorySlices)
	}
}

func slicesTitle(p MIGPlacement) string {
	if p.Size == 1 {
		return fmt.Sprintf("memory slice %d", p.Start)
	}
	return fmt.Sprintf("memory slices %d–%d", p.Start, p.Start+p.Size-1)
}

// freeSlices counts the memory slices that no instance has.
func (m *MIG) freeSlices() int {
	free := 0
	for slice := range m.MemorySlices {
		taken := false
		for _, instance := range m.Instances {
			taken = taken || instance.Placement.Overlaps(MIGPlacement{Start: slice, Size: 1})
		}
		if !taken {
			free++
		}
	}
	return free
}

func (t *tree) addNIC(above *branch, nic *NIC) {
	uplink := ""
	if nic.Uplink != "" {
		uplink = "uplink of the node: " + nic.Uplink
	}
	line := above.add("%s  %s  %s", orDash(t.short[nic.Name]), nic.Name, joined(", ", nic.interfaceName(), nic.rdmaName(), nic.speed(),
		nic.linkLayer(), nic.state(), t.iommu(&nic.Placement), uplink, t.marks(t.snapshot, nic.Name)))
	vfs := t.vfs[nic.Name]
	if !t.VFs && len(vfs) > 0 {
		line.add("%s", t.vfSummary(t.snapshot, vfs))
	}
	for _, vf := range vfs {
		// Those that somebody has or that are faulty are worth a line of their own.
		marks := t.marks(t.snapshot, vf.Name)
		if t.VFs || marks != "" {
			line.add("VF %d  %s  %s", vf.VFID, vf.Name, joined(", ", vf.interfaceName(), vf.rdmaName(), vf.state(), t.iommu(&vf.Placement), marks))
		}
	}
}

func linksTitle(gpu *GPU) string {
	if len(gpu.NVLinks) == 0 {
		return ""
	}
	return fmt.Sprintf("%d of %d NVLinks up", gpu.activeLinks(), len(gpu.NVLinks))
}

func (t *tree) addIslands(top *branch) {
	for _, island := range NVLinkIslands(t.snapshot) {
		if len(island) < 2 {
			continue
		}
		member := map[string]string{}
		for _, name := range island {
			member[name] = t.short[name]
		}
		var members []string
		for _, name := range byLabel(member) {
			members = append(members, t.short[name])
		}
		top.add("NVLink island: %s", strings.Join(members, " "))
	}
	for _, fabric := range fabricsOf(t.snapshot) {
		if title := fabric.identity(); title != "" {
			top.add("NVLink fabric: %s", title)
		}
	}
}

func (t *tree) addNVSwitches(top *branch) {
	var addresses []string
	for _, s := range t.snapshot.NVSwitches {
		addresses = append(addresses, s.Placement.PCI)
	}
	if len(addresses) > 0 {
		top.add("%s: %s", count(len(addresses), "NVSwitch"), strings.Join(addresses, " "))
	}
}

func (t *tree) addStackedLinks(top *branch) {
	for _, link := range t.snapshot.StackedLinks {
		state, uplink := "down", ""
		if link.Up {
			state = "up"
		}
		if link.Uplink != "" {
			uplink = "uplink of the node: " + link.Uplink
		}
		top.add("%s %s over %s", link.Kind, link.Name, joined(", ", strings.Join(link.Lower, " "), state, uplink))
	}
}

func (b *branch) write(out *strings.Builder, first, rest string) {
	out.WriteString(first + b.text + "\n")
	for i, child := range b.below {
		if i == len(b.below)-1 {
			child.write(out, rest+"└─ ", rest+"   ")
		} else {
			child.write(out, rest+"├─ ", rest+"│  ")
		}
	}
}
