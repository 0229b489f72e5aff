// The matrix: `nvidia-smi topo -m` for every device of the machine. It keeps
// that tool's columns and legend, so that what administrators know still holds, and adds
// the NICs' RDMA devices and netdevs, and what the node itself lives on.

package topology

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
)

const matrixLegend = `
Legend:

  X    = Self
  SYS  = Connection traversing PCIe as well as the SMP interconnect between NUMA nodes (e.g., QPI/UPI)
  NODE = Connection traversing PCIe as well as the interconnect between PCIe Host Bridges within a NUMA node
  PHB  = Connection traversing PCIe as well as a PCIe Host Bridge (typically the CPU)
  PXB  = Connection traversing multiple PCIe bridges (without traversing the PCIe Host Bridge)
  PIX  = Connection traversing at most a single PCIe bridge or switch
  NV#  = Connection traversing a bonded set of # NVLinks
`

// WriteMatrix draws the distances of all GPUs and PFs. A VF is as far from
// everything as its PF, and has a row, but no column, only if the options ask for VFs.
func WriteMatrix(w io.Writer, s *Snapshot, options DrawOptions) error {
	options = options.withPairs(s)
	out := &strings.Builder{}
	short := labels(s)
	if options.VFs {
		for _, vf := range byVFID(s.NICs) {
			if pf := short[vf.Parent]; pf != "" {
				short[vf.Name] = fmt.Sprintf("%sv%d", pf, vf.VFID)
			}
		}
	}
	names, columns := matrixOrder(s, short), byLabel(labels(s))
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprint(table, "\t")
	for _, name := range columns {
		fmt.Fprintf(table, "%s\t", short[name])
	}
	fmt.Fprintln(table, "CPU Affinity\tNUMA Affinity")
	for _, name := range names {
		fmt.Fprintf(table, "%s\t", short[name])
		for _, other := range columns {
			fmt.Fprintf(table, "%s\t", Distance(s, name, other))
		}
		node := s.placement(name).NUMANode
		fmt.Fprintf(table, "%s\t%s\n", orNone(plain(s.cpus(node))), numaName(node))
	}
	table.Flush() // into a strings.Builder, which does not fail
	if len(names) == 0 {
		out.Reset()
		out.WriteString("No GPUs and no NICs.\n")
	} else {
		out.WriteString(matrixLegend)
	}
	writeGPULegend(out, s, names, short, options)
	writeNICLegend(out, s, names, short, options)
	writeDriver(out, s)
	_, err := io.WriteString(w, trimLines(out.String()))
	return err
}

// matrixOrder is GPUs by number, then NICs by number, each followed by its VFs.
func matrixOrder(s *Snapshot, short map[string]string) []string {
	vfs := vfsByPF(s)
	var names []string
	for _, name := range byLabel(labels(s)) {
		names = append(names, name)
		for _, vf := range vfs[name] {
			if short[vf.Name] != "" {
				names = append(names, vf.Name)
			}
		}
	}
	return names
}

func writeGPULegend(out *strings.Builder, s *Snapshot, names []string, short map[string]string, options DrawOptions) {
	if len(s.GPUs) == 0 {
		return
	}
	out.WriteString("\nGPU Legend:\n\n")
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, name := range names {
		if gpu := s.GPU(name); gpu != nil {
			fmt.Fprintf(table, "  %s:\t%s\t%s\t%s\t%s\n", short[name], name, plain(gpu.ProductName), plain(gpu.UUID),
				plain(joined(", ", gpu.migSummary(), gpu.condition(), options.marks(s, name))))
		}
	}
	table.Flush()
}

func writeNICLegend(out *strings.Builder, s *Snapshot, names []string, short map[string]string, options DrawOptions) {
	if len(s.NICs) == 0 {
		return
	}
	out.WriteString("\nNIC Legend:\n\n")
	vfs := vfsByPF(s)
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, name := range names {
		nic := s.NIC(name)
		if nic == nil {
			continue
		}
		rdma, netdev := "-", "-"
		if nic.RDMA != nil {
			rdma = nic.RDMA.Name
		}
		if nic.Link != nil {
			netdev = nic.Link.Name
		}
		uplink := ""
		if nic.Uplink != "" {
			uplink = "uplink: " + nic.Uplink
		}
		fmt.Fprintf(table, "  %s:\t%s\t%s\t%s\t%s\t%s\n", short[name], plain(rdma), plain(netdev), name,
			plain(joined(", ", nic.state(), nic.speed(), options.vfSummary(s, vfs[name]))), plain(joined(", ", uplink, options.marks(s, name))))
	}
	table.Flush()
}

func writeDriver(out *strings.Builder, s *Snapshot) {
	switch s.Driver.State {
	case DriverReady:
		fmt.Fprintf(out, "\nDriver %s", plain(s.Driver.Version))
		if s.Driver.CUDAVersion != "" {
			fmt.Fprintf(out, ", CUDA %s", plain(s.Driver.CUDAVersion))
		}
		out.WriteString("\n")
	case DriverMissing, DriverFailed:
		fmt.Fprintf(out, "\nDriver %s: %s\n", strings.ToLower(string(s.Driver.State)), plain(s.Driver.Message))
	}
	for _, problem := range s.Problems {
		fmt.Fprintf(out, "Problem with %s: %s\n", plain(problem.Subject), plain(problem.Message))
	}
}

func numaName(node int) string {
	if node < 0 {
		return "N/A"
	}
	return strconv.Itoa(node)
}

func orNone(text string) string {
	if text == "" {
		return "N/A"
	}
	return text
}

// trimLines removes the blanks that empty last columns leave.
func trimLines(text string) string {
	lines := strings.Split(text, "\n")
	for i := range lines {
		lines[i] = strings.TrimRight(lines[i], " ")
	}
	return strings.Join(lines, "\n")
}
