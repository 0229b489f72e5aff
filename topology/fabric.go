// NVLink as the drawings show it: bundles that lead from one GPU to another, and
// fabrics, which are NVSwitches with the GPUs that reach each other through them.

package topology

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// bundle is what joins two GPUs directly.
type bundle struct {
	a, b  *GPU // in PCI order
	links int
}

func bundlesOf(s *Snapshot) []bundle {
	var bundles []bundle
	for i := range s.GPUs {
		for j := i + 1; j < len(s.GPUs); j++ {
			a, b := &s.GPUs[i], &s.GPUs[j]
			if links := max(linksTo(a, b.Placement.PCI), linksTo(b, a.Placement.PCI)); links > 0 {
				bundles = append(bundles, bundle{a, b, links})
			}
		}
	}
	return bundles
}

// fabric is a clique of GPUs with links to NVSwitches.
type fabric struct {
	// of is what NVML says of it, nil if nothing.
	of       *Fabric
	gpus     []*GPU
	switches int // of the node's own PCIe tree
}

func fabricsOf(s *Snapshot) []fabric {
	var fabrics []fabric
	peers := map[int]map[string]bool{}
	for i := range s.GPUs {
		gpu := &s.GPUs[i]
		if switchLinks(gpu) == 0 {
			continue
		}
		n := slices.IndexFunc(fabrics, func(f fabric) bool { return sameFabric(f.of, gpu.Fabric) })
		if n < 0 {
			fabrics = append(fabrics, fabric{of: gpu.Fabric})
			n = len(fabrics) - 1
			peers[n] = map[string]bool{}
		}
		fabrics[n].gpus = append(fabrics[n].gpus, gpu)
		for _, link := range gpu.NVLinks {
			if link.Active && link.Peer == NVLinkPeerSwitch && link.PeerPCI != "" {
				peers[n][link.PeerPCI] = true
			}
		}
		fabrics[n].switches = len(peers[n])
	}
	slices.SortStableFunc(fabrics, func(a, b fabric) int { return cmp.Compare(a.gpus[0].Placement.PCI, b.gpus[0].Placement.PCI) })
	return fabrics
}

func sameFabric(a, b *Fabric) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.ClusterUUID == b.ClusterUUID && a.CliqueID == b.CliqueID
}

// title of a fabric: what it consists of and how wide it is.
func (f fabric) title() string {
	kind := "NVLink fabric"
	if f.switches > 0 {
		kind = "NVSwitch fabric"
	}
	low, high := switchLinks(f.gpus[0]), switchLinks(f.gpus[0])
	for _, gpu := range f.gpus {
		low, high = min(low, switchLinks(gpu)), max(high, switchLinks(gpu))
	}
	width := fmt.Sprintf("%s per GPU", count(high, "NVLink"))
	if low != high {
		width = fmt.Sprintf("%d to %d NVLinks per GPU", low, high)
	}
	switches := ""
	if f.switches > 0 {
		switches = count(f.switches, "NVSwitch")
	}
	return joined("  ·  ", kind, switches, width)
}

// identity is the fabric's cluster and clique, and its state while it is not
// complete; "" for a fabric that ends at this machine and works.
func (f fabric) identity() string {
	if f.of == nil {
		return ""
	}
	cluster := ""
	if strings.Trim(f.of.ClusterUUID, "0-") != "" {
		cluster = fmt.Sprintf("cluster %s, clique %d", f.of.ClusterUUID, f.of.CliqueID)
	}
	state := ""
	if f.of.State != "" && f.of.State != "Completed" && f.of.State != "NotSupported" {
		state = "state " + f.of.State
	}
	return joined(", ", cluster, state)
}
