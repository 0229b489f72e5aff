// The SVG's elements, styles and legend. Colours are plain CSS classes with a
// second set for dark viewers; custom properties would be shorter, but common
// renderers do not know them.
package topology

import (
	"fmt"
	"html"
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
	fmt.Fprintf(&out, "<title>%s</title>\n", html.EscapeString(joined(": ", "Topology", p.options.Title)))
	fmt.Fprintf(&out, "<style>%s</style>\n", svgStyle)
	fmt.Fprintf(&out, `<rect class="bg" width="%.0f" height="%.0f" rx="16"/>`+"\n", p.width, p.height)
	out.WriteString(p.body.String())
	out.WriteString("</svg>\n")
	return out.String()
}

// group begins elements that share a tooltip; endGroup ends them.
func (p *picture) group(title string) {
	fmt.Fprintf(&p.body, "<g><title>%s</title>\n", html.EscapeString(title))
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
	fmt.Fprintf(&p.body, `<text class="%s" x="%.1f" y="%.1f" text-anchor="%s">%s</text>`+"\n", class, x, y, anchor, html.EscapeString(printable(text)))
}

// printable drops what XML does not allow in a document: names come from
// firmware and from other people's clusters.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == utf8.RuneError || r == 0xFFFE || r == 0xFFFF {
			return -1
		}
		return r
	}, text)
}

// clip shortens text to about that many pixels.
func clip(text string, width float64) string {
	const perRune = 7.1
	limit := max(1, int(width/perRune))
	if utf8.RuneCountInString(text) <= limit {
		return text
	}
	return string([]rune(text)[:limit-1]) + "…"
}

// drawLegend explains the colours that the picture uses.
func (p *picture) drawLegend() {
	y := p.height - margin
	x := float64(margin)
	entry := func(class, text string) {
		p.rect(x, y-10, 16, 12, 3, class)
		p.text(x+22, y, "small", text)
		x += 22 + 7*float64(utf8.RuneCountInString(text)) + 22
	}
	entry("gpu", "GPU")
	entry("nic", "NIC")
	entry("nic uplink", "node's own uplink")
	if len(p.options.Holders) > 0 {
		entry("gpu held", "held by a pod")
	}
	entry("fault", "fault")
	for _, state := range []string{"up", "down", "away"} {
		p.circle(x+5, y-4, 4.5, "dot "+state)
		text := map[string]string{"up": "link up", "down": "link down", "away": "in a pod or without netdev"}[state]
		p.text(x+16, y, "small", text)
		x += 16 + 7*float64(utf8.RuneCountInString(text)) + 22
	}
}
