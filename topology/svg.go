// The picture: a machine as one would hang it up. Sockets are panels; their
// root complexes and switches lead down (in the lower half: up) to NICs and GPUs, so
// that all GPUs face the middle, where NVLink joins them.

package topology

import (
	"fmt"
	"io"
	"strings"
)

// SVGOptions add what a snapshot does not know.
type SVGOptions struct {
	// Title above the picture, the node's name for instance; "" leaves it out.
	Title string
	// Holders by device name: "namespace/pod" of who has it.
	Holders map[string]string
	// Faults by device name: what is wrong, in a few words.
	Faults map[string]string
}

// Sizes in pixels.
const (
	margin       = 28
	cardWidth    = 146 // of a device
	indent       = 14  // of devices below their switch
	cellWidth    = cardWidth + indent
	columnGap    = 16
	panelPadding = 16
	headHeight   = 34 // socket's name
	rootHeight   = 22
	switchHeight = 26
	nicHeight    = 62
	gpuHeight    = 84
	rowGap       = 12  // between the boxes of a column
	fabricHeight = 124 // the middle, with NVSwitches
	meshHeight   = 210 // the middle, with links from GPU to GPU
	titleHeight  = 52
	legendRow    = 22
)

// WriteSVG draws the snapshot. The picture follows the viewer's colour scheme.
func WriteSVG(w io.Writer, s *Snapshot, options SVGOptions) error {
	p := newPicture(s, options)
	p.draw()
	_, err := io.WriteString(w, p.document())
	return err
}

// picture is an SVG under construction.
type picture struct {
	snapshot *Snapshot
	options  SVGOptions
	short    map[string]string
	above    []*panel // panels whose GPUs face down
	below    []*panel // panels whose GPUs face up
	width    float64
	height   float64
	anchors  map[string]anchor // of each GPU's edge towards the middle
	body     strings.Builder
}

// anchor is where a GPU's NVLinks leave it.
type anchor struct {
	x, y float64
	up   bool // the GPU is below the middle
}

// panel is a socket laid out in columns.
type panel struct {
	socket  socketGroup
	columns []column
	nics    int // rows of NICs in the column that has the most
	gpus    int // rows of GPUs: one, or none
	// switches: some column has one
	switches  bool
	left, top float64
	flipped   bool
}

// column is one switch, or one root complex without a switch, with its devices.
type column struct {
	switchGroup
	root      string
	node      nodeGroup
	firstNode bool // starts a NUMA node
}

func newPicture(s *Snapshot, options SVGOptions) *picture {
	p := &picture{snapshot: s, options: options, short: labels(s), anchors: map[string]anchor{}}
	sockets := layout(s)
	upper := (len(sockets) + 1) / 2
	for i, socket := range sockets {
		panel := newPanel(socket)
		panel.flipped = i >= upper
		if panel.flipped {
			p.below = append(p.below, panel)
		} else {
			p.above = append(p.above, panel)
		}
	}
	p.place()
	return p
}

func newPanel(socket socketGroup) *panel {
	p := &panel{socket: socket}
	for _, node := range socket.nodes {
		first := true
		// Columns with GPUs first: they are what the picture is about.
		for _, withGPUs := range []bool{true, false} {
			for _, root := range node.roots {
				for _, group := range root.switches {
					if (len(group.gpus) > 0) != withGPUs {
						continue
					}
					p.switches = p.switches || group.switchPCI != ""
					c := column{switchGroup: group, root: root.root, node: node, firstNode: first}
					p.columns = append(p.columns, c)
					p.nics, p.gpus = max(p.nics, (len(c.nics)+c.cells()-1)/c.cells()), max(p.gpus, min(1, len(c.gpus)))
					first = false
				}
			}
		}
	}
	return p
}

func (p *panel) width() float64 {
	width := 2.0*panelPadding - columnGap
	for _, c := range p.columns {
		width += c.width() + columnGap
	}
	return width
}

// cells of a column stand side by side, one for each GPU, so that every GPU has
// its face to the middle; NICs fill them row by row.
func (c column) cells() int { return max(1, len(c.gpus)) }

func (c column) width() float64 {
	return float64(c.cells()*(cellWidth+columnGap) - columnGap)
}

func (p *panel) height() float64 {
	return p.gpuOffset() + float64(p.gpus*(gpuHeight+rowGap)) + panelPadding - rowGap
}

// place gives every panel its corner and the picture its size.
func (p *picture) place() {
	top := float64(margin)
	if p.options.Title != "" {
		top += titleHeight
	}
	upper := tallest(p.above)
	middle := 0.0
	if p.hasLinks() {
		middle = p.middleHeight()
	} else if len(p.below) > 0 {
		middle = margin
	}
	p.width = max(row(p.above, func(panel *panel) float64 { return top + upper - panel.height() }),
		row(p.below, func(*panel) float64 { return top + upper + middle }), 560)
	for _, panels := range [][]*panel{p.above, p.below} {
		if len(panels) == 0 {
			continue
		}
		last := panels[len(panels)-1]
		shift := (p.width - margin - last.left - last.width()) / 2
		for _, panel := range panels {
			panel.left += shift
		}
	}
	p.height = top + upper + middle + tallest(p.below) + margin + float64(len(p.legend()))*legendRow
}

func tallest(panels []*panel) float64 {
	height := 0.0
	for _, panel := range panels {
		height = max(height, panel.height())
	}
	return height
}

// row places panels side by side and returns the width that they take.
func row(panels []*panel, top func(*panel) float64) float64 {
	left := float64(margin)
	for _, panel := range panels {
		panel.left, panel.top = left, top(panel)
		left += panel.width() + columnGap
	}
	return left - columnGap + margin
}

func (p *picture) hasLinks() bool {
	for i := range p.snapshot.GPUs {
		if p.snapshot.GPUs[i].activeLinks() > 0 {
			return true
		}
	}
	return false
}

// middleHeight is the space that NVLink needs.
func (p *picture) middleHeight() float64 {
	for i := range p.snapshot.GPUs {
		if switchLinks(&p.snapshot.GPUs[i]) > 0 {
			return fabricHeight
		}
	}
	return meshHeight
}

func (p *picture) draw() {
	if p.options.Title != "" {
		p.text(margin, margin+24, "title", p.options.Title)
		p.text(margin, margin+43, "muted", p.subtitle())
	}
	for _, panels := range [][]*panel{p.above, p.below} {
		for _, panel := range panels {
			p.drawPanel(panel)
		}
	}
	p.drawLinks()
	p.drawLegend()
}

// subtitle says in one line what the machine has.
func (p *picture) subtitle() string {
	s := p.snapshot
	pfs := 0
	for i := range s.NICs {
		if s.NICs[i].Kind == PF {
			pfs++
		}
	}
	product := ""
	if len(s.GPUs) > 0 {
		product = s.GPUs[0].ProductName
	}
	driver := joined(" ", "driver", s.Driver.Version)
	if s.Driver.State != DriverReady {
		driver = "driver " + strings.ToLower(string(s.Driver.State))
	}
	return joined("  ·  ", joined(" × ", count(len(s.GPUs), "GPU"), product), count(pfs, "NIC"), driver)
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
