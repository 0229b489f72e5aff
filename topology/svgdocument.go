// The SVG's elements, styles and legend. Colours are plain CSS classes with a
// second set for dark viewers; custom properties would be shorter, but common
// renderers do not know them.

package topology

import (
	"fmt"
	"html"
	"slices"
	"strings"
	"unicode/utf8"
)

const svgStyle = `
text{font-family:Inter,"Segoe UI",Roboto,"DejaVu Sans",sans-serif;font-size:12px;fill:#1f2933}
.title{font-size:22px;font-weight:700}.heading{font-size:15px;font-weight:700}.name{font-size:15px;font-weight:700}
.label{font-size:12px}.strong{font-weight:600}.small{font-size:11px;fill:#52606d}.muted{font-size:11px;fill:#6b7885}
.mono{font-family:"JetBrains Mono","DejaVu Sans Mono",monospace;font-size:10.5px}
.note{font-size:11px;font-weight:600;fill:#1d4ed8}.uplink~.note{fill:#92600a}.bad{fill:#b91c1c}
.bg{fill:#ffffff}.panel{fill:#f5f7fa;stroke:#d9e0e7}.root{fill:#e4e9ef;stroke:none}.switch{fill:#dde5ee;stroke:#b8c4d0}
.gpu{fill:#e3f5d3;stroke:#76b900;stroke-width:1.6}.nic{fill:#e2eefc;stroke:#5b9bea;stroke-width:1.3}
.held{stroke-width:3}.gpu.held{fill:#c9eba9}.nic.held{fill:#c4dcf9}
.nic.uplink{fill:#fdf1d7;stroke:#d99a1b;stroke-dasharray:5 3}.fault{fill:#fde4e4;stroke:#dc2626;stroke-width:2.4}
.wire{stroke:#a9b5c1;stroke-width:2}.nvlink{stroke:#76b900;stroke-width:1.6}.bundle{stroke:#76b900;fill:none;opacity:.75}
.fabric{fill:#3f6b00;stroke:none}.fabricname{fill:#ffffff;font-size:14px;font-weight:600}
.tag{fill:#ffffff;stroke:#76b900}.tagname{font-size:10.5px;font-weight:700;fill:#3f6b00}
.up{fill:#16a34a}.down{fill:#9aa5b1}.away{fill:none;stroke:#6b7885;stroke-width:1.5}
@media (prefers-color-scheme:dark){
text{fill:#e6edf3}.small{fill:#a9b6c3}.muted{fill:#93a1b0}.note{fill:#8ab4ff}.uplink~.note{fill:#f0c061}.bad{fill:#ff9b9b}
.bg{fill:#0d1117}.panel{fill:#161c24;stroke:#2b3542}.root{fill:#242e3a}.switch{fill:#222c38;stroke:#3d4b5b}
.gpu{fill:#1c3010;stroke:#76b900}.nic{fill:#14263d;stroke:#4a86d0}.gpu.held{fill:#2c4d15}.nic.held{fill:#1d3b61}
.nic.uplink{fill:#332710;stroke:#d99a1b}.fault{fill:#3d1517;stroke:#f05252}
.wire{stroke:#4a5766}.fabric{fill:#5a8f0a}.tag{fill:#0d1117}.tagname{fill:#a6dd4f}
.up{fill:#3fb950}.down{fill:#5d6a78}.away{stroke:#93a1b0}
}`

