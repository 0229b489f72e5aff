package machine

import (
	"regexp"
	"slices"
	"strings"
	"testing"
)

// An expectation that names a device which the machine does not have, or that
// contradicts itself, would test nothing.

func TestWhatIsExpectedIsOfThisMachine(t *testing.T) {
	for _, name := range Names() {
		t.Run(name, func(t *testing.T) {
			p := load(t, name)
			e, err := LoadExpected(name)
			if err != nil {
				t.Fatal(err)
			}
			devices := devicesOf(p)
			if gpus, nics := len(p.GPUs), len(devices)-len(p.GPUs); e.GPUs != gpus || e.NICs != nics {
				t.Errorf("%d GPUs and %d NICs are expected, the profile has %d and %d", e.GPUs, e.NICs, gpus, nics)
			}
			for _, device := range e.mentioned() {
				if !devices[device] {
					t.Errorf("%s is expected, the profile does not have it", device)
				}
			}
			checkMatrix(t, p, e)
			if islands := slices.Sorted(slices.Values(slices.Concat(e.Islands...))); len(islands) != len(slices.Compact(islands)) || len(islands) != len(p.GPUs) {
				t.Errorf("the islands %v do not hold each GPU once", e.Islands)
			}
			for nic := range e.Rails {
				if slices.Contains(e.NoRail, nic) {
					t.Errorf("%s has a rail and has none", nic)
				}
			}
		})
	}
}

func deviceName(kind, pci string) string {
	return kind + "-" + strings.NewReplacer(":", "-", ".", "-").Replace(pci)
}

func devicesOf(p *Profile) map[string]bool {
	devices := map[string]bool{}
	for _, g := range p.GPUs {
		devices[deviceName("gpu", g.PCI)] = true
	}
	for _, n := range p.NICs {
		devices[deviceName("nic", n.PCI)] = true
		for _, f := range n.VFs {
			devices[deviceName("nic", f.PCI)] = true
		}
	}
	return devices
}

// mentioned are all devices that the expectation names.
func (e *Expected) mentioned() []string {
	names := slices.Concat(e.Columns, slices.Concat(e.Islands...), e.Uplinks, e.NoRail)
	for _, group := range e.AffinityGroups {
		names = append(append(names, group.GPUs...), group.NICs...)
	}
	for nic, gpu := range e.Rails {
		names = append(names, nic, gpu)
	}
	for gpu := range e.NUMA {
		names = append(names, gpu)
	}
	return names
}

var cellPattern = regexp.MustCompile(`^(X|NV[1-9][0-9]?|PIX|PXB|PHB|NODE|SYS)$`)

// checkMatrix wants a square, symmetric matrix of all GPUs and of the PFs with an RDMA device.
func checkMatrix(t *testing.T, p *Profile, e *Expected) {
	t.Helper()
	if len(e.Matrix) == 0 {
		if len(p.GPUs) > 0 {
			t.Error("no matrix is written down")
		}
		return
	}
	var columns []string
	for _, g := range p.GPUs {
		columns = append(columns, deviceName("gpu", g.PCI))
	}
	for _, n := range p.NICs {
		if n.RDMA != nil {
			columns = append(columns, deviceName("nic", n.PCI))
		}
	}
	if !slices.Equal(columns, e.Columns) || len(e.Matrix) != len(columns) {
		t.Errorf("columns %v and %d rows, want %v", e.Columns, len(e.Matrix), columns)
	}
	for _, a := range columns {
		if cells := strings.Fields(e.Matrix[a]); len(cells) != len(columns) {
			t.Errorf("row %s has %d cells, want %d", a, len(cells), len(columns))
		}
		for _, b := range columns {
			cell := e.Cell(a, b)
			if !cellPattern.MatchString(cell) || cell != e.Cell(b, a) || (a == b) != (cell == "X") {
				t.Errorf("%s to %s is %q, back %q", a, b, cell, e.Cell(b, a))
			}
		}
	}
}

// The links that a profile gives its GPUs are those of the published matrix.
func TestNVLinksAreThoseOfTheMatrix(t *testing.T) {
	e, err := LoadExpected("dgx-1-v100")
	if err != nil {
		t.Fatal(err)
	}
	p := load(t, "dgx-1-v100")
	for _, a := range p.GPUs {
		for _, b := range p.GPUs {
			cell := e.Cell(deviceName("gpu", a.PCI), deviceName("gpu", b.PCI))
			want := map[string]int{"NV1": 1, "NV2": 2}[cell]
			if a.NVLinks[b.PCI] != want {
				t.Errorf("%s has %d NVLinks to %s, the matrix says %s", a.PCI, a.NVLinks[b.PCI], b.PCI, cell)
			}
		}
	}
}
