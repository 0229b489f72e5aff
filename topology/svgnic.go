// NICs in the picture: which cell they hang in, their cards, and the strip of a
// PF's VFs. A NIC's card is as high as it needs.

package topology

import (
	"fmt"
	"slices"
)

// slot is a place in a cell: a NIC, or the second interface of one that is elsewhere.
type slot struct {
	nic    *NIC
	second bool
}

// slots deals a group's NICs out to its cells: to the GPU of their rail, the others to where most room is.
func (p *picture) slots(g *switchGroup) [][]slot {
	cells := make([][]slot, g.directCells())
	if len(cells) == 0 {
		return nil
	}
	deal := func(nic *NIC, second bool) {
		rail, railed := p.rails[nic.Name]
		best := slices.IndexFunc(g.gpus, func(gpu *GPU) bool {
			r, ok := p.rails[gpu.Name]
			return railed && ok && r == rail
		})
		if best < 0 {
			best = 0
			for i := range cells {
				if len(cells[i]) < len(cells[best]) {
					best = i
				}
			}
		}
		cells[best] = append(cells[best], slot{nic, second})
	}
	for _, nic := range g.nics {
		deal(nic, false)
	}
	for _, nic := range g.dataDirect {
		deal(nic, true)
	}
	return cells
}

func (p *picture) slotHeight(at slot) float64 {
	height := float64(nicHead)
	if at.second {
		return height
	}
	if len(p.vfs[at.nic.Name]) > 0 {
		height += stripHeight
	}
	if notes := len(p.nicNotes(at.nic)); notes > 0 {
		height += float64(notes*noteHeight) + 2
	}
	return height
}

func (p *picture) nicNotes(nic *NIC) []note {
	notes := p.faultNotes(nic.Name)
	if nic.Uplink != "" {
		notes = append(notes, note{"uplink", "note warn", "node uplink"})
	}
	return limited(append(notes, p.holderNotes(nic.Name)...))
}

func (p *picture) drawNIC(at slot, left, top, height float64) {
	nic := at.nic
	right := left + cardWidth - cardPadding
	if at.second {
		p.used["second"] = true
		p.group(fmt.Sprintf("Data Direct interface of %s at %s", nic.Name, nic.DataDirect.PCI))
		p.rect(left, top, cardWidth, height, 8, "nic second")
		p.text(left+cardPadding, top+20, cardInner, "strong", nic.interfaceName())
		p.text(left+cardPadding, top+36, cardInner, "small", "Data Direct of "+p.short[nic.Name])
		p.text(left+cardPadding, top+52, cardInner, "mono", shortPCI(nic.DataDirect.PCI))
		p.endGroup()
		return
	}
	p.used["nic"], p.used[nic.state()] = true, true
	p.group(joined(", ", nic.Name, nic.Placement.PCI, nic.interfaceName(), nic.rdmaName(), nic.speed(), nic.linkLayer(), nic.state(),
		nic.Uplink, p.vfSummary(p.snapshot, p.vfs[nic.Name]), p.marks(p.snapshot, nic.Name)))
	p.rect(left, top, cardWidth, height, 8, p.cardClass("nic", nic.Name, nic.Uplink))
	p.dot(left+cardPadding+4, top+16, nic.state())
	p.text(left+cardPadding+14, top+20, cardInner-14, "strong", nic.interfaceName())
	rail := p.railTitle(nic.Name)
	room, layer := cardInner-faceOf("small").width(rail)-4, nic.linkLayer()
	if layer == "InfiniBand" && faceOf("small").width(nic.speed()+" "+layer) > room {
		layer = "IB"
	}
	p.text(left+cardPadding, top+36, room, "small", joined(" ", nic.speed(), layer))
	p.right(right, top+36, 52, "small", rail)
	address := shortPCI(nic.Placement.PCI)
	p.right(right, top+52, cardInner, "mono", address)
	room = cardInner - faceOf("mono").width(address) - 6
	names := joined(" ", p.short[nic.Name], nic.rdmaName())
	if nic.rdmaName() != "" && faceOf("mono").width(names) > room {
		names = nic.rdmaName()
	}
	p.text(left+cardPadding, top+52, room, "mono", names)
	y := top + 61
	if vfs := p.vfs[nic.Name]; len(vfs) > 0 {
		p.drawVFs(vfs, left+cardPadding, y)
		y += stripHeight
	}
	p.notes(p.nicNotes(nic), left, y+noteHeight-6)
	p.endGroup()
}

// drawVFs draws a PF's VFs as one strip, in which those that are held, faulty or the node's own stand out.
func (p *picture) drawVFs(vfs []*NIC, left, top float64) {
	p.used["vf"] = true
	width := float64(cardInner) / float64(len(vfs))
	p.rect(left, top, cardInner, 7, 1, "vf")
	for i := 0; i < len(vfs); {
		state, end := p.vfState(p.snapshot, vfs[i]), i+1
		for end < len(vfs) && p.vfState(p.snapshot, vfs[end]) == state {
			end++
		}
		x, size := left+float64(i)*width, max(1.6, float64(end-i)*width)
		switch state {
		case "faulty": // taller, to be seen without colours too
			p.rect(x, top-2, max(2.4, size), 11, 0, "vf faulty")
			p.used["vffaulty"] = true
		case "held", "uplink":
			p.rect(x, top, size, 7, 0, "vf "+state)
			p.used["vf"+state] = true
		}
		i = end
	}
	marks := p.vfMarks(p.snapshot, vfs)
	title := count(len(vfs), "VF")
	p.text(left, top+19, cardInner, "tiny", title)
	p.right(left+cardInner, top+19, cardInner-faceOf("tiny").width(title)-4, "tiny", marks)
}
