// Cards of the picture: GPUs with the bar of their partitions, NICs with the
// strip of their VFs, and the notes on them. GPUs are all as high as the one that
// has most to say, so that they stand in line; a NIC is as high as it needs.

package topology

import (
	"fmt"
	"slices"
	"strings"
)

const (
	cardPadding = 11
	cardInner   = cardWidth - 2*cardPadding
	noteHeight  = 15
	barHeight   = 17 // of partitions
	nicHead     = 61 // of a NIC without VFs and notes
	stripHeight = 27 // of VFs with what is said of them
	maxNotes    = 6
)

// note is a line at the foot of a card.
type note struct{ icon, class, text string }

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

// sizeGPUs makes room for the GPU that has most to say.
func (p *picture) sizeGPUs() {
	notes := 0
	p.gpuHeight = 48
	for i := range p.snapshot.GPUs {
		gpu := &p.snapshot.GPUs[i]
		notes = max(notes, len(p.gpuNotes(gpu)))
		p.cut = p.cut || gpu.MIG != nil && gpu.MIG.MemorySlices > 0
	}
	if p.mixed {
		p.gpuHeight += 15
	}
	if p.cut {
		p.gpuHeight += barHeight + 9
	}
	if notes > 0 {
		p.gpuHeight += float64(notes*noteHeight) + 4
	}
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

// drawCell draws the NICs and the GPU of one cell, and the line from which they hang.
func (p *picture) drawCell(panel *panel, s *shelf, g *switchGroup, i int, slots []slot, left, from float64) {
	position := s.start + float64(rootHeight+rowGap+s.levels*(switchHeight+rowGap))
	card, wire := left+indent, left+indent/2
	end := from
	hang := func(height float64) float64 {
		y := panel.at(position, height)
		end = position + height/2
		p.line(wire, y+height/2, card, y+height/2, "wire")
		return y
	}
	var draw []func()
	for _, slot := range slots {
		height := p.slotHeight(slot)
		y := hang(height)
		draw = append(draw, func() { p.drawNIC(slot, card, y, height) })
		position += height + rowGap
	}
	if i < len(g.gpus) {
		if p.linked() {
			position = s.start + p.shelfHeight(s) - p.gpuHeight
		}
		y := hang(p.gpuHeight)
		draw = append(draw, func() { p.drawGPU(g.gpus[i], card, y) })
	}
	p.line(wire, panel.at(from, 0), wire, panel.at(end, 0), "wire")
	for _, card := range draw {
		card()
	}
}

func (p *picture) holderNotes(name string) []note {
	var notes []note
	for i, holder := range p.Holders[name] {
		if i == 2 {
			return append(notes, note{"", "note quiet", fmt.Sprintf("and %d more holders", len(p.Holders[name])-i)})
		}
		notes = append(notes, note{"pod", "note", holder.words()})
		if len(holder.Pods) > 0 {
			notes = append(notes, note{"", "note quiet", "claim " + withoutNamespace(holder)})
		}
	}
	return notes
}

// withoutNamespace is the claim's name; its namespace is the pod's.
func withoutNamespace(h Holder) string {
	namespace, _, _ := strings.Cut(h.Pods[0], "/")
	return strings.TrimPrefix(h.Claim, namespace+"/")
}

func (p *picture) faultNotes(name string) []note {
	var notes []note
	for i, fault := range p.faultsOf(p.snapshot, name) {
		if i == 2 {
			break // the tooltip has all
		}
		notes = append(notes, note{"fault", "note bad", fault})
	}
	return notes
}

func (p *picture) gpuNotes(gpu *GPU) []note {
	notes := p.faultNotes(gpu.Name)
	if len(gpu.Problems) > 0 && !gpu.Lost {
		notes = append(notes, note{"", "note quiet", "unread: " + gpu.Problems[0].Subject})
	}
	notes = append(notes, p.holderNotes(gpu.Name)...)
	for _, partition := range Partitions(gpu) {
		for _, fault := range p.Faults[partition.Name] {
			notes = append(notes, note{"fault", "note bad", partition.Profile.Name + " " + fault})
		}
		for _, holder := range p.Holders[partition.Name] {
			notes = append(notes, note{"pod", "note", partition.Profile.Name + " " + holder.words()})
		}
	}
	return limited(notes)
}

func (p *picture) nicNotes(nic *NIC) []note {
	notes := p.faultNotes(nic.Name)
	if nic.Uplink != "" {
		notes = append(notes, note{"uplink", "note warn", "node uplink"})
	}
	return limited(append(notes, p.holderNotes(nic.Name)...))
}

func limited(notes []note) []note {
	if len(notes) <= maxNotes {
		return notes
	}
	return append(notes[:maxNotes-1], note{"", "note quiet", fmt.Sprintf("and %d more", len(notes)-maxNotes+1)})
}

// cardClass is a card's class by what is most important to know of the device.
func (p *picture) cardClass(kind, name, uplink string) string {
	switch {
	case len(p.faultsOf(p.snapshot, name)) > 0:
		p.used["fault"] = true
		return kind + " fault"
	case uplink != "":
		p.used["uplink"] = true
		return kind + " uplink"
	case len(p.Holders[name]) > 0:
		p.used["held"] = true
		return kind + " held"
	}
	return kind
}

func (p *picture) notes(notes []note, left, y float64) {
	for _, n := range notes {
		shift := 0.0
		if n.icon != "" {
			p.icon(n.icon, left+cardPadding, y)
			shift = 14
		}
		p.text(left+cardPadding+shift, y, cardInner-shift, n.class, n.text)
		y += noteHeight
	}
}

func (p *picture) railTitle(name string) string {
	if rail, ok := p.rails[name]; ok {
		return fmt.Sprintf("rail %d", rail)
	}
	return ""
}

func (p *picture) drawGPU(gpu *GPU, left, top float64) {
	p.used["gpu"] = true
	p.group(joined(", ", gpu.Name, gpu.ProductName, gpu.memory(), gpu.Placement.PCI, gpu.UUID, linksTitle(gpu), gpu.migSummary(),
		gpu.condition(), p.marks(p.snapshot, gpu.Name)))
	p.rect(left, top, cardWidth, p.gpuHeight, 9, p.cardClass("gpu", gpu.Name, ""))
	right := left + cardWidth - cardPadding
	p.text(left+cardPadding, top+22, 76, "name", p.short[gpu.Name])
	p.right(right, top+22, 66, "small", gpu.memory())
	p.text(left+cardPadding, top+38, 90, "mono", shortPCI(gpu.Placement.PCI))
	p.right(right, top+38, 52, "small", p.railTitle(gpu.Name))
	y := top + 48
	if p.mixed {
		p.text(left+cardPadding, y+4, cardInner, "small", gpu.shortProduct())
		y += 15
	}
	if p.cut {
		p.used["mig"] = true
		p.drawPartitions(gpu, left+cardPadding, y-1)
		y += barHeight + 9
	}
	p.notes(p.gpuNotes(gpu), left, y+noteHeight-5)
	p.endGroup()
}

// drawPartitions draws the GPU's memory slices: those of instances in one piece each, the free ones empty.
func (p *picture) drawPartitions(gpu *GPU, left, top float64) {
	if gpu.MIG == nil || gpu.MIG.MemorySlices <= 0 {
		return
	}
	width := float64(cardInner) / float64(gpu.MIG.MemorySlices)
	for slice := range gpu.MIG.MemorySlices {
		p.rect(left+float64(slice)*width, top, width, barHeight, 2, "free")
	}
	for i := range gpu.MIG.Instances {
		instance := &gpu.MIG.Instances[i]
		name, profile := gpu.instanceName(instance), gpu.MIG.profileName(instance.ProfileID)
		class := ""
		switch {
		case len(p.Faults[name]) > 0:
			class, p.used["fault"] = " faulty", true
		case len(p.Holders[name]) > 0:
			class, p.used["cutheld"] = " held", true
		}
		p.used["cut"] = true
		x := left + float64(instance.Placement.Start)*width
		size := min(float64(instance.Placement.Size)*width, left+cardInner-x)
		if size <= 0 {
			continue // a placement beyond the slices that the driver says there are
		}
		p.group(joined(", ", "MIG "+profile, slicesTitle(instance.Placement), name, p.marks(p.snapshot, name)))
		p.rect(x+.5, top, size-1, barHeight, 3, "cut"+class)
		label := profile
		if faceOf("tiny").width(label) > size-3 {
			label, _, _ = strings.Cut(profile, ".")
		}
		p.centred(x+size/2, top+12.5, size-2, "tiny cutname"+class, label)
		p.endGroup()
	}
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
	p.circle(left+cardPadding+4, top+16, 4, nic.state())
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

// shortPCI leaves the domain out where it is the first one.
func shortPCI(address string) string { return strings.TrimPrefix(address, "0000:") }
