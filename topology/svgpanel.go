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
	for i, column := range panel.columns {
		left := panel.left + panelPadding + float64(i)*(columnWidth+columnGap)
		p.drawColumn(panel, column, left)
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
	for i, column := range panel.columns {
		if !column.firstNode {
			continue
		}
		x := panel.left + panelPadding + float64(i)*(columnWidth+columnGap)
		width := float64(columnWidth)
		if i == 0 {
			x += float64(titleLength)*9 + 14
		}
		for j := i + 1; j < len(panel.columns) && !panel.columns[j].firstNode; j++ {
			width += columnWidth + columnGap
		}
		p.text(x, panel.row(14, 14)+11, "muted", clip(nodeTitle(column.node), width-float64(titleLength)*9))
	}
}

func (p *picture) drawColumn(panel *panel, column column, left float64) {
	centre := left + columnWidth/2
	offset := float64(panelPadding + headHeight)
	root := panel.row(offset, rootHeight)
	spine := root + rootHeight
	end := panel.columnEnd(column)
	if panel.flipped {
		spine, end = end, root
	}
	p.line(centre, spine, centre, end, "wire")
	p.rect(left+14, root, columnWidth-28, rootHeight, 11, "root")
	p.centred(centre, root+15, "small", orDash(column.root))

	offset += rootHeight + rowGap
	if column.switchPCI != "" {
		y := panel.row(offset, switchHeight)
		p.rect(left, y, columnWidth, switchHeight, 6, "switch")
		p.centred(centre, y+17, "small", "switch "+strings.TrimPrefix(column.switchPCI, "0000:"))
	}
	offset += switchHeight + rowGap
	for _, nic := range column.nics {
		p.drawNIC(nic, left, panel.row(offset, nicHeight))
		offset += nicHeight + rowGap
	}
	offset = panel.gpuOffset()
	for i, gpu := range column.gpus {
		y := panel.row(offset, gpuHeight)
		p.drawGPU(gpu, left, y)
		if i == len(column.gpus)-1 {
			edge := y + gpuHeight
			if panel.flipped {
				edge = y
			}
			p.anchors[gpu.Name] = anchor{centre, edge, panel.flipped}
		} else { // behind another GPU: leave at the side
			p.anchors[gpu.Name] = anchor{left + columnWidth - 12, y + gpuHeight/2, panel.flipped}
		}
		offset += gpuHeight + rowGap
	}
}

// gpuOffset is where GPUs begin: below the tallest stack of NICs of the panel.
func (p *panel) gpuOffset() float64 {
	return float64(panelPadding + headHeight + rootHeight + rowGap + switchHeight + rowGap + p.nics*(nicHeight+rowGap))
}

// columnEnd is the y coordinate at which a column's line to its last device ends.
func (p *panel) columnEnd(c column) float64 {
	if len(c.gpus) > 0 {
		return p.row(p.gpuOffset(), 0)
	}
	return p.row(p.gpuOffset()-float64((p.nics-len(c.nics))*(nicHeight+rowGap))-rowGap-nicHeight/2, 0)
}

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
	p.rect(left, top, columnWidth, gpuHeight, 10, class)
	p.text(left+12, top+23, "name", p.short[gpu.Name])
	p.right(left+columnWidth-12, top+23, "small", gpu.memory())
	p.text(left+12, top+41, "label", clip(gpu.shortProduct(), columnWidth-24))
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
	p.rect(left, top, columnWidth, nicHeight, 8, class)
	p.circle(left+15, top+16, 4.5, "dot "+nic.state())
	p.text(left+26, top+20, "label strong", clip(nic.interfaceName(), columnWidth-36))
	rdma := ""
	if nic.RDMA != nil && nic.RDMA.Name != nic.interfaceName() {
		rdma = nic.RDMA.Name
	}
	vfs := ""
	if n := vfsOf(p.snapshot, nic.Name); n > 0 {
		vfs = fmt.Sprintf("%d VFs", n)
	}
	p.text(left+12, top+37, "muted", clip(joined(" · ", rdma, nic.speed(), vfs), columnWidth-20))
	if note == "" {
		p.text(left+12, top+nicHeight-9, "muted mono", nic.Placement.PCI)
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
	p.text(left+12, y, class, clip(note, columnWidth-24))
}

func noteText(note string) string {
	if note == "" {
		return ""
	}
	return ": " + note
}
