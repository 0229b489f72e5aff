// How devices are put into words: the same words in matrix, tree and pictures.

package topology

import (
	"fmt"
	"strconv"
	"strings"
)

// interfaceName is a NIC's netdev, or its RDMA device where it has no netdev here.
func (n *NIC) interfaceName() string {
	switch {
	case n.Link != nil:
		return n.Link.Name
	case n.RDMA != nil:
		return n.RDMA.Name
	}
	return n.Name
}

// speed is a NIC's speed as a NIC is sold, "400 Gb/s", "" if nobody says.
func (n *NIC) speed() string {
	if n.Link != nil && n.Link.SpeedMbps > 0 {
		if n.Link.SpeedMbps < 1000 {
			return fmt.Sprintf("%d Mb/s", n.Link.SpeedMbps)
		}
		return strings.TrimSuffix(fmt.Sprintf("%.1f", float64(n.Link.SpeedMbps)/1000), ".0") + " Gb/s"
	}
	if n.RDMA != nil && len(n.RDMA.Ports) > 0 { // "400 Gb/sec (4X NDR)"
		rate, _, _ := strings.Cut(n.RDMA.Ports[0].Rate, " (")
		return strings.Replace(rate, "Gb/sec", "Gb/s", 1)
	}
	return ""
}

// linkLayer is "Ethernet" or "InfiniBand", "" if nobody says.
func (n *NIC) linkLayer() string {
	switch {
	case n.RDMA != nil && len(n.RDMA.Ports) > 0 && n.RDMA.Ports[0].LinkLayer != "":
		return n.RDMA.Ports[0].LinkLayer
	case n.Link != nil && n.Link.Type == "ethernet":
		return "Ethernet"
	case n.Link != nil && n.Link.Type == "infiniband":
		return "InfiniBand"
	}
	return ""
}

// rdmaName is the RDMA device where the interface's name does not say it already.
func (n *NIC) rdmaName() string {
	if n.RDMA == nil || n.RDMA.Name == n.interfaceName() {
		return ""
	}
	return n.RDMA.Name
}

// state is a NIC's state in a word: up, down, or "away" while its netdev is in a pod.
func (n *NIC) state() string {
	switch {
	case n.Link != nil && n.Link.Up:
		return "up"
	case n.Link != nil:
		return "down"
	case n.RDMA != nil && len(n.RDMA.Ports) > 0 && n.RDMA.Ports[0].LinkLayer == "InfiniBand":
		if n.RDMA.Ports[0].State == "ACTIVE" {
			return "up"
		}
		return "down"
	}
	return "away"
}

// memory of a GPU in GiB, "" if unknown.
func (g *GPU) memory() string {
	if g.MemoryBytes == 0 {
		return ""
	}
	return fmt.Sprintf("%d GiB", (g.MemoryBytes+1<<29)>>30)
}

// shortProduct leaves the maker out: "H100 80GB HBM3".
func (g *GPU) shortProduct() string { return strings.TrimPrefix(g.ProductName, "NVIDIA ") }

// activeLinks counts the NVLinks that are up.
func (g *GPU) activeLinks() int {
	n := 0
	for _, link := range g.NVLinks {
		if link.Active {
			n++
		}
	}
	return n
}

// condition is what is wrong with a GPU, "" if nothing is.
func (g *GPU) condition() string {
	if g.Lost {
		return "LOST"
	}
	if len(g.Problems) > 0 {
		return fmt.Sprintf("%s: %s", g.Problems[0].Subject, g.Problems[0].Message)
	}
	return ""
}

// migSummary is how a GPU in MIG mode is cut: "MIG: 3g.40gb, 2 × 1g.10gb".
func (g *GPU) migSummary() string {
	if !g.MIGEnabled {
		return ""
	}
	if g.MIG == nil || len(g.MIG.Instances) == 0 {
		return "MIG: not cut"
	}
	counts := map[string]int{}
	var names []string
	for _, instance := range g.MIG.Instances {
		name := g.MIG.profileName(instance.ProfileID)
		if counts[name]++; counts[name] == 1 {
			names = append(names, name)
		}
	}
	for i, name := range names {
		if n := counts[name]; n > 1 {
			names[i] = fmt.Sprintf("%d × %s", n, name)
		}
	}
	return "MIG: " + strings.Join(names, ", ")
}

// profileName of a MIG instance; an instance whose profile the GPU does not list has a number only.
func (m *MIG) profileName(id int) string {
	for _, profile := range m.Profiles {
		if profile.ID == id {
			return profile.Name
		}
	}
	return "profile " + strconv.Itoa(id)
}

// instanceName is the name under which an instance is offered, "" if it is not.
func (g *GPU) instanceName(instance *MIGInstance) string {
	for _, partition := range Partitions(g) {
		if partition.Profile.ID == instance.ProfileID && partition.Placement == instance.Placement {
			return partition.Name
		}
	}
	return ""
}

// pcieName is a switch in words, or a root complex.
func (g *switchGroup) pcieName() string {
	switch {
	case g.name == "":
		return "root complex unknown"
	case g.isRoot:
		return g.name
	}
	return "switch " + g.name
}

func nodeTitle(node *nodeGroup) string {
	if node.node < 0 {
		return "no NUMA affinity"
	}
	title := fmt.Sprintf("NUMA node %d", node.node)
	if node.cpus != "" {
		title += ", CPUs " + node.cpus
	}
	return title
}

// vfSummary counts a PF's VFs and what is known of them: "VFs 0–127: 3 held, 1 faulty".
func (o DrawOptions) vfSummary(s *Snapshot, vfs []*NIC) string {
	if len(vfs) == 0 {
		return ""
	}
	first, last := vfs[0].VFID, vfs[len(vfs)-1].VFID
	title := fmt.Sprintf("VFs %d–%d", first, last)
	switch {
	case len(vfs) == 1:
		title = fmt.Sprintf("VF %d", first)
	case last-first != len(vfs)-1:
		title = fmt.Sprintf("%d VFs", len(vfs))
	}
	return joined(": ", title, o.vfMarks(s, vfs))
}

func (o DrawOptions) vfMarks(s *Snapshot, vfs []*NIC) string {
	counts := map[string]int{}
	for _, vf := range vfs {
		counts[o.vfState(s, vf)]++
	}
	var words []string
	for _, state := range []string{"held", "faulty"} {
		if n := counts[state]; n > 0 {
			words = append(words, fmt.Sprintf("%d %s", n, state))
		}
	}
	if n := counts["uplink"]; n > 0 {
		words = append(words, count(n, "uplink"))
	}
	return strings.Join(words, ", ")
}

// vfState is the most important thing to know of a VF.
func (o DrawOptions) vfState(s *Snapshot, vf *NIC) string {
	switch {
	case len(o.faultsOf(s, vf.Name)) > 0:
		return "faulty"
	case vf.Uplink != "":
		return "uplink"
	case len(o.Holders[vf.Name]) > 0:
		return "held"
	}
	return "free"
}

// count is a number with its noun.
func count(n int, what string) string {
	switch {
	case n == 1:
		return "1 " + what
	case strings.HasSuffix(what, "ch"):
		return fmt.Sprintf("%d %ses", n, what)
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// joined puts the words that are not empty into one line.
func joined(separator string, words ...string) string {
	var kept []string
	for _, word := range words {
		if word != "" {
			kept = append(kept, word)
		}
	}
	return strings.Join(kept, separator)
}

func orDash(text string) string {
	if text == "" {
		return "-"
	}
	return text
}
