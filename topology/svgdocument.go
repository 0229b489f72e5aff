// The SVG's elements and styles. Colours are plain CSS classes with a second set
// for dark screens; custom properties would be shorter, but common renderers do
// not know them. Nothing is told by colour alone: holders have a hexagon and a
// strong border, faults a triangle, uplinks a dashed border, links that are down an
// empty circle, so that a black-and-white print says the same.

package topology

import (
	"fmt"
	"html"
	"strings"
)

const svgStyle = `
text{font-family:Inter,"Segoe UI",Roboto,"DejaVu Sans",sans-serif;font-size:11px;fill:#1f2933}
.title{font-size:22px;font-weight:700}.heading,.name{font-size:15px;font-weight:700}
.strong{font-size:12px;font-weight:700}.small{fill:#46535f}.muted{fill:#5c6975}.tiny{font-size:10px;fill:#46535f}
.mono{font-family:"JetBrains Mono","DejaVu Sans Mono",monospace;font-size:10px;fill:#5c6975}
.note{font-weight:700;fill:#1e3a8a}.note.warn{fill:#855200}.note.bad{fill:#a31212}.note.quiet{font-weight:400;fill:#46535f}
.bg{fill:#ffffff}.panel{fill:#f4f6f9;stroke:#d3dbe3}.node{fill:#ffffff;fill-opacity:.55;stroke:#c3cdd7;stroke-dasharray:2 3}
.root{fill:#dfe5ec}.switch{fill:#d3dce6;stroke:#a9b6c4}
.gpu{fill:#e6f5d8;stroke:#6aa800;stroke-width:1.5}.nic{fill:#e4effc;stroke:#5b93dc;stroke-width:1.3}.second{stroke-dasharray:3 3;fill-opacity:.5}
.gpu.held{fill:#cfeab0;stroke-width:2.8}.nic.held{fill:#c8dff9;stroke-width:2.8}
.uplink{fill:#fdf2da;stroke:#c98a10;stroke-dasharray:5 3}.fault{fill:#fde6e6;stroke:#c81e1e;stroke-width:2.4}
.stacked{fill:#eceff3;stroke:#8a97a5}.stacked.uplink{fill:#fdf2da;stroke:#c98a10}
.wire{stroke:#97a5b3;stroke-width:1.6;fill:none}.nvlink{stroke:#6aa800;stroke-width:1.6}
.bundle{stroke:#6aa800;fill:none}.halo{stroke:#ffffff;fill:none}
.fabric{fill:#3b6400}.fabricname{font-size:12px;font-weight:700;fill:#ffffff}.fabricid{font-size:10px;fill:#e3f2cf}
.tag{fill:#ffffff;stroke:#6aa800}.tagname{font-size:10px;font-weight:700;fill:#365c00}.tag.short{stroke:#c81e1e}.short{fill:#a31212}.tag.short{fill:#ffffff}
.free{fill:#ffffff;fill-opacity:.6;stroke:#93a58a;stroke-width:.8}.cut{fill:#a8d46f;stroke:#3b6400;stroke-width:1}.cut.held{fill:#3b6400}.cut.faulty{fill:#c81e1e}
.cutname{font-size:10px;fill:#1f3300}.cutname.held,.cutname.faulty{fill:#ffffff}
.vf{fill:#b6d2f4}.vf.held{fill:#1e4fa3}.vf.uplink{fill:#c98a10;stroke:none}.vf.faulty{fill:#c81e1e}
.up{fill:#14893b}.down{fill:none;stroke:#a31212;stroke-width:1.8}.away{fill:none;stroke:#5c6975;stroke-width:1.5;stroke-dasharray:2 1.5}
.pod{fill:#1e3a8a}.mark.bad{fill:#a31212}.mark.warn{fill:#855200}
.cell{fill:#ffffff;stroke:#d3dbe3}.cell.near{fill:#dfe5ec}
@media screen and (prefers-color-scheme:dark){
text{fill:#e6edf3}.small,.tiny,.note.quiet{fill:#b4c0cc}.muted,.mono{fill:#9fadbb}
.note{fill:#9cc2ff}.note.warn{fill:#f0c061}.note.bad{fill:#ff9d9d}
.bg{fill:#0d1117}.panel{fill:#161c24;stroke:#2f3a47}.node{fill:#0d1117;stroke:#3d4b5b}
.root{fill:#263140}.switch{fill:#2a3645;stroke:#46566a}
.gpu{fill:#1b2f10;stroke:#76b900}.nic{fill:#14263d;stroke:#4a86d0}.gpu.held{fill:#2d4f15}.nic.held{fill:#1e3f6a}
.uplink,.stacked.uplink{fill:#332710;stroke:#d99a1b}.fault{fill:#3f1719;stroke:#f05252}.stacked{fill:#222c38;stroke:#5d6d7e}
.wire{stroke:#566577}.nvlink,.bundle{stroke:#76b900}.halo{stroke:#0d1117}.fabric{fill:#4c7d05}
.tag{fill:#0d1117;stroke:#76b900}.tagname{fill:#a6dd4f}.tag.short{fill:#0d1117;stroke:#f05252}.short{fill:#ff9d9d}
.free{fill:#0d1117;stroke:#5f7350}.cut{fill:#4c7d05;stroke:#a6dd4f}.cut.held{fill:#b5e36a}.cut.faulty{fill:#f05252}
.cutname{fill:#f2fbe6}.cutname.held,.cutname.faulty{fill:#0d1117}
.vf{fill:#2c4a73}.vf.held{fill:#9cc2ff}.vf.faulty{fill:#ff6b6b}.vf.uplink{fill:#d99a1b}
.up{fill:#3fb950}.down{stroke:#ff9d9d}.away{stroke:#9fadbb}.pod{fill:#9cc2ff}.mark.bad{fill:#ff9d9d}.mark.warn{fill:#f0c061}
.cell{fill:#0d1117;stroke:#2f3a47}.cell.near{fill:#263140}
}`

