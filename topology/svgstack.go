// Below the machine: the node's own links, each drawn over those that it lies
// over like one block on another, and the NUMA distances where there are more
// than two nodes.

package topology

import (
	"fmt"
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
			p.dot(x+14, y+baseHeight/2, state)
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
	p.dot(x+14, y+13, state)
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
