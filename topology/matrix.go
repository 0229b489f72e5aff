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
// everything as its PF, and has no row.
func WriteMatrix(w io.Writer, s *Snapshot) error {
	out := &strings.Builder{}
	names := byLabel(labels(s))
	short := labels(s)
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprint(table, "\t")
	for _, name := range names {
		fmt.Fprintf(table, "%s\t", short[name])
	}
	fmt.Fprintln(table, "CPU Affinity\tNUMA Affinity")
	for _, name := range names {
		fmt.Fprintf(table, "%s\t", short[name])
		for _, other := range names {
			fmt.Fprintf(table, "%s\t", Distance(s, name, other))
		}
		node := s.placement(name).NUMANode
		fmt.Fprintf(table, "%s\t%s\n", orNone(s.cpus(node)), numaName(node))
	}
	table.Flush() // into a strings.Builder, which does not fail
	if len(names) == 0 {
		out.Reset()
		out.WriteString("No GPUs and no NICs.\n")
	} else {
		out.WriteString(matrixLegend)
	}
	writeGPULegend(out, s, short)
	writeNICLegend(out, s, short)
	writeDriver(out, s)
	_, err := io.WriteString(w, trimLines(out.String()))
	return err
}

func writeGPULegend(out *strings.Builder, s *Snapshot, short map[string]string) {
	if len(s.GPUs) == 0 {
		return
	}
	out.WriteString("\nGPU Legend:\n\n")
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, name := range byLabel(short) {
		if gpu := s.GPU(name); gpu != nil {
			fmt.Fprintf(table, "  %s:\t%s\t%s\t%s\t%s\n", short[name], name, gpu.ProductName, gpu.UUID, gpu.condition())
		}
	}
	table.Flush()
}

func writeNICLegend(out *strings.Builder, s *Snapshot, short map[string]string) {
	if len(s.NICs) == 0 {
		return
	}
	out.WriteString("\nNIC Legend:\n\n")
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, name := range byLabel(short) {
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
		vfs := ""
		if n := vfsOf(s, name); n > 0 {
			vfs = strconv.Itoa(n) + " VFs"
		}
		uplink := ""
		if nic.Uplink != "" {
			uplink = "uplink: " + nic.Uplink
		}
		fmt.Fprintf(table, "  %s:\t%s\t%s\t%s\t%s\t%s\n", short[name], rdma, netdev, name,
			joined(", ", nic.state(), nic.speed(), vfs), uplink)
	}
	table.Flush()
}

func writeDriver(out *strings.Builder, s *Snapshot) {
	switch s.Driver.State {
	case DriverReady:
		fmt.Fprintf(out, "\nDriver %s", s.Driver.Version)
		if s.Driver.CUDAVersion != "" {
			fmt.Fprintf(out, ", CUDA %s", s.Driver.CUDAVersion)
		}
		out.WriteString("\n")
	case DriverMissing, DriverFailed:
		fmt.Fprintf(out, "\nDriver %s: %s\n", strings.ToLower(string(s.Driver.State)), s.Driver.Message)
	}
	for _, problem := range s.Problems {
		fmt.Fprintf(out, "Problem with %s: %s\n", problem.Subject, problem.Message)
	}
}

// condition is what is wrong with a GPU, "" if nothing is.
func (g *GPU) condition() string {
	if g.Lost {
		return "LOST"
	}
	if len(g.Problems) > 0 {
		return fmt.Sprintf("%s: %s", g.Problems[0].Subject, g.Problems[0].Message)
	}
	return ""
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
