// Cards of the picture: what those of GPUs and NICs have in common, which is
// above all the notes on them: who holds the device, what is wrong with it.

package topology

import (
	"fmt"
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

// shortPCI leaves the domain out where it is the first one.
func shortPCI(address string) string { return strings.TrimPrefix(address, "0000:") }