func (p *picture) document() string {
	var out strings.Builder
	fmt.Fprintf(&out, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %.0f %.0f" width="%.0f" height="%.0f" role="img" aria-labelledby="topology-title topology-desc">`+"\n",
		p.width, p.height, p.width, p.height)
	fmt.Fprintf(&out, `<title id="topology-title">%s</title>`+"\n", escaped(joined(" ", "Topology of", orThisMachine(p.Title))))
	fmt.Fprintf(&out, `<desc id="topology-desc">%s</desc>`+"\n", escaped(p.description()))
	fmt.Fprintf(&out, "<style>%s</style>\n", svgStyle)
	fmt.Fprintf(&out, `<rect class="bg" width="%.0f" height="%.0f" rx="14"/>`+"\n", p.width, p.height)
	out.WriteString(p.body.String())
	out.WriteString("</svg>\n")
	return out.String()
}

func orThisMachine(title string) string {
	if title == "" {
		return "this machine"
	}
	return title
}

// group begins elements that share a tooltip; endGroup ends them.
func (p *picture) group(title string) {
	fmt.Fprintf(&p.body, "<g><title>%s</title>\n", escaped(title))
}

func (p *picture) endGroup() { p.body.WriteString("</g>\n") }

func (p *picture) rect(x, y, width, height, radius float64, class string) {
	fmt.Fprintf(&p.body, `<rect class="%s" x="%.1f" y="%.1f" width="%.1f" height="%.1f" rx="%.1f"/>`+"\n", class, x, y, width, height, radius)
}

// dot shows a link's state.
func (p *picture) dot(x, y float64, state string) {
	fmt.Fprintf(&p.body, `<circle class="%s" cx="%.1f" cy="%.1f" r="4"/>`+"\n", state, x, y)
}

func (p *picture) line(x1, y1, x2, y2 float64, class string) {
	fmt.Fprintf(&p.body, `<line class="%s" x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f"/>`+"\n", class, x1, y1, x2, y2)
}

func (p *picture) path(class, d string) {
	fmt.Fprintf(&p.body, `<path class="%s" d="%s"/>`+"\n", class, d)
}

// icon draws the small shape in front of a note, 9 pixels wide, on a text's baseline.
func (p *picture) icon(kind string, x, y float64) {
	switch kind {
	case "pod": // Kubernetes draws its objects as polygons; six corners are easy to tell
		p.path("pod", fmt.Sprintf("M%.1f %.1fl4 -2.3v-4.6l-4 -2.3l-4 2.3v4.6z", x+4.5, y+.4))
	case "fault":
		p.path("mark bad", fmt.Sprintf("M%.1f %.1fh9.4l-4.7 -8.8z", x, y))
	case "uplink":
		p.path("mark warn", fmt.Sprintf("M%.1f %.1fh3v-4h2.6l-4.1 -4.6l-4.1 4.6h2.6z", x+3.1, y))
	}
}

// text draws at most width pixels of a text, from x on; centred and right do so around and up to x.
func (p *picture) text(x, y, width float64, class, text string) {
	p.anchored(x, y, width, class, "", text)
}

func (p *picture) centred(x, y, width float64, class, text string) {
	p.anchored(x, y, width, class, ` text-anchor="middle"`, text)
}

func (p *picture) right(x, y, width float64, class, text string) {
	p.anchored(x, y, width, class, ` text-anchor="end"`, text)
}

func (p *picture) anchored(x, y, width float64, class, anchor, text string) {
	text = faceOf(class).fit(text, width)
	if text == "" {
		return
	}
	fmt.Fprintf(&p.body, `<text class="%s" x="%.1f" y="%.1f"%s>%s</text>`+"\n", class, x, y, anchor, escaped(text))
}

// escaped makes text of firmware, users and other people's clusters harmless:
// no markup, and no character that XML does not allow in a document.
func escaped(text string) string { return html.EscapeString(plain(text)) }
