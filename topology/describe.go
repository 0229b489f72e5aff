// How devices are put into words: the same words in matrix, tree and picture.

package topology

import (
	"fmt"
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
