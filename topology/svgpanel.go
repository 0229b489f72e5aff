// Panels of the picture: a socket's root complexes, switches, NICs and GPUs.

package topology

import (
	"fmt"
	"strings"
)

// drawPanel draws from the socket towards the middle; flipped panels do so upwards.
func (p *picture) drawPanel(panel *panel) {
	p.rect(panel.left, panel.top, panel.width(), panel.height(), 14, "panel")
	title := "PCIe"
	if panel.socket.socket >= 0 {
		title = fmt.Sprintf("Socket %d", panel.socket.socket)
	}
	p.text(panel.left+panelPadding, panel.row(14, 14)+11, "heading", title)
	left := panel.left + panelPadding
	for _, column := range panel.columns {
		p.drawColumn(panel, column, left)
		left += column.width() + columnGap
	}
	p.nodeTitles(panel, len(title))
}

// row turns an offset from the socket's edge of the panel into a y coordinate
// of a box of that height.
func (p *panel) row(offset, height float64) float64 {
	if p.flipped {
		return p.top + p.height() - offset - height
	}
	return p.top + offset
}

// nodeTitles writes each NUMA node's name above its first column, after the socket's name.
func (p *picture) nodeTitles(panel *panel, titleLength int) {
	left := panel.left + panelPadding
	for i, column := range panel.columns {
		if column.firstNode {
			width := -float64(columnGap)
			for j := i; j < len(panel.columns) && (j == i || !panel.columns[j].firstNode); j++ {
				width += panel.columns[j].width() + columnGap
			}
			x := left
			if i == 0 {
				x += float64(titleLength)*9 + 14
			}
			p.text(x, panel.row(14, 14)+11, "muted", clip(nodeTitle(column.node), left+width-x, smallRune))
		}
		left += column.width() + columnGap
	}
}

// drawColumn draws a root complex, its switch, and the devices that hang from
// lines at the left of each cell: siblings, none behind another.
func (p *picture) drawColumn(panel *panel, column column, left float64) {
	p.wires(panel, column, left)
	offset := float64(panelPadding + headHeight)
	y := panel.row(offset, rootHeight)
	p.rect(left, y, column.width(), rootHeight, 11, "root")
	p.centred(left+column.width()/2, y+15, "small", orDash(column.root))
	if column.switchPCI != "" {
		y := panel.row(offset+rootHeight+rowGap, switchHeight)
		p.rect(left, y, column.width(), switchHeight, 6, "switch")
		p.centred(left+column.width()/2, y+17, "small", "switch "+strings.TrimPrefix(column.switchPCI, "0000:"))
	}
	for i, nic := range column.nics {
		p.drawNIC(nic, column.card(left, i), panel.row(panel.nicOffset(i/column.cells()), nicHeight))
	}
	for i, gpu := range column.gpus {
		x, y := column.card(left, i), panel.row(panel.gpuOffset(), gpuHeight)
		p.drawGPU(gpu, x, y)
		edge := y + gpuHeight
		if panel.flipped {
			edge = y
		}
		p.anchors[gpu.Name] = anchor{x + cardWidth/2, edge, panel.flipped}
	}
}

// card is the left edge of the ith device of its kind.
func (c column) card(left float64, i int) float64 {
	return left + float64(i%c.cells()*(cellWidth+columnGap)) + indent
}

// wires draws in every cell the line from the root complex or switch to the
// last device, and a branch to each.
func (p *picture) wires(panel *panel, column column, left float64) {
	ends := make([][]float64, column.cells())
	hang := func(i int, offset float64) {
		cell := i % column.cells()
		ends[cell] = append(ends[cell], panel.row(offset, 0))
	}
	for i := range column.nics {
		hang(i, panel.nicOffset(i/column.cells())+nicHeight/2)
	}
	for i := range column.gpus {
		hang(i, panel.gpuOffset()+gpuHeight/2)
	}
	start := panel.row(panelPadding+headHeight+rootHeight/2, 0)
	for cell, ends := range ends {
		card := column.card(left, cell)
		for _, end := range ends {
			p.line(card-indent/2, end, card, end, "wire")
		}
		if len(ends) > 0 {
			p.line(card-indent/2, start, card-indent/2, ends[len(ends)-1], "wire")
		}
	}
}

// nicOffset is where the nth row of NICs begins.
func (p *panel) nicOffset(n int) float64 {
	offset := panelPadding + headHeight + rootHeight + rowGap + n*(nicHeight+rowGap)
	if p.switches {
		offset += switchHeight + rowGap
	}
	return float64(offset)
}

// gpuOffset is where the GPUs begin: below all NICs of the panel.
func (p *panel) gpuOffset() float64 { return p.nicOffset(p.nics) }

func (p *picture) drawGPU(gpu *GPU, left, top float64) {
	class := "gpu"
	note := p.options.Holders[gpu.Name]
	if note != "" {
		class += " held"
	}
	fault := p.options.Faults[gpu.Name]
	if fault == "" && gpu.Lost {
		fault = "lost"
	}
	if fault != "" {
		class, note = "gpu fault", fault
	}
	p.group(gpu.Name + joined("", ": ", gpu.ProductName) + noteText(note))
	p.rect(left, top, cardWidth, gpuHeight, 10, class)
	p.text(left+12, top+23, "name", p.short[gpu.Name])
	p.right(left+cardWidth-12, top+23, "small", gpu.memory())
	p.text(left+12, top+41, "label", clip(gpu.shortProduct(), cardWidth-24, labelRune))
	p.text(left+12, top+57, "muted mono", gpu.Placement.PCI)
	p.note(left, top+gpuHeight-10, note, fault != "")
	p.endGroup()
}

func (p *picture) drawNIC(nic *NIC, left, top float64) {
	class := "nic"
	note := p.options.Holders[nic.Name]
	if note != "" {
		class += " held"
	}
	if nic.Uplink != "" {
		class, note = "nic uplink", "node uplink"
	}
	fault := p.options.Faults[nic.Name]
	if fault != "" {
		class, note = "nic fault", fault
	}
	title := nic.Name + noteText(note)
	if nic.Uplink != "" {
		title = nic.Name + ": " + nic.Uplink
	}
	p.group(title)
	p.rect(left, top, cardWidth, nicHeight, 8, class)
	p.circle(left+15, top+16, 4.5, "dot "+nic.state())
	p.text(left+26, top+20, "label strong", clip(nic.interfaceName(), cardWidth-34, labelRune))
	rdma := ""
	if nic.RDMA != nil && nic.RDMA.Name != nic.interfaceName() {
		rdma = nic.RDMA.Name
	}
	p.text(left+12, top+37, "muted", clip(joined(" · ", rdma, nic.speed()), cardWidth-20, smallRune))
	if note == "" {
		p.text(left+12, top+nicHeight-9, "muted mono", nic.Placement.PCI)
		if n := vfsOf(p.snapshot, nic.Name); n > 0 {
			p.right(left+cardWidth-12, top+nicHeight-9, "small", count(n, "VF"))
		}
	}
	p.note(left, top+nicHeight-9, note, fault != "")
	p.endGroup()
}

// note is the line at the foot of a card: who holds it or what is wrong.
func (p *picture) note(left, y float64, note string, fault bool) {
	if note == "" {
		return
	}
	class := "note"
	if fault {
		class = "note bad"
	}
	p.text(left+12, y, class, clip(note, cardWidth-20, labelRune))
}

func noteText(note string) string {
	if note == "" {
		return ""
	}
	return ": " + note
}