func (p *picture) document() string {
	var out strings.Builder
	fmt.Fprintf(&out, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %.0f %.0f" width="%.0f" height="%.0f" role="img">`+"\n", p.width, p.height, p.width, p.height)
	fmt.Fprintf(&out, "<title>%s</title>\n", escaped(joined(": ", "Topology", p.options.Title)))
	fmt.Fprintf(&out, "<style>%s</style>\n", svgStyle)
	fmt.Fprintf(&out, `<rect class="bg" width="%.0f" height="%.0f" rx="16"/>`+"\n", p.width, p.height)
	out.WriteString(p.body.String())
	out.WriteString("</svg>\n")
	return out.String()
}

// group begins elements that share a tooltip; endGroup ends them.
func (p *picture) group(title string) {
	fmt.Fprintf(&p.body, "<g><title>%s</title>\n", escaped(title))
}

func (p *picture) endGroup() { p.body.WriteString("</g>\n") }

func (p *picture) rect(x, y, width, height, radius float64, class string) {
	fmt.Fprintf(&p.body, `<rect class="%s" x="%.1f" y="%.1f" width="%.1f" height="%.1f" rx="%.1f"/>`+"\n", class, x, y, width, height, radius)
}

func (p *picture) circle(x, y, radius float64, class string) {
	fmt.Fprintf(&p.body, `<circle class="%s" cx="%.1f" cy="%.1f" r="%.1f"/>`+"\n", class, x, y, radius)
}

func (p *picture) line(x1, y1, x2, y2 float64, class string) {
	fmt.Fprintf(&p.body, `<line class="%s" x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f"/>`+"\n", class, x1, y1, x2, y2)
}

func (p *picture) text(x, y float64, class, text string)    { p.anchored(x, y, class, "start", text) }
func (p *picture) centred(x, y float64, class, text string) { p.anchored(x, y, class, "middle", text) }
func (p *picture) right(x, y float64, class, text string)   { p.anchored(x, y, class, "end", text) }

func (p *picture) anchored(x, y float64, class, anchor, text string) {
	if text == "" {
		return
	}
	fmt.Fprintf(&p.body, `<text class="%s" x="%.1f" y="%.1f" text-anchor="%s">%s</text>`+"\n", class, x, y, anchor, escaped(text))
}

// escaped makes text of firmware, users and other people's clusters harmless:
// no markup, and no character that XML does not allow in a document.
func escaped(text string) string {
	return html.EscapeString(strings.Map(func(r rune) rune {
		if r < ' ' || r == utf8.RuneError || r == 0xFFFE || r == 0xFFFF {
			return -1
		}
		return r
	}, text))
}

// Average widths of a character in the sizes that are clipped.
const (
	labelRune = 7.2
	smallRune = 6.2
)

// clip shortens text to about that many pixels.
func clip(text string, width, perRune float64) string {
	limit := max(1, int(width/perRune))
	if utf8.RuneCountInString(text) <= limit {
		return text
	}
	return string([]rune(text)[:limit-1]) + "…"
}

// legendEntry explains one colour: a box of a card's class, or the dot of a link's state.
type legendEntry struct{ box, dot, text string }

func (e legendEntry) width() float64 { return 44 + smallRune*float64(utf8.RuneCountInString(e.text)) }

// legend lists the colours that the picture uses, in lines as long as it is wide.
func (p *picture) legend() [][]legendEntry {
	entries := []legendEntry{
		{box: "gpu", text: "GPU"}, {box: "nic", text: "NIC"}, {box: "nic uplink", text: "node's own uplink"}, {box: "fault", text: "fault"},
		{dot: "up", text: "link up"}, {dot: "down", text: "link down"}, {dot: "away", text: "in a pod or without netdev"},
	}
	if len(p.options.Holders) > 0 {
		entries = slices.Insert(entries, 3, legendEntry{box: "gpu held", text: "held by a pod"})
	}
	lines := [][]legendEntry{nil}
	left := p.width - 2*margin
	for _, entry := range entries {
		if left -= entry.width(); left < 0 {
			lines = append(lines, nil)
			left = p.width - 2*margin - entry.width()
		}
		lines[len(lines)-1] = append(lines[len(lines)-1], entry)
	}
	return lines
}

func (p *picture) drawLegend() {
	lines := p.legend()
	y := p.height - float64(len(lines))*legendRow + 2
	for _, line := range lines {
		x := float64(margin)
		for _, entry := range line {
			if entry.box != "" {
				p.rect(x, y-10, 16, 12, 3, entry.box)
			} else {
				p.circle(x+9, y-4, 4.5, "dot "+entry.dot)
			}
			p.text(x+22, y, "small", entry.text)
			x += entry.width()
		}
		y += legendRow
	}
}
