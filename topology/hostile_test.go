package topology_test

// Whatever firmware, users and clusters call things, and however odd the machine:
// every drawing stays a valid document, shows every device, and keeps texts in their boxes.

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"gonum.org/v1/gonum/graph/formats/dot"
	"pgregory.net/rapid"

	"github.com/hostler-dev/hostler/topology"
)

// hostileText is a name as nobody should give one.
var hostileText = rapid.OneOf(
	rapid.String(), rapid.StringN(0, 300, -1),
	rapid.SampledFrom([]string{
		`<script>alert("&")</script>`, "\x00\x1b]8;;\xff￾", `\`, `"; } digraph {`, "a\tb\nc\r\n", "\u202egnp.exe", "&amp;&#0;", "]]>", "--", "{}", "日本語の名前のとても長いもの", "🦊🦊🦊🦊🦊🦊🦊🦊🦊🦊🦊🦊",
	}))

// anyMachine is a machine that need not exist: devices anywhere, links to anywhere, names of any kind.
func anyMachine(t *rapid.T) *topology.Snapshot {
	text := func(label string) string { return hostileText.Draw(t, label) }
	s := &topology.Snapshot{Driver: topology.Driver{
		State:   rapid.SampledFrom([]topology.DriverState{"", topology.DriverReady, topology.DriverFailed}).Draw(t, "driver"),
		Version: text("version"), CUDAVersion: text("cuda"), Message: text("message"),
	}}
	for i := range rapid.IntRange(0, 5).Draw(t, "nodes") {
		s.NUMANodes = append(s.NUMANodes, topology.NUMANode{ID: i, Socket: i/2 - i%2, CPUs: text("cpus"), Distances: rapid.SliceOfN(rapid.IntRange(0, 255), 0, 4).Draw(t, "slit")})
	}
	place := func(pci string) topology.Placement {
		root := rapid.IntRange(0, 3).Draw(t, "root")
		p := topology.Placement{PCI: pci, PCIeRoot: []string{"", "pci0000:00", "pci0000:10", text("root name")}[root],
			NUMANode: rapid.IntRange(-1, 4).Draw(t, "node"), Socket: rapid.IntRange(-1, 2).Draw(t, "socket"), IOMMUGroup: text("iommu")}
		for level := range rapid.IntRange(0, 4).Draw(t, "levels") {
			p.Path = append(p.Path, fmt.Sprintf("0000:%x%x:00.0", root, level))
			p.PCIeSwitch = rapid.SampledFrom([]string{"", p.Path[0], p.Path[level]}).Draw(t, "switch")
		}
		return p
	}
	for level := range 4 {
		s.Bridges = append(s.Bridges, topology.Bridge{PCI: fmt.Sprintf("0000:1%x:00.0", level), Port: topology.PortUpstream})
	}
	gpus := rapid.IntRange(0, 9).Draw(t, "gpus")
	gpuPCI := func(i int) string { return fmt.Sprintf("0000:%02x:00.0", 0x40+i) }
	for i := range gpus {
		gpu := topology.GPU{Name: topology.GPUName(gpuPCI(i)), Index: rapid.IntRange(-1, gpus).Draw(t, "index"), UUID: text("uuid"), ProductName: text("product"),
			MemoryBytes: rapid.Uint64().Draw(t, "memory"), Lost: rapid.Bool().Draw(t, "lost"), Placement: place(gpuPCI(i))}
		for range rapid.IntRange(0, 6).Draw(t, "links") {
			gpu.NVLinks = append(gpu.NVLinks, topology.NVLink{
				Active: rapid.Bool().Draw(t, "active"), PeerPCI: gpuPCI(rapid.IntRange(0, 9).Draw(t, "peer")),
				Peer: rapid.SampledFrom([]topology.NVLinkPeer{topology.NVLinkPeerGPU, topology.NVLinkPeerSwitch, topology.NVLinkPeerUnknown}).Draw(t, "kind"),
			})
		}
		if rapid.Bool().Draw(t, "fabric") {
			gpu.Fabric = &topology.Fabric{ClusterUUID: text("cluster"), CliqueID: uint32(i / 3), State: text("state")}
		}
		if rapid.Bool().Draw(t, "mig") {
			gpu.MIGEnabled, gpu.MIG = true, a100Partitions()
			gpu.MIG.MemorySlices = rapid.IntRange(-1, 9).Draw(t, "slices")
			gpu.MIG.Profiles[0].Name = text("profile")
		}
		if rapid.Bool().Draw(t, "problem") {
			gpu.Problems = []topology.Problem{{Subject: text("subject"), Message: text("message")}}
		}
		s.GPUs = append(s.GPUs, gpu)
	}
	for i := range rapid.IntRange(0, 12).Draw(t, "nics") {
		pci := fmt.Sprintf("0000:%02x:00.0", 0x80+i)
		nic := topology.NIC{Name: topology.NICName(pci), Kind: topology.PF, VFID: -1, Placement: place(pci)}
		if i > 0 && rapid.Bool().Draw(t, "vf") {
			nic.Kind, nic.VFID = topology.VF, i
			nic.Parent = rapid.SampledFrom([]string{s.NICs[0].Name, "nic-gone"}).Draw(t, "parent")
		}
		if rapid.Bool().Draw(t, "link") {
			nic.Link = &topology.Link{Name: text("netdev"), Type: "ethernet", SpeedMbps: rapid.IntRange(-1, 800000).Draw(t, "speed")}
		}
		if rapid.Bool().Draw(t, "rdma") {
			nic.RDMA = &topology.RDMADevice{Name: text("rdma"), Ports: []topology.RDMAPort{{LinkLayer: text("layer"), Rate: text("rate")}}}
		}
		if rapid.Bool().Draw(t, "uplink") {
			nic.Uplink = text("reason")
		}
		if rapid.Bool().Draw(t, "direct") {
			direct := place("0000:ff:00.0")
			nic.DataDirect = &direct
		}
		s.NICs = append(s.NICs, nic)
	}
	names := []string{"a", "b", "c", "d", text("link"), text("link")}
	for i := range names {
		s.StackedLinks = append(s.StackedLinks, topology.StackedLink{Name: names[i], Kind: text("link kind"), Uplink: text("uplink"),
			Lower: rapid.SliceOfN(rapid.SampledFrom(append(names, "eth0")), 0, 3).Draw(t, "lower")})
	}
	s.Problems = rapid.SliceOfN(rapid.Just(topology.Problem{Subject: text("subject"), Message: text("message")}), 0, 6).Draw(t, "problems")
	return s
}

