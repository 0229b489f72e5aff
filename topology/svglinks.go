// The middle of the picture: NVLink. Behind NVSwitches every GPU leads to one
// fabric; without them each pair of GPUs has its own bundle of links.

package topology

import (
	"fmt"
	"math"
	"slices"
)

func (p *picture) drawLinks() {
	if !p.hasLinks() {
		return
	}
	if p.drawFabric() {
		return
	}
	var tags []func() // after all bundles, so that none crosses a number
	gpus := p.snapshot.GPUs
	for i := range gpus {
		for j := range i {
			links := nvlinks(&gpus[i], &gpus[j])
			a, okA := p.anchors[gpus[j].Name]
			b, okB := p.anchors[gpus[i].Name]
			if links > 0 && okA && okB {
				tags = append(tags, p.drawBundle(a, b, links, gpus[j].Name+" – "+gpus[i].Name))
			}
		}
	}
	for _, draw := range tags {
		draw()
	}
}

// drawFabric draws the NVSwitches as one bar between the GPUs, false if there are none.
func (p *picture) drawFabric() bool {
	var members []anchor
	var widths []int
	switches := map[string]bool{}
	for i := range p.snapshot.GPUs {
		gpu := &p.snapshot.GPUs[i]
		for _, link := range gpu.NVLinks {
			if link.Active && link.Peer == NVLinkPeerSwitch && link.PeerPCI != "" {
				switches[link.PeerPCI] = true
			}
		}
		if n := switchLinks(gpu); n > 0 {
			members, widths = append(members, p.anchors[gpu.Name]), append(widths, n)
		}
	}
	if len(members) == 0 {
		return false
	}
	const barHeight = 40
	middle := p.middle()
	left, right := math.Inf(1), math.Inf(-1)
	for _, m := range members {
		left, right = min(left, m.x), max(right, m.x)
	}
	left, right = left-cardWidth/2, right+cardWidth/2
	for i, m := range members {
		edge := middle - barHeight/2
		if m.up {
			edge = middle + barHeight/2
		}
		p.group(fmt.Sprintf("%d NVLinks", widths[i]))
		const strands = 6 // a bundle reads better than eighteen hairlines
		for k := range strands {
			x := m.x + (float64(k)-float64(strands-1)/2)*5
			p.line(x, m.y, x, edge, "nvlink")
		}
		p.endGroup()
	}
	p.rect(left, middle-barHeight/2, right-left, barHeight, 12, "fabric")
	number := "NVSwitch fabric"
	if len(switches) > 0 {
		number = fmt.Sprintf("NVSwitch fabric  ·  %s", count(len(switches), "NVSwitch"))
		if len(switches) > 1 {
			number = fmt.Sprintf("NVSwitch fabric  ·  %d NVSwitches", len(switches))
		}
	}
	p.centred((left+right)/2, middle+5, "fabricname", joined("  ·  ", number, linksPerGPU(widths), p.fabricState()))
	return true
}

// middle is the y coordinate between the two halves.
func (p *picture) middle() float64 {
	if len(p.above) == 0 {
		return margin
	}
	return p.above[0].top + p.above[0].height() + p.middleHeight()/2
}

func linksPerGPU(widths []int) string {
	low, high := slices.Min(widths), slices.Max(widths)
	if low == high {
		return fmt.Sprintf("%d NVLinks per GPU", low)
	}
	return fmt.Sprintf("%d to %d NVLinks per GPU", low, high)
}

// fabricState is worth a word only while the fabric is not complete.
func (p *picture) fabricState() string {
	for i := range p.snapshot.GPUs {
		if fabric := p.snapshot.GPUs[i].Fabric; fabric != nil && fabric.State != "Completed" {
			return fabric.State
		}
	}
	return ""
}

// drawBundle joins two GPUs by a curve through the middle, the stronger the
// more links. It returns what draws the number of links on it.
func (p *picture) drawBundle(a, b anchor, links int, title string) (tag func()) {
	width := 1.5 + 1.2*float64(min(links, 6))
	// Farther apart, deeper: arcs over one another instead of through one another.
	span := math.Abs(b.x-a.x) / (cellWidth + columnGap)
	depth := min(meshHeight/2, 40+32*(span-1))
	bendA, bendB := a.y+depth, b.y+depth
	if a.up {
		bendA, bendB = a.y-depth, b.y-depth
	}
	y := (a.y + 3*bendA) / 4 // the lowest point of the curve
	if a.up != b.up {
		y = p.middle()
		bendA, bendB = y, y
	}
	p.group(fmt.Sprintf("%s: %d NVLinks", title, links))
	fmt.Fprintf(&p.body, `<path class="bundle" stroke-width="%.1f" d="M%.1f %.1fC%.1f %.1f %.1f %.1f %.1f %.1f"/>`+"\n",
		width, a.x, a.y, a.x, bendA, b.x, bendB, b.x, b.y)
	p.endGroup()
	return func() { p.tag((a.x+b.x)/2, y, links) }
}

func (p *picture) tag(x, y float64, links int) {
	p.rect(x-17, y-9, 34, 18, 9, "tag")
	p.centred(x, y+4, "tagname", fmt.Sprintf("NV%d", links))
}
