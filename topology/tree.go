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
	child := &branch{text: fmt.Sprintf(format, args...)}
	b.below = append(b.below, child)
	return child
}

// WriteTree draws sockets, NUMA nodes, root complexes, switches, and the devices below them.
func WriteTree(w io.Writer, s *Snapshot) error {
	top := &branch{text: "machine"}
	if s.Driver.State == DriverReady {
		top.text = joined(", ", "machine", "driver "+s.Driver.Version, "CUDA "+s.Driver.CUDAVersion)
	}
	short := labels(s)
	for _, socket := range layout(s) {
		above := top
		if socket.socket >= 0 {
			above = top.add("socket %d", socket.socket)
		}
		for _, node := range socket.nodes {
			above := above.add("%s", nodeTitle(node))
			for _, root := range node.roots {
				above := above.add("%s", root.root)
				for _, group := range root.switches {
					addSwitch(above, s, group, short)
				}
			}
		}
	}
	addIslands(top, s, short)
	out := &strings.Builder{}
	top.write(out, "", "")
	_, err := io.WriteString(w, out.String())
	return err
}

func nodeTitle(node nodeGroup) string {
	if node.node < 0 {
		return "no NUMA affinity"
	}
	title := fmt.Sprintf("NUMA node %d", node.node)
	if node.cpus != "" {
		title += ", CPUs " + node.cpus
	}
	return title
}

func addSwitch(above *branch, s *Snapshot, group switchGroup, short map[string]string) {
	if group.switchPCI != "" {
		above = above.add("switch %s", group.switchPCI)
	}
	for _, gpu := range group.gpus {
		above.add("%s  %s  %s", short[gpu.Name], gpu.Name, joined(", ", gpu.ProductName, gpu.memory(), linksTitle(gpu), gpu.condition()))
	}
	for _, nic := range group.nics {
		uplink := ""
		if nic.Uplink != "" {
			uplink = "uplink of the node: " + nic.Uplink
		}
		rdma := ""
		if nic.RDMA != nil && nic.RDMA.Name != nic.interfaceName() {
			rdma = nic.RDMA.Name
		}
		line := above.add("%s  %s  %s", orDash(short[nic.Name]), nic.Name, joined(", ", nic.interfaceName(), rdma, nic.speed(), nic.state(), uplink))
		for i := range s.NICs {
			if vf := &s.NICs[i]; vf.Parent == nic.Name {
				line.add("VF %d  %s  %s", vf.VFID, vf.Name, joined(", ", vf.interfaceName(), vf.state()))
			}
		}
	}
}

func linksTitle(gpu *GPU) string {
	if len(gpu.NVLinks) == 0 {
		return ""
	}
	return fmt.Sprintf("%d of %d NVLinks up", gpu.activeLinks(), len(gpu.NVLinks))
}

func addIslands(top *branch, s *Snapshot, short map[string]string) {
	for _, island := range NVLinkIslands(s) {
		if len(island) < 2 {
			continue
		}
		var members []string
		for _, name := range byLabel(short) {
			for _, member := range island {
				if name == member {
					members = append(members, short[name])
				}
			}
		}
		top.add("NVLink island: %s", strings.Join(members, " "))
	}
}

func orDash(text string) string {
	if text == "" {
		return "-"
	}
	return text
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