func anyMarks(t *rapid.T, s *topology.Snapshot) topology.DrawOptions {
	options := topology.DrawOptions{Title: hostileText.Draw(t, "title"), VFs: rapid.Bool().Draw(t, "show VFs"), IOMMUGroups: true,
		Holders: map[string][]topology.Holder{}, Faults: map[string][]string{}}
	var names []string
	for i := range s.GPUs {
		names = append(names, s.GPUs[i].Name)
		for _, partition := range topology.Partitions(&s.GPUs[i]) {
			names = append(names, partition.Name)
		}
	}
	for _, nic := range s.NICs {
		names = append(names, nic.Name)
	}
	for _, pair := range topology.Pairs(s) {
		names = append(names, pair.Name)
	}
	for _, name := range names {
		if rapid.IntRange(0, 2).Draw(t, "marked") == 0 {
			options.Holders[name] = []topology.Holder{{Claim: hostileText.Draw(t, "claim"), Pods: rapid.SliceOfN(hostileText, 0, 2).Draw(t, "pods")}}
			options.Faults[name] = rapid.SliceOfN(hostileText, 0, 3).Draw(t, "faults")
		}
	}
	return options
}

func TestEveryDrawingOfAnyMachineIsValidAndComplete(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := anyMachine(t)
		options := anyMarks(t, s)
		draw := func(write func(io.Writer, *topology.Snapshot, topology.DrawOptions) error) string {
			var first, second bytes.Buffer
			if err := write(&first, s, options); err != nil {
				t.Fatal(err)
			}
			if err := write(&second, s, options); err != nil {
				t.Fatal(err)
			}
			if first.String() != second.String() {
				t.Fatal("two drawings of one machine differ")
			}
			return first.String()
		}
		picture, graph := draw(topology.WriteSVG), draw(topology.WriteDOT)
		matrix, tree := draw(topology.WriteMatrix), draw(topology.WriteTree)
		checkPicture(t, picture)
		if _, err := dot.ParseString(graph); err != nil {
			t.Fatalf("Graphviz would not read the graph: %v\n%s", err, graph)
		}
		for _, text := range []string{matrix, tree} {
			if !utf8.ValidString(text) || strings.ContainsAny(text, "\x1b\x00\t\r\u202e") {
				t.Fatalf("text for a terminal holds what could upset it: %q", text)
			}
		}
		for _, name := range shown(s) {
			for kind, drawing := range map[string]string{"picture": picture, "graph": graph, "matrix": matrix, "tree": tree} {
				if !strings.Contains(drawing, name) {
					t.Fatalf("the %s does not show %s:\n%s", kind, name, drawing)
				}
			}
		}
	})
}

