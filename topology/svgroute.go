// The way of NVLink bundles through the middle of the picture: ports at the GPUs,
// tracks between them, and the room that they need.

package topology

import (
	"cmp"
	"math"
	"slices"
)

// route is a bundle's way through the middle.
type route struct {
	bundle
	left, right anchor // its ends, at the ports
	track       int    // from 1, of bundles within a half; 0 for those between
}

func (r *route) crosses() bool { return r.left.up != r.right.up }

// curved: its GPUs do not face each other.
func (r *route) curved() bool { return r.crosses() && math.Abs(r.left.x-r.right.x) > 1 }

// routeBundles gives every bundle its ports and track: the shorter, the nearer to the
// GPUs, and none on the track of another that it overlaps.
func (p *picture) routeBundles() []*route {
	var routes []*route
	for _, b := range p.bundles {
		left, okLeft := p.anchors[b.a.Name]
		right, okRight := p.anchors[b.b.Name]
		if !okLeft || !okRight {
			continue
		}
		if right.x < left.x {
			b.a, b.b, left, right = b.b, b.a, right, left
		}
		routes = append(routes, &route{bundle: b, left: left, right: right})
	}
	span := func(r *route) float64 { return r.right.x - r.left.x }
	slices.SortStableFunc(routes, func(a, b *route) int {
		return cmp.Or(cmp.Compare(span(a), span(b)), cmp.Compare(a.left.x, b.left.x))
	})
	p.assignPorts(routes)
	for i, r := range routes {
		if r.crosses() {
			continue
		}
		r.track = 1
		for _, other := range routes[:i] {
			if other.track >= r.track && other.left.up == r.left.up && other.left.x < r.right.x+portGap && r.left.x < other.right.x+portGap {
				r.track = other.track + 1
			}
		}
	}
	return routes
}

// assignPorts spreads a GPU's bundles along its edge: those to the other half in
// the middle, and on either side the shorter ones outside, so that they do not
// cross the longer ones. Routes come sorted by length.
func (p *picture) assignPorts(routes []*route) {
	for i := range p.snapshot.GPUs {
		name := p.snapshot.GPUs[i].Name
		var cross, leftwards, rightwards []*anchor
		for _, r := range routes {
			switch {
			case r.crosses() && r.a.Name == name:
				cross = append(cross, &r.left)
			case r.crosses() && r.b.Name == name:
				cross = append(cross, &r.right)
			case r.a.Name == name:
				rightwards = append(rightwards, &r.left)
			case r.b.Name == name:
				leftwards = append(leftwards, &r.right)
			}
		}
		middle := float64(len(cross)) / 2
		most := middle + float64(max(len(leftwards), len(rightwards)))
		gap := min(portGap, (cardWidth/2-10)/max(1, most))
		for k, port := range cross {
			port.x += (float64(k) - middle + .5) * gap
		}
		for k, port := range slices.Backward(rightwards) {
			port.x += (middle + float64(len(rightwards)-1-k) + .5) * gap
		}
		for k, port := range slices.Backward(leftwards) {
			port.x -= (middle + float64(len(leftwards)-1-k) + .5) * gap
		}
	}
}

// tracks of the upper or lower half.
func (p *picture) tracks(up bool) int {
	tracks := 0
	for _, r := range p.routes {
		if r.left.up == up {
			tracks = max(tracks, r.track)
		}
	}
	return tracks
}

// halfHeight is what the tracks of one half need beyond the panel.
func (p *picture) halfHeight(up bool) float64 {
	if tracks := p.tracks(up); tracks > 0 {
		return float64(trackStart - panelPadding + tracks*trackGap)
	}
	return 0
}

// middleHeight is the space that NVLink needs between the panels.
func (p *picture) middleHeight() float64 {
	height := p.halfHeight(false) + p.halfHeight(true)
	if n := float64(len(p.fabrics)); n > 0 {
		height += n*(fabricHeight+fabricGap) + fabricGap
		if len(p.below) == 0 {
			height -= fabricGap - 12 // nothing leads on from the last bar
		}
	} else if slices.ContainsFunc(p.routes, (*route).curved) {
		height += curveHeight
	} else if slices.ContainsFunc(p.routes, (*route).crosses) {
		height += crossHeight
	}
	if height == 0 && len(p.below) > 0 {
		return columnGap
	}
	return height
}

// clearest is the place on a bundle's track that is farthest from what crosses it.
func (p *picture) clearest(r *route) float64 {
	stops := []float64{r.left.x, r.right.x}
	for _, other := range p.routes {
		for _, end := range []anchor{other.left, other.right} {
			if deeper := other.crosses() || other.track > r.track; deeper && end.up == r.left.up && end.x > r.left.x && end.x < r.right.x {
				stops = append(stops, end.x)
			}
		}
	}
	slices.Sort(stops)
	middle, best, place := (r.left.x+r.right.x)/2, 0.0, (r.left.x+r.right.x)/2
	for i := range len(stops) - 1 {
		at := (stops[i] + stops[i+1]) / 2
		if gap := stops[i+1] - stops[i]; gap > best+1 || gap > best-1 && math.Abs(at-middle) < math.Abs(place-middle) {
			best, place = gap, at
		}
	}
	return place
}
