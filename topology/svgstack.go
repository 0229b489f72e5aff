// Below the machine: the node's own links, each drawn over those that it lies
// over like one block on another, and the NUMA distances where there are more
// than two nodes.

package topology

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

const (
	baseHeight  = 24
	blockHeight = 38
	blockGap    = 5
	baseWidth   = 172
	mostBlocks  = 5 // rows of blocks over a NIC
)

// stack is a set of links that lie over each other, over the links of NICs.
type stack struct {
	bases  []string // names of netdevs, in the order of their NICs
	blocks []block
	hidden int // links that found no room
}

// block is a stacked link over the bases first to last, row rows above them.
type block struct {
	link        *StackedLink
	first, last int
	row         int
}

// stacksOf sorts the stacked links into stacks that have nothing to do with each other.
func stacksOf(s *Snapshot) []*stack {
	links := map[string]*StackedLink{}
	for i := range s.StackedLinks {
		links[s.StackedLinks[i].Name] = &s.StackedLinks[i]
	}
	order := map[string]int{} // unknown bases first
	for i, nic := range s.NICs {
		if nic.Link != nil {
			order[nic.Link.Name] = i + 1
		}
	}
	bases := map[string][]string{}
	depth := map[string]int{}
	for name := range links {
		found := map[string]bool{}
		depth[name] = basesOf(links, name, map[string]bool{}, found)
		bases[name] = slices.Collect(maps.Keys(found))
	}
	names := slices.SortedFunc(maps.Keys(links), func(a, b string) int {
		return cmp.Or(cmp.Compare(depth[a], depth[b]), cmp.Compare(links[b].Uplink, links[a].Uplink), cmp.Compare(a, b))
	})
	var stacks []*stack
	for _, group := range connected(names, bases) {
		st := &stack{bases: group.bases}
		slices.SortFunc(st.bases, func(a, b string) int { return cmp.Or(cmp.Compare(order[a], order[b]), cmp.Compare(a, b)) })
		for _, name := range group.links {
			st.put(links[name], bases[name], depth[name])
		}
		stacks = append(stacks, st)
	}
	slices.SortFunc(stacks, func(a, b *stack) int {
		return cmp.Or(cmp.Compare(order[a.bases[0]], order[b.bases[0]]), cmp.Compare(a.bases[0], b.bases[0]))
	})
	return stacks
}

// basesOf finds the links at the bottom of a link and returns how many levels
// it is above them. The kernel allows no circles, but a snapshot might hold one.
func basesOf(links map[string]*StackedLink, name string, seen, found map[string]bool) int {
	link := links[name]
	if link == nil || seen[name] || len(link.Lower) == 0 {
		found[name] = true
		return 0
	}
	seen[name] = true
	depth := 0
	for _, lower := range link.Lower {
		depth = max(depth, basesOf(links, lower, seen, found))
	}
	delete(seen, name)
	return depth + 1
}

type linkGroup struct{ links, bases []string }

// connected groups links that share a base.
func connected(names []string, bases map[string][]string) []*linkGroup {
	var groups []*linkGroup
	for _, name := range names {
		joint := &linkGroup{links: []string{name}, bases: slices.Clone(bases[name])}
		groups = slices.DeleteFunc(groups, func(g *linkGroup) bool {
			if !slices.ContainsFunc(g.bases, func(base string) bool { return slices.Contains(bases[name], base) }) {
				return false
			}
			joint.links = append(slices.Clone(g.links), joint.links...)
			joint.bases = append(joint.bases, g.bases...)
			return true
		})
		slices.Sort(joint.bases)
		joint.bases = slices.Compact(joint.bases)
		groups = append(groups, joint)
	}
	return groups
}

// put lays a link on its stack, on the first row from its depth on that has room.
func (st *stack) put(link *StackedLink, bases []string, depth int) {
	b := block{link: link, first: len(st.bases), last: -1, row: max(1, depth)}
	for _, base := range bases {
		at := slices.Index(st.bases, base)
		b.first, b.last = min(b.first, at), max(b.last, at)
	}
	for slices.ContainsFunc(st.blocks, func(o block) bool { return o.row == b.row && o.first <= b.last && b.first <= o.last }) {
		b.row++
	}
	if b.row > mostBlocks {
		st.hidden++
		return
	}
	st.blocks = append(st.blocks, b)
}

func (st *stack) rows() int {
	rows := 0
	for _, b := range st.blocks {
		rows = max(rows, b.row)
	}
	return rows
}

func (st *stack) height() float64 {
	height := baseHeight + float64(st.rows())*(blockHeight+blockGap)
	if st.hidden > 0 {
		height += 16
	}
	return height
}

// drawStacks draws the stacks side by side, as many as fit the picture's width.
func (p *picture) drawStacks() {
	if len(p.stacks) == 0 {
		return
	}
	p.height += 30
	p.text(margin, p.height, p.width-2*margin, "heading", "Links over the NICs")
	p.height += 12
	room := p.width - 2*margin
	for rest := p.stacks; len(rest) > 0; {
		x, tallest, n := float64(margin), 0.0, 0
		for _, st := range rest {
			width := st.width(room)
			if n > 0 && x+width > margin+room {
				break
			}
			tallest = max(tallest, st.height())
			x += width + 2*columnGap
			n++
		}
		x = margin
		for _, st := range rest[:n] {
			p.drawStack(st, x, p.height+tallest, st.width(room))
			x += st.width(room) + 2*columnGap
		}
		p.height += tallest + rowGap
		rest = rest[n:]
	}
	p.height -= rowGap
}