// shown are the devices that have a place of their own in every drawing; VFs are counted at their PF.
func shown(s *topology.Snapshot) []string {
	var names []string
	for _, gpu := range s.GPUs {
		names = append(names, gpu.Name)
	}
	for _, nic := range s.NICs {
		if nic.Kind == topology.PF || s.NIC(nic.Parent) == nil {
			names = append(names, nic.Name)
		}
	}
	return names
}

// element is a start tag with its attributes.
type element map[string]string

func (e element) number(name string) float64 {
	n, err := strconv.ParseFloat(e[name], 64)
	if err != nil {
		return 0
	}
	return n
}

// checkPicture: well-formed, no foreign markup, and every text within the first
// box of its group, or else within the picture.
func checkPicture(t *rapid.T, document string) {
	decoder := xml.NewDecoder(strings.NewReader(document))
	allowed := []string{"svg", "title", "desc", "style", "rect", "g", "text", "line", "path", "circle"}
	var boxes []element // of the groups that are open
	var current element
	for {
		token, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatalf("the picture is not well-formed: %v", err)
		}
		switch token := token.(type) {
		case xml.StartElement:
			if !slices.Contains(allowed, token.Name.Local) {
				t.Fatalf("the picture has an element <%s>", token.Name.Local)
			}
			current = element{"": token.Name.Local}
			for _, attribute := range token.Attr {
				current[attribute.Name.Local] = attribute.Value
			}
			switch token.Name.Local {
			case "svg":
				boxes = append(boxes, current)
			case "g":
				boxes = append(boxes, nil)
			case "rect":
				if boxes[len(boxes)-1] == nil {
					boxes[len(boxes)-1] = current
				}
			}
		case xml.EndElement:
			if token.Name.Local == "g" {
				boxes = boxes[:len(boxes)-1]
			}
			current = nil
		case xml.CharData:
			if current[""] == "text" {
				within(t, innermost(boxes), current, string(token))
			}
		}
	}
}

func innermost(boxes []element) element {
	for _, box := range slices.Backward(boxes) {
		if box != nil {
			return box
		}
	}
	return nil
}

func within(t *rapid.T, box, text element, content string) {
	width := topology.TextWidth(text["class"], content)
	left := text.number("x")
	switch text["text-anchor"] {
	case "middle":
		left -= width / 2
	case "end":
		left -= width
	}
	y := text.number("y")
	if left < box.number("x")-.1 || left+width > box.number("x")+box.number("width")+.1 || y < box.number("y") || y > box.number("y")+box.number("height") {
		t.Fatalf("text %q of class %s at %.1f,%.1f, %.1f wide, leaves its box %v", content, text["class"], left, y, width, box)
	}
}
