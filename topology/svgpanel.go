// Panels of the picture: a socket with its NUMA nodes, root complexes, switches,
// NICs and GPUs. Positions count from the socket's edge towards the middle of the
// picture, so that the lower panels are the upper ones turned over.

package topology

import (
	"fmt"
	"strings"
)

const (
	headHeight   = 34 // socket's name
	nodeHead     = 22 // NUMA node's name, where a socket has several
	rootHeight   = 20
	switchHeight = 22
	rowGap       = 10 // between the boxes of a column
	shelfGap     = 20
	widest       = 8 // cells of a shelf, if NVLink does not demand more
)

// panel is a socket laid out.
type panel struct {
	socket                   *socketGroup
	boxes                    []*nodeBox
	left, top, width, height float64
	flipped                  bool
}

// nodeBox is a NUMA node with one or more shelves.
type nodeBox struct {
	node    *nodeGroup
	shelves []*shelf
	left    float64 // from the panel's left edge
	width   float64
}

func (p *picture) newPanel(socket *socketGroup, flipped bool) *panel {
	panel := &panel{socket: socket, flipped: flipped, width: panelPadding}
	for _, node := range socket.nodes {
		if len(node.roots) == 0 {
			continue
		}
		box := &nodeBox{node: node, left: panel.width}
		p.fillShelves(box)
		for _, s := range box.shelves {
			box.width = max(box.width, cellsWidth(s.cells()))
		}
		panel.boxes = append(panel.boxes, box)
		panel.width += box.width + columnGap
	}
	inner := 0.0
	if panel.titled() {
		inner = nodeHead + 12
		for i, box := range panel.boxes { // room for the frames
			box.left += float64(i)*24 + 12
		}
		panel.width += 24 * float64(len(panel.boxes))
	}
	panel.width += panelPadding - columnGap
	for _, box := range panel.boxes {
		panel.height = max(panel.height, p.stackShelves(box, headHeight+inner))
	}
	if panel.titled() {
		panel.height += 12
	}
	if len(panel.boxes) == 0 { // a socket without devices is one line
		panel.width, panel.height = narrowest-2*margin, headHeight
		return panel
	}
	panel.height += panelPadding
	panel.alignGPUs(p)
	return panel
}

// titled: the NUMA nodes need frames and names of their own.
func (p *panel) titled() bool { return len(p.socket.nodes) > 1 && len(p.boxes) > 0 }

// alignGPUs moves the last shelves so that all GPUs of the panel end at the same line.
func (p *panel) alignGPUs(pic *picture) {
	end := p.end()
	for _, box := range p.boxes {
		if last := box.shelves[len(box.shelves)-1]; last.gpus {
			last.start = end - pic.shelfHeight(last)
		}
	}
}

// end is where the devices end, from the socket's edge.
func (p *panel) end() float64 {
	if p.titled() {
		return p.height - panelPadding - 12
	}
	return p.height - panelPadding
}

// eachGPU tells the middle of every GPU's card.
func (p *panel) eachGPU(see func(gpu *GPU, x float64)) {
	var walk func(g *switchGroup, left float64)
	walk = func(g *switchGroup, left float64) {
		direct, below := g.sides(left)
		for i, gpu := range g.gpus {
			see(gpu, direct+float64(i*(cellWidth+columnGap))+indent+cardWidth/2)
		}
		for _, group := range g.switches {
			walk(group, below)
			below += cellsWidth(group.cells()) + columnGap
		}
	}
	for _, box := range p.boxes {
		for _, s := range box.shelves {
			left := p.left + box.left
			for _, root := range s.roots {
				walk(root, left)
				left += cellsWidth(root.cells()) + columnGap
			}
		}
	}
}

// cells that a group needs side by side.
func (g *switchGroup) cells() int { return max(1, g.directCells()+cellsOf(g.switches)) }

// at turns a position from the socket's edge into the y coordinate of a box of that height.
func (p *panel) at(position, height float64) float64 {
	if p.flipped {
		return p.top + p.height - position - height
	}
	return p.top + position
}

func (p *picture) drawPanel(panel *panel) {
	p.rect(panel.left, panel.top, panel.width, panel.height, 12, "panel")
	title := "PCIe"
	if panel.socket.socket >= 0 {
		title = fmt.Sprintf("Socket %d", panel.socket.socket)
	}
	left, y := panel.left+panelPadding, panel.at(0, headHeight)+22
	p.text(left, y, panel.width-2*panelPadding, "heading", title)
	left += faceOf("heading").width(title) + 8
	p.text(left, y, panel.left+panel.width-panelPadding-left, "muted", panel.caption())
	for _, box := range panel.boxes {
		p.drawBox(panel, box)
	}
}

// caption is what stands beside the socket's name: its NUMA node, or those of its nodes that have no devices.
func (p *panel) caption() string {
	var words []string
	for _, node := range p.socket.nodes {
		switch {
		case len(node.roots) == 0:
			words = append(words, nodeTitle(node)+": no devices")
		case !p.titled():
			words = append(words, nodeTitle(node))
		}
	}
	return strings.Join(words, "  ·  ")
}

func (p *picture) drawBox(panel *panel, box *nodeBox) {
	left := panel.left + box.left
	if panel.titled() {
		height := panel.height - headHeight - 12
		y := panel.at(headHeight, height)
		p.rect(left-12, y, box.width+24, height, 10, "node")
		title := nodeTitle(box.node)
		if faceOf("small").width(title) > box.width {
			title = strings.Replace(title, "NUMA node", "NUMA", 1)
		}
		p.text(left, panel.at(headHeight, nodeHead)+17, box.width, "small", title)
	}
	for _, s := range box.shelves {
		x := left
		for _, root := range s.roots {
			p.drawGroup(panel, s, root, x, 0)
			x += cellsWidth(root.cells()) + columnGap
		}
	}
}

// drawGroup draws a root complex or a switch, what hangs from it directly, and then the switches below it.
func (p *picture) drawGroup(panel *panel, s *shelf, g *switchGroup, left float64, level int) {
	start, height, class, radius := s.start, float64(rootHeight), "root", 10.0
	if level > 0 {
		start += float64(rootHeight + rowGap + (level-1)*(switchHeight+rowGap))
		height, class, radius = switchHeight, "switch", 5
	}
	x, below := g.sides(left)
	for i, slots := range p.slots(g) {
		p.drawCell(panel, s, g, i, slots, x, start+height)
		x += cellWidth + columnGap
	}
	for _, group := range g.switches {
		middle := below + cellsWidth(group.cells())/2
		p.line(middle, panel.at(start+height, 0), middle, panel.at(start+height+rowGap, 0), "wire")
		p.drawGroup(panel, s, group, below, level+1)
		below += cellsWidth(group.cells()) + columnGap
	}
	width := cellsWidth(g.cells())
	y := panel.at(start, height)
	p.group(g.pcieName())
	p.rect(left, y, width, height, radius, class)
	p.centred(left+width/2, y+height/2+4, width-12, "small", strings.Replace(g.pcieName(), " 0000:", " ", 1))
	p.endGroup()
}
