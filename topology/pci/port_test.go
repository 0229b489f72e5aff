package pci

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/hostler-dev/hostler/topology"
)

// One root port above a switch of two levels; the device is below all of them.
func TestPortsOfBridges(t *testing.T) {
	path := []string{"0000:16:01.0", "0000:17:00.0", "0000:18:02.0", "0000:19:00.0", "0000:1a:00.0"}
	alternating := []topology.PortKind{topology.PortRoot, topology.PortUpstream, topology.PortDownstream, topology.PortUpstream, topology.PortDownstream}
	cases := []struct {
		name   string
		config []string // of the bridges, "" unreadable
		want   []topology.PortKind
	}{
		{"nothing is told", make([]string, 5), alternating},
		{"only the root port's first 64 bytes are told", []string{configOf(typeRoot)[:64], "", "", "", ""}, alternating},
		{"everything is told", []string{configOf(typeRoot), configOf(typeUpstream), configOf(typeDownstream), configOf(typeUpstream), configOf(typeDownstream)}, alternating},
		{"a bridge to PCI ends what can be concluded", []string{"", configOf(typePCIBridge), "", "", ""}, []topology.PortKind{topology.PortRoot, "", "", "", ""}},
		{"a conventional bridge has no PCI Express capability", []string{"", string(make([]byte, 256)), "", "", ""}, []topology.PortKind{topology.PortRoot, "", "", "", ""}},
		{"a switch right below the root complex", []string{configOf(typeUpstream), "", "", "", ""},
			[]topology.PortKind{topology.PortUpstream, topology.PortDownstream, topology.PortUpstream, topology.PortDownstream, ""}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			files := twoNodes()
			place := "pci0000:16"
			for i, bridge := range path {
				place += "/" + bridge
				more := map[string]string{}
				if c.config[i] != "" {
					more["config"] = c.config[i]
				}
				function(files, place, "0x060400", "0", more)
			}
			function(files, place+"/0000:1b:00.0", "0x020000", "0", nil)
			tree := read(t, files)
			var got []topology.PortKind
			for _, bridge := range tree.Bridges {
				got = append(got, bridge.Port)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
			// The switch that a placement names is one that the bridges say is one.
			last := ""
			for i, kind := range slices.Backward(got) {
				if kind == topology.PortUpstream {
					last = path[i]
					break
				}
			}
			if at := tree.Functions["0000:1b:00.0"].Placement.PCIeSwitch; at != last {
				t.Errorf("the nearest switch is %q, the lowest upstream port %q", at, last)
			}
		})
	}
}

func FuzzConfigSpace(f *testing.F) {
	f.Add([]byte(configOf(typeUpstream)))
	looped := []byte(configOf(typeUpstream))
	looped[0x50], looped[0x51] = 0x05, 0x40
	f.Add(looped)
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, config []byte) {
		kind, told := portOf(config)
		known := []topology.PortKind{"", topology.PortRoot, topology.PortUpstream, topology.PortDownstream}
		if !slices.Contains(known, kind) || kind != "" && !told || told && len(config) < configSpaceSize {
			t.Errorf("the port is %q, told: %t", kind, told)
		}
	})
}
