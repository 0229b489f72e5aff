// The picture: a machine as one would hang it up. Sockets are panels; their
// root complexes and switches lead down (in the lower half: up) to NICs and GPUs, so
// that all GPUs face the middle, where NVLink joins them. Below come the node's own
// links, the NUMA distances and the legend.

package topology

import (
	"fmt"
	"io"
	"strings"
)

// Sizes in pixels.
const (
	margin       = 28
	cardWidth    = 168 // of a device
	indent       = 14  // of devices below their switch
	cellWidth    = cardWidth + indent
	columnGap    = 14
	panelPadding = 16
	titleHeight  = 54
	footerRow    = 22
	narrowest    = 560
)

// WriteSVG draws the snapshot. The picture follows the viewer's colour scheme.
func WriteSVG(w io.Writer, s *Snapshot, options DrawOptions) error {
	p := newPicture(s, options.withPairs(s))
	p.draw()
	_, err := io.WriteString(w, p.document())
	return err
}

// picture is an SVG under construction.
type picture struct {
	DrawOptions
	snapshot  *Snapshot
	short     map[string]string
	vfs       map[string][]*NIC
	rails     map[string]int
	bundles   []bundle
	fabrics   []fabric
	stacks    []*stack
	mixed     bool // the GPUs are of several products
	cut       bool // some GPU shows partitions
	above     []*panel
	below     []*panel // panels whose GPUs face up
	gpuHeight float64
	width     float64
	height    float64
	routes    []*route
	middleTop float64           // where the upper panels end
	anchors   map[string]anchor // of each GPU's edge towards the middle
	used      map[string]bool   // what the legend has to explain
	body      strings.Builder
}

// anchor is where a GPU's NVLinks leave it.
type anchor struct {
	x, y float64
	up   bool // the GPU is below the middle
}

func newPicture(s *Snapshot, options DrawOptions) *picture {
	p := &picture{
		DrawOptions: options, snapshot: s, short: labels(s), vfs: vfsByPF(s), rails: Rails(s),
		bundles: bundlesOf(s), fabrics: fabricsOf(s), anchors: map[string]anchor{}, used: map[string]bool{},
	}
	for i := range s.GPUs {
		p.mixed = p.mixed || s.GPUs[i].ProductName != s.GPUs[0].ProductName
	}
	p.sizeGPUs()
	sockets := layout(s)
	upper := (len(sockets) + 1) / 2
	for i, socket := range sockets {
		// Without NVLink there is nothing in the middle to face.
		panel := p.newPanel(socket, i >= upper && p.linked())
		if i >= upper {
			p.below = append(p.below, panel)
		} else {
			p.above = append(p.above, panel)
		}
	}
	p.stacks = stacksOf(s)
	p.place()
	return p
}

// place gives every panel its corner and the picture its width and, so far, its height.
func (p *picture) place() {
	p.width = max(row(p.above), row(p.below), narrowest)
	for _, panels := range [][]*panel{p.above, p.below} {
		if len(panels) == 0 {
			continue
		}
		last := panels[len(panels)-1]
		last.width = p.width - margin - last.left
		for _, panel := range panels {
			panel.eachGPU(func(gpu *GPU, x float64) { p.anchors[gpu.Name] = anchor{x: x, up: panel.flipped} })
		}
	}
	p.routes = p.routeBundles()
	top := float64(margin)
	if p.Title != "" {
		top += titleHeight
	}
	p.middleTop = top + tallest(p.above)
	lower := p.middleTop + p.middleHeight()
	for _, panel := range p.above {
		panel.top = p.middleTop - panel.height
		p.anchorGPUs(panel)
	}
	for _, panel := range p.below {
		panel.top = lower
		p.anchorGPUs(panel)
	}
	p.height = lower + tallest(p.below)
}

// anchorGPUs sets the y coordinate at which NVLinks leave a panel's GPUs.
func (p *picture) anchorGPUs(panel *panel) {
	panel.eachGPU(func(gpu *GPU, x float64) {
		p.anchors[gpu.Name] = anchor{x, panel.at(panel.end(), 0), panel.flipped}
	})
}

// linked: NVLink joins some of the GPUs.
func (p *picture) linked() bool { return len(p.bundles)+len(p.fabrics) > 0 }

func tallest(panels []*panel) float64 {
	height := 0.0
	for _, panel := range panels {
		height = max(height, panel.height)
	}
	return height
}

// row places panels side by side and returns the width that they take.
func row(panels []*panel) float64 {
	left := float64(margin)
	for _, panel := range panels {
		panel.left = left
		left += panel.width + columnGap
	}
	return left - columnGap + margin
}

func (p *picture) draw() {
	if p.Title != "" {
		p.text(margin, margin+22, p.width-2*margin, "title", p.Title)
		p.text(margin, margin+42, p.width-2*margin, "muted", p.subtitle("  ·  "))
	}
	for _, panels := range [][]*panel{p.above, p.below} {
		for _, panel := range panels {
			p.drawPanel(panel)
		}
	}
	p.drawLinks()
	p.drawStacks()
	p.drawDistances()
	p.drawProblems()
	p.drawLegend()
}

// subtitle says in one line what the machine has.
func (p *picture) subtitle(separator string) string {
	s := p.snapshot
	functions, vfs := 0, 0
	for i := range s.NICs {
		if s.NICs[i].Kind == PF {
			functions++
		} else {
			vfs++
		}
	}
	gpus := "no GPUs"
	switch {
	case len(s.GPUs) > 0 && !p.mixed && s.GPUs[0].ProductName != "":
		gpus = fmt.Sprintf("%d × %s", len(s.GPUs), s.GPUs[0].ProductName)
	case len(s.GPUs) > 0:
		gpus = count(len(s.GPUs), "GPU")
	}
	virtual := ""
	if vfs > 0 {
		virtual = count(vfs, "VF")
	}
	nics := "no NICs"
	if functions > 0 {
		nics = count(functions, "NIC")
	}
	return joined(separator, gpus, nics, virtual, s.driverWords())
}

// description is the picture in words, for those who cannot see it.
func (p *picture) description() string {
	text := p.subtitle(", ") + "."
	for _, island := range NVLinkIslands(p.snapshot) {
		if len(island) > 1 {
			var members []string
			for _, name := range island {
				members = append(members, p.short[name])
			}
			text += " NVLink joins " + strings.Join(members, ", ") + "."
		}
	}
	return text
}

// drawProblems writes what discovery could not read, for it may explain what is missing.
func (p *picture) drawProblems() {
	problems := p.snapshot.Problems
	for i, problem := range problems {
		text := fmt.Sprintf("%s: %s", problem.Subject, problem.Message)
		if i == 3 {
			text = fmt.Sprintf("and %d more, see hostler topology -o tree", len(problems)-i)
		}
		p.height += 18
		p.group(text)
		p.icon("fault", margin, p.height)
		p.text(margin+15, p.height, p.width-2*margin-15, "note bad", text)
		p.endGroup()
		if i == 3 {
			break
		}
	}
}
