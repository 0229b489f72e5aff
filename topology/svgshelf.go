// Shelves: the rows of root complexes that a NUMA node takes in the picture, and
// the cells that a root complex or switch takes on them.

package topology

// shelf is a row of root complexes.
type shelf struct {
	roots   []*switchGroup
	start   float64 // from the socket's edge
	levels  int     // of switches
	devices float64 // height of the tallest cell
	gpus    bool
}

// fillShelves puts root complexes with GPUs on the shelf next to the middle and
// the others beside them or, if that gets too wide, on shelves before.
func (p *picture) fillShelves(box *nodeBox) {
	var gpus, others []*switchGroup
	for _, root := range box.node.roots {
		if root.hasGPUs() {
			gpus = append(gpus, root)
		} else {
			others = append(others, root)
		}
	}
	limit := widest
	if p.linked() {
		limit = 1 << 10 // every GPU must face the middle
	}
	if cellsOf(gpus)+cellsOf(others) <= widest && len(gpus) > 0 {
		box.shelves = []*shelf{p.newShelf(append(gpus, others...))}
		return
	}
	beside := max(4, min(widest, cellsOf(gpus)))
	for _, roots := range balanced(others, beside) {
		box.shelves = append(box.shelves, p.newShelf(roots))
	}
	for _, roots := range balanced(gpus, limit) {
		box.shelves = append(box.shelves, p.newShelf(roots))
	}
}

// balanced splits root complexes into shelves of about the same number of cells, at most limit each where possible.
func balanced(roots []*switchGroup, limit int) [][]*switchGroup {
	total := cellsOf(roots)
	shelves := max(1, (total+limit-1)/limit)
	each := (total + shelves - 1) / shelves
	var split [][]*switchGroup
	room := 0
	for _, root := range roots {
		if need := root.cells(); len(split) == 0 || room < need {
			split = append(split, nil)
			room = each
		}
		room -= root.cells()
		split[len(split)-1] = append(split[len(split)-1], root)
	}
	return split
}

func (p *picture) newShelf(roots []*switchGroup) *shelf {
	s := &shelf{roots: roots}
	for _, root := range roots {
		s.levels = max(s.levels, root.levels())
		s.devices = max(s.devices, p.tallestCell(root))
		s.gpus = s.gpus || root.hasGPUs()
	}
	return s
}

func (s *shelf) cells() int { return cellsOf(s.roots) }

// tallestCell is the height of the cell that has most devices, each with the gap before it.
func (p *picture) tallestCell(g *switchGroup) float64 {
	height := 0.0
	for i, slots := range p.slots(g) {
		cell := 0.0
		for _, slot := range slots {
			cell += p.slotHeight(slot) + rowGap
		}
		if i < len(g.gpus) {
			cell += p.gpuHeight + rowGap
		}
		height = max(height, cell)
	}
	for _, below := range g.switches {
		height = max(height, p.tallestCell(below))
	}
	return height
}

// stackShelves places a node's shelves one after the other and returns where they end.
func (p *picture) stackShelves(box *nodeBox, start float64) float64 {
	for _, s := range box.shelves {
		s.start = start
		start += p.shelfHeight(s) + shelfGap
	}
	return start - shelfGap
}

func (p *picture) shelfHeight(s *shelf) float64 {
	return float64(rootHeight+s.levels*(switchHeight+rowGap)) + s.devices
}

func cellsOf(groups []*switchGroup) int {
	cells := 0
	for _, g := range groups {
		cells += g.cells()
	}
	return cells
}

// directCells are one for each GPU, which needs its face to the middle; without
// GPUs, enough for the NICs not to become a tower.
func (g *switchGroup) directCells() int {
	nics := len(g.nics) + len(g.dataDirect)
	switch {
	case len(g.gpus) > 0:
		return len(g.gpus)
	case nics == 0:
		return 0
	case nics <= 2:
		return 1
	}
	return (nics + 2) / 3
}

// sides are the left edges of what hangs from a group directly and of the
// switches below it: on the left whichever leads to GPUs, so that the GPUs of two sockets face each other.
func (g *switchGroup) sides(left float64) (direct, below float64) {
	if len(g.gpus) == 0 && g.hasGPUs() {
		return left + float64(cellsOf(g.switches)*(cellWidth+columnGap)), left
	}
	return left, left + float64(g.directCells()*(cellWidth+columnGap))
}

func cellsWidth(cells int) float64 { return float64(cells*(cellWidth+columnGap) - columnGap) }
