// The graph for Graphviz: `hostler topology -o dot | dot -Tsvg`. Sockets, NUMA
// nodes and root complexes are clusters, PCIe links thin lines, NVLink bundles lines
// as strong as they are wide.

package topology

import (
	"fmt"
	"io"
	"strings"
)

const dotHead = `graph topology {
  graph [fontname="sans-serif", fontsize=11, style=rounded, color="#8a97a5", compound=true, nodesep=0.3, ranksep=0.45]
  node [fontname="sans-serif", fontsize=10, shape=box, style="rounded,filled", fillcolor="#ffffff", color="#52606d"]
  edge [fontname="sans-serif", fontsize=9, color="#8a97a5"]
`

// dot is a Graphviz document under construction.
type dot struct {
	DrawOptions
	strings.Builder
	snapshot *Snapshot
	short    map[string]string
	vfs      map[string][]*NIC
	clusters int
	depth    int
}

// WriteDOT draws the snapshot in Graphviz's language.
func WriteDOT(w io.Writer, s *Snapshot, options DrawOptions) error {
	d := &dot{DrawOptions: options.withPairs(s), snapshot: s, short: labels(s), vfs: vfsByPF(s), depth: 1}
	d.WriteString(dotHead)
	if options.Title != "" {
		d.line("label=%s; labelloc=t;", quoted(options.Title))
	}
	for _, socket := range layout(s) {
		title := "PCIe"
		if socket.socket >= 0 {
			title = fmt.Sprintf("Socket %d", socket.socket)
		}
		d.cluster(title, func() {
			for _, node := range socket.nodes {
				d.cluster(nodeTitle(node), func() {
					d.line("%s [style=invis, shape=point];", quoted(fmt.Sprintf("numa%d.%d", socket.socket, node.node)))
					for _, root := range node.roots {
						d.cluster(root.pcieName(), func() { d.group(root, fmt.Sprintf("%d.%d/", socket.socket, node.node)) })
					}
				})
			}
		})
	}
	d.nvlinks()
	d.stackedLinks()
	d.WriteString("}\n")
	_, err := io.WriteString(w, d.String())
	return err
}

func (d *dot) line(format string, args ...any) {
	d.WriteString(strings.Repeat("  ", d.depth))
	fmt.Fprintf(d, format+"\n", args...)
}

func (d *dot) cluster(title string, content func()) {
	d.line("subgraph cluster_%d {", d.clusters)
	d.clusters++
	d.depth++
	d.line("label=%s;", quoted(title))
	content()
	d.depth--
	d.line("}")
}

// group draws a root complex or switch as a node from which its devices hang.
// The same bus may appear under two NUMA nodes, hence the prefix.
func (d *dot) group(group *switchGroup, prefix string) string {
	id := prefix + group.name
	d.line(`%s [label=%s, fillcolor="#dde5ee"];`, quoted(id), quoted(group.pcieName()))
	for _, nic := range group.nics {
		d.nic(nic)
		d.line("%s -- %s;", quoted(id), quoted(nic.Name))
	}
	for _, gpu := range group.gpus {
		d.gpu(gpu)
		d.line("%s -- %s;", quoted(id), quoted(gpu.Name))
	}
	for _, below := range group.switches {
		d.line("%s -- %s;", quoted(id), quoted(d.group(below, prefix)))
	}
	for _, nic := range group.dataDirect {
		d.line("%s -- %s [style=dashed, label=%s, constraint=false];", quoted(id), quoted(nic.Name), quoted("Data Direct"))
	}
	return id
}

func (d *dot) gpu(gpu *GPU) {
	d.device(gpu.Name, "#e3f5d3", "#76b900", false,
		joined("  ", d.short[gpu.Name], gpu.memory()), gpu.shortProduct(), gpu.Placement.PCI, gpu.migSummary(), gpu.condition())
}

func (d *dot) nic(nic *NIC) {
	uplink := ""
	if nic.Uplink != "" {
		uplink = "uplink: " + nic.Uplink
	}
	d.device(nic.Name, "#e2eefc", "#5b9bea", nic.Uplink != "",
		joined("  ", d.short[nic.Name], nic.interfaceName(), nic.rdmaName()), joined(" ", nic.speed(), nic.linkLayer(), nic.state()),
		nic.Placement.PCI, d.vfSummary(d.snapshot, d.vfs[nic.Name]), uplink)
}

func (d *dot) device(name, fill, colour string, uplink bool, lines ...string) {
	style, width := "rounded,filled", 1.0
	if uplink {
		fill, colour, style = "#fdf1d7", "#d99a1b", "rounded,filled,dashed"
	}
	if len(d.Holders[name]) > 0 {
		width = 2.5
	}
	if len(d.faultsOf(d.snapshot, name)) > 0 {
		fill, colour, width = "#fde4e4", "#dc2626", 2.5
	}
	lines = append(lines, d.marks(d.snapshot, name))
	d.line(`%s [label=%s, fillcolor="%s", color="%s", style="%s", penwidth=%.1f];`, quoted(name), quoted(lines...), fill, colour, style, width)
}

func (d *dot) nvlinks() {
	for _, b := range bundlesOf(d.snapshot) {
		d.line(`%s -- %s [label=%s, color="#76b900", penwidth=%d, constraint=false];`,
			quoted(b.a.Name), quoted(b.b.Name), quoted(fmt.Sprintf("NV%d", b.links)), 1+min(b.links, 6))
	}
	for i, f := range fabricsOf(d.snapshot) {
		id := quoted(fmt.Sprintf("fabric%d", i))
		d.line(`%s [label=%s, fillcolor="#3f6b00", fontcolor="#ffffff", shape=box];`, id, quoted(f.title(), f.identity()))
		for _, gpu := range f.gpus {
			n := switchLinks(gpu)
			d.line(`%s -- %s [label=%s, color="#76b900", penwidth=%d];`, quoted(gpu.Name), id, quoted(fmt.Sprintf("NV%d", n)), 1+min(n, 6))
		}
	}
}

func (d *dot) stackedLinks() {
	owner := map[string]string{}
	for i := range d.snapshot.NICs {
		nic := &d.snapshot.NICs[i]
		if nic.Link == nil {
			continue
		}
		owner[nic.Link.Name] = nic.Name
		if d.short[nic.Name] == "" { // a VF: its PF stands for it
			owner[nic.Link.Name] = nic.Parent
		}
	}
	for i := range d.snapshot.StackedLinks {
		link := &d.snapshot.StackedLinks[i]
		id := "link/" + link.Name
		style, colour := "rounded,filled", "#52606d"
		if link.Uplink != "" {
			style, colour = "rounded,filled,dashed", "#d99a1b"
		}
		d.line(`%s [label=%s, fillcolor="#f5f7fa", color="%s", style="%s"];`, quoted(id), quoted(link.Name+" ("+link.Kind+")", link.Uplink), colour, style)
		for _, lower := range link.Lower {
			below := "link/" + lower
			if nic := owner[lower]; nic != "" {
				below = nic
			}
			d.line("%s -- %s [style=dotted];", quoted(below), quoted(id))
		}
	}
}

// quoted is a DOT string of one or more lines. Graphviz reads a backslash as an
// escape and an ampersand as the start of an HTML entity, in any string.
func quoted(lines ...string) string {
	escape := strings.NewReplacer(`\`, `\\`, `"`, `\"`, "&", "&amp;", "<", "&lt;", ">", "&gt;")
	var kept []string
	for _, line := range lines {
		if line = plain(line); line != "" {
			kept = append(kept, escape.Replace(line))
		}
	}
	return `"` + strings.Join(kept, `\n`) + `"`
}
