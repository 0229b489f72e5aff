// The middle of the picture: NVLink. Each pair of GPUs that links join has a
// bundle of its own, as wide as it has links, on a track of its own; GPUs behind
// NVSwitches lead to the bar of their fabric.

package topology

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
)

const (
	trackGap     = 22
	trackStart   = 34 // from a GPU to the first track, beyond its panel's edge
	crossHeight  = 64 // what bundles between the halves need beside the tracks
	curveHeight  = 120
	fabricHeight = 42
	fabricGap    = 40
	portGap      = 15
)

func (p *picture) drawLinks() {
	p.drawFabrics()
	var tags []func() // after all bundles, so that none crosses a number
	var taken []anchor
	for _, r := range p.routes {
		if r.crosses() {
			at := p.drawCrossing(r, taken)
			taken = append(taken, at)
			tags = append(tags, func() { p.tag(at.x, at.y, "NV"+strconv.Itoa(r.links), "") })
		}
	}
	for _, r := range slices.Backward(p.routes) { // the long ones first: the short ones pass over them
		if !r.crosses() {
			tags = append(tags, p.drawArc(r))
		}
	}
	for _, draw := range tags {
		draw()
	}
}

func strokeWidth(links int) float64 { return min(8, .9+1.3*float64(links)) }

func (p *picture) begin(r *route) {
	p.used["nvlink"] = true
	p.group(fmt.Sprintf("%s – %s: %s", p.short[r.a.Name], p.short[r.b.Name], count(r.links, "NVLink")))
}

func (p *picture) stroke(class string, width float64, d string) {
	fmt.Fprintf(&p.body, `<path class="%s" stroke-width="%.1f" d="%s"/>`+"\n", class, width, d)
}

// drawArc draws a bundle within a half and returns what draws the number of links on it.
func (p *picture) drawArc(r *route) (tag func()) {
	direction := 1.0
	if r.left.up {
		direction = -1
	}
	yLeft, yRight := p.anchors[r.a.Name].y, p.anchors[r.b.Name].y
	xLeft, xRight := r.left.x, r.right.x
	y := yLeft + direction*float64(trackStart+(r.track-1)*trackGap)
	bend := min(14, (xRight-xLeft)/2)
	p.begin(r)
	p.stroke("halo", strokeWidth(r.links)+5, fmt.Sprintf("M%.1f %.1fH%.1f", xLeft+bend, y, xRight-bend))
	p.stroke("bundle", strokeWidth(r.links), fmt.Sprintf("M%.1f %.1fV%.1fQ%.1f %.1f %.1f %.1fH%.1fQ%.1f %.1f %.1f %.1fV%.1f",
		xLeft, yLeft, y-direction*bend, xLeft, y, xLeft+bend, y, xRight-bend, xRight, y, xRight, y-direction*bend, yRight))
	p.endGroup()
	return func() { p.tag(p.clearest(r), y, "NV"+strconv.Itoa(r.links), "") }
}

// drawCrossing draws a bundle from one half to the other and returns where on it
// its number keeps out of the way of those that are taken.
func (p *picture) drawCrossing(r *route, taken []anchor) anchor {
	upper, lower := r.left, r.right
	upper.y, lower.y = p.anchors[r.a.Name].y, p.anchors[r.b.Name].y
	if upper.up {
		upper, lower = lower, upper
	}
	from := p.middleTop + p.halfHeight(false)
	to := p.middleTop + p.middleHeight() - p.halfHeight(true)
	middle := (from + to) / 2
	p.begin(r)
	p.stroke("bundle", strokeWidth(r.links), fmt.Sprintf("M%.1f %.1fV%.1fC%.1f %.1f %.1f %.1f %.1f %.1fV%.1f",
		upper.x, upper.y, from, upper.x, middle, lower.x, middle, lower.x, to, lower.y))
	p.endGroup()
	var at anchor
	for _, t := range []float64{.5, .35, .65, .22, .78, .12, .88, .5} {
		blend := t * t * (3 - 2*t)
		at = anchor{x: upper.x + (lower.x-upper.x)*blend, y: from + (to-from)*(1.5*t*(1-t)+t*t*t)}
		if !slices.ContainsFunc(taken, func(o anchor) bool { return math.Abs(o.x-at.x) < 40 && math.Abs(o.y-at.y) < 18 }) {
			break
		}
	}
	return at
}

func (p *picture) tag(x, y float64, text, class string) {
	width := faceOf("tagname").width(text) + 10
	p.rect(x-width/2, y-8, width, 16, 8, joined(" ", "tag", class))
	p.centred(x, y+3.6, width, joined(" ", "tagname", class), text)
}

// drawFabrics draws a bar for each fabric, the one of the upper GPUs first.
func (p *picture) drawFabrics() {
	height := func(f fabric) float64 {
		total := 0.0
		for _, gpu := range f.gpus {
			total += p.anchors[gpu.Name].y
		}
		return total / float64(len(f.gpus))
	}
	slices.SortStableFunc(p.fabrics, func(a, b fabric) int { return cmp.Compare(height(a), height(b)) })
	y := p.middleTop + p.halfHeight(false) + fabricGap
	for _, f := range p.fabrics {
		p.drawFabric(f, y)
		y += fabricHeight + fabricGap
	}
}

func (p *picture) drawFabric(f fabric, top float64) {
	left, right := math.Inf(1), math.Inf(-1)
	for _, gpu := range f.gpus {
		at, links := p.anchors[gpu.Name], switchLinks(gpu)
		left, right = min(left, at.x-cardWidth/2), max(right, at.x+cardWidth/2)
		edge := top
		if at.up {
			edge = top + fabricHeight
		}
		p.used["nvlink"] = true
		p.group(fmt.Sprintf("%s: %s to the fabric", p.short[gpu.Name], count(links, "NVLink")))
		strands := min(6, (links+2)/3) // a bundle reads better than eighteen hairlines
		for k := range strands {
			x := at.x + (float64(k)-float64(strands-1)/2)*5
			p.line(x, at.y, x, edge, "nvlink")
		}
		if all := len(gpu.NVLinks); links < all {
			p.tag(at.x, (at.y+edge)/2, fmt.Sprintf("%d of %d", links, all), "short")
		}
		p.endGroup()
	}
	p.group(joined(", ", f.title(), f.identity()))
	p.rect(left, top, right-left, fabricHeight, 10, "fabric")
	middle, width := (left+right)/2, right-left-16
	if identity := f.identity(); identity == "" {
		p.centred(middle, top+fabricHeight/2+4.5, width, "fabricname", f.title())
	} else {
		p.centred(middle, top+18, width, "fabricname", f.title())
		p.centred(middle, top+33, width, "tiny fabricid", identity)
	}
	p.endGroup()
}
