// The legend explains the signs that the picture uses, and no others.

package topology

import "fmt"

// legendEntry explains one sign: a box of a card's class, a link's state or an icon.
type legendEntry struct{ used, box, dot, icon, text string }

func (e legendEntry) width() float64 { return 40 + faceOf("small").width(e.text) }

func legendEntries() []legendEntry {
	return []legendEntry{
		{used: "gpu", box: "gpu", text: "GPU"},
		{used: "nic", box: "nic", text: "NIC"},
		{used: "nvlink", text: "NVLink, the wider the more links"},
		{used: "held", box: "gpu held", icon: "pod", text: "held by a pod"},
		{used: "uplink", box: "uplink", icon: "uplink", text: "the node's own uplink"},
		{used: "fault", box: "fault", icon: "fault", text: "fault"},
		{used: "second", box: "nic second", text: "Data Direct interface"},
		{used: "mig", box: "free", text: "free memory slice"},
		{used: "cut", box: "cut", text: "MIG instance"},
		{used: "cutheld", box: "cut held", text: "MIG instance held"},
		{used: "vf", box: "vf", text: "VFs"},
		{used: "vfheld", box: "vf held", text: "VF held"},
		{used: "vffaulty", box: "vf faulty", text: "VF faulty"},
		{used: "up", dot: "up", text: "link up"},
		{used: "down", dot: "down", text: "link down"},
		{used: "away", dot: "away", text: "no netdev here, or in a pod"},
	}
}

func (p *picture) drawLegend() {
	x := float64(margin)
	p.height += 34
	for _, e := range legendEntries() {
		if !p.used[e.used] {
			continue
		}
		if x > margin && x+e.width() > p.width-margin+20 {
			x = margin
			p.height += footerRow
		}
		switch {
		case e.box != "":
			p.rect(x, p.height-10, 18, 12, 3, e.box)
		case e.dot != "":
			p.dot(x+9, p.height-4, e.dot)
		default:
			p.stroke("bundle", 4, fmt.Sprintf("M%.1f %.1fh18", x, p.height-4))
		}
		if e.icon != "" {
			p.icon(e.icon, x+4.5, p.height-.5)
		}
		p.text(x+24, p.height, p.width-margin-x-24, "small", e.text)
		x += e.width()
	}
	p.height += margin - 8
}
