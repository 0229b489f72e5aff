// Expectations: what is true of a profile's machine by the published topology,
// written down by hand beside the profile. They are not made from the profile by any
// code, so that a mistake in reading the machine, in the graph's functions or in the
// profile itself shows as a difference.

package machine

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"
)

//go:embed expected/*.yaml
var expectations embed.FS

// Expected is what must be found on a machine. Devices have Hostler's names,
// "gpu-0000-17-00-0" and "nic-0000-18-00-0".
type Expected struct {
	// Columns of the matrix, in the order of `nvidia-smi topo -m`: GPUs, then
	// NICs with an RDMA device. NICs without one, and VFs, are not in it.
	Columns []string `json:"columns,omitempty"`
	// Matrix has a row for each column: the cells in the words of `nvidia-smi
	// topo -m` ("X", "NV18", "PIX", "PXB", "PHB", "NODE", "SYS"), separated by spaces.
	Matrix map[string]string `json:"matrix,omitempty"`
	// NUMA is the NUMA node of each GPU with which its CPUs are near ("NUMA Affinity").
	NUMA map[string]int `json:"numa,omitempty"`
	// Islands are the groups of GPUs that NVLink connects. Every GPU is in one.
	Islands [][]string `json:"islands,omitempty"`
	// AffinityGroups are the GPUs and NICs that share the nearest switch or root
	// complex that has both. A GPU that shares none is in none.
	AffinityGroups []AffinityGroup `json:"affinityGroups,omitempty"`
	// Rails says of each NIC of the compute network which GPU's rail it is.
	Rails map[string]string `json:"rails,omitempty"`
	// NoRail are NICs for storage and management, and uplinks: they are farther from
	// every GPU than its rail's NIC, or the node's own. Of a NIC in neither nothing is said.
	NoRail []string `json:"noRail,omitempty"`
	// Uplinks are the NICs that the node cannot do without: those of its default
	// routes, what they are stacked on, ports of bridges, and VFs of any of these.
	Uplinks []string `json:"uplinks,omitempty"`
	// GPUs and NICs that the machine has, PFs and VFs.
	GPUs int `json:"gpus"`
	NICs int `json:"nics"`
}

// AffinityGroup is a set of devices on both sides.
type AffinityGroup struct {
	GPUs []string `json:"gpus"`
	NICs []string `json:"nics"`
}

// LoadExpected returns what must be found on the machine of that profile.
func LoadExpected(name string) (*Expected, error) {
	raw, err := fs.ReadFile(expectations, path.Join("expected", name+".yaml"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("nothing is written down about a machine %q; there are %s: %w", name, strings.Join(Names(), ", "), err)
	}
	if err != nil {
		return nil, fmt.Errorf("read what is expected of %s: %w", name, err)
	}
	e := &Expected{}
	if err := yaml.UnmarshalStrict(raw, e); err != nil {
		return nil, fmt.Errorf("what is expected of %s: %w", name, err)
	}
	return e, nil
}

// Cell of the matrix, "" if it has none for the two devices.
func (e *Expected) Cell(a, b string) string {
	cells, column := strings.Fields(e.Matrix[a]), slices.Index(e.Columns, b)
	if column < 0 || column >= len(cells) {
		return ""
	}
	return cells[column]
}