func (st *stack) width(room float64) float64 {
	return min(room, float64(len(st.bases))*(baseWidth+blockGap)-blockGap)
}

// drawStack draws from the bottom up: the NICs' links, then what lies over them.
func (p *picture) drawStack(st *stack, left, bottom, width float64) {
	each := (width + blockGap) / float64(len(st.bases))
	for i, base := range st.bases {
		class, title, state := "nic", base, ""
		if nic := p.nicOf(base); nic != nil {
			class, title, state = p.cardClass("nic", nic.Name, nic.Uplink), joined(" ", base, p.short[nic.Name]), nic.state()
		}
		x, y := left+float64(i)*each, bottom-baseHeight
		p.group(title)
		p.rect(x, y, each-blockGap, baseHeight, 6, class)
		shift := 10.0
		if state != "" {
			p.circle(x+14, y+baseHeight/2, 4, state)
			shift = 24
		}
		p.text(x+shift, y+16, each-blockGap-shift-6, "small", title)
		p.endGroup()
	}
	for _, b := range st.blocks {
		x := left + float64(b.first)*each
		p.drawBlock(b, x, bottom-baseHeight-float64(b.row)*(blockHeight+blockGap), float64(b.last-b.first+1)*each-blockGap)
	}
	if st.hidden > 0 {
		p.text(left, bottom-st.height()+11, width, "muted", fmt.Sprintf("and %s more above", count(st.hidden, "link")))
	}
}

func (p *picture) nicOf(netdev string) *NIC {
	for i := range p.snapshot.NICs {
		if nic := &p.snapshot.NICs[i]; nic.Link != nil && nic.Link.Name == netdev {
			return nic
		}
	}
	return nil
}

func (p *picture) drawBlock(b block, x, y, width float64) {
	class, state := "stacked", "down"
	if b.link.Uplink != "" {
		class, p.used["uplink"] = "stacked uplink", true
	}
	if b.link.Up {
		state = "up"
	}
	p.used[state] = true
	p.group(joined(", ", b.link.Kind+" "+b.link.Name, "over "+strings.Join(b.link.Lower, " "), state, b.link.Uplink))
	p.rect(x, y, width, blockHeight, 6, class)
	p.circle(x+14, y+13, 4, state)
	kind := faceOf("small").fit(b.link.Kind, (width-40)/2)
	room := faceOf("small").width(kind)
	p.text(x+24, y+17, width-room-40, "strong", b.link.Name)
	p.right(x+width-10, y+17, room, "small", kind)
	var addresses []string
	for _, a := range b.link.Addresses {
		addresses = append(addresses, a.String())
	}
	second, shift := strings.Join(addresses, " "), 10.0
	if b.link.Uplink != "" {
		p.icon("uplink", x+10, y+32)
		p.text(x+24, y+32, width-34, "note warn", joined("  ", "node uplink", second))
	} else {
		p.text(x+shift, y+32, width-20, "small", second)
	}
	p.endGroup()
}

// drawDistances writes the SLIT as a table. With one or two nodes it says nothing new.
func (p *picture) drawDistances() {
	var nodes []int // indexes
	for i, n := range p.snapshot.NUMANodes {
		if n.CPUs != "" || p.hasDevices(n.ID) {
			nodes = append(nodes, i)
		}
	}
	const side = 19
	if len(nodes) < 3 || len(nodes) > 16 {
		return
	}
	p.height += 30
	p.text(margin, p.height, p.width-2*margin, "heading", "NUMA distances")
	p.height += 10
	cell := min(34, (p.width-2*margin)/float64(len(nodes)+1))
	for i, from := range nodes {
		x := margin + float64(i+1)*cell
		p.centred(x+cell/2, p.height+12, cell, "muted", strconv.Itoa(p.snapshot.NUMANodes[from].ID))
		y := p.height + float64(i+1)*side
		p.centred(margin+cell/2, y+13, cell, "muted", strconv.Itoa(p.snapshot.NUMANodes[from].ID))
		for j, to := range nodes {
			x, class, text := margin+float64(j+1)*cell, "cell", "?"
			if row := p.snapshot.NUMANodes[from].Distances; to < len(row) {
				text = strconv.Itoa(row[to])
			}
			if i == j {
				class = "cell near"
			}
			p.rect(x, y, cell, side, 0, class)
			p.centred(x+cell/2, y+13, cell-2, "tiny", text)
		}
	}
	p.height += float64(len(nodes)+1) * side
}

func (p *picture) hasDevices(node int) bool {
	return slices.ContainsFunc(p.snapshot.GPUs, func(g GPU) bool { return g.Placement.NUMANode == node }) ||
		slices.ContainsFunc(p.snapshot.NICs, func(n NIC) bool { return n.Placement.NUMANode == node })
}
