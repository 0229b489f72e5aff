package host_test

// The order in which the kernel and the driver happen to list things says nothing,
// and must not show: names that followed it would change at a reboot.

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/hostler-dev/hostler/test/machine"
	"github.com/hostler-dev/hostler/test/simulated"
	"github.com/hostler-dev/hostler/topology"
	"github.com/hostler-dev/hostler/topology/nic"
)

func TestOrderDoesNotShow(t *testing.T) {
	for _, profile := range []string{"workstation", "vlan-bond", "dgx-h100"} {
		t.Run(profile, func(t *testing.T) {
			m, err := simulated.New(profile, machine.TempDir(t), machine.RenderOptions{NoDriver: true})
			must(t, err)
			for i, link := range m.Kernel.AllLinks {
				for _, format := range []string{"198.51.100.%d/24", "2001:db8::%d/64", "203.0.113.%d/32"} {
					m.Kernel.AllAddresses = append(m.Kernel.AllAddresses, nic.Address{Link: link.Index, Prefix: netip.MustParsePrefix(fmt.Sprintf(format, i+1))})
				}
			}
			gpus := gpusOf(m.Profile)
			first := look(t, m, gpus)
			uniqueNames(t, first)
			rapid.Check(t, func(r *rapid.T) {
				shuffleLinks(r, m.Rendered.Sys)
				m.Kernel.AllLinks = rapid.Permutation(m.Kernel.AllLinks).Draw(r, "links")
				m.Kernel.AllRoutes = rapid.Permutation(m.Kernel.AllRoutes).Draw(r, "routes")
				m.Kernel.AllAddresses = rapid.Permutation(m.Kernel.AllAddresses).Draw(r, "addresses")
				listed := slices.Clone(rapid.Permutation(gpus).Draw(r, "GPUs"))
				for i := range listed {
					listed[i].Index = i
				}
				if diff := cmp.Diff(first, look(r, m, listed), cmpopts.IgnoreFields(topology.GPU{}, "Index"), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
					r.Error(diff)
				}
			})
		})
	}
}

// gpusOf is what the driver says of a machine's GPUs.
func gpusOf(p *machine.Profile) []topology.GPU {
	var gpus []topology.GPU
	for _, g := range p.GPUs {
		gpus = append(gpus, topology.GPU{
			Name: topology.GPUName(g.PCI), Minor: g.Minor, UUID: p.GPUUUID(0, g.PCI), Placement: topology.Placement{PCI: g.PCI, NUMANode: -1, Socket: -1},
		})
	}
	return gpus
}

// look reads the machine anew, by a reader that remembers nothing.
func look(t interface{ Fatal(...any) }, m *simulated.Machine, gpus []topology.GPU) *topology.Snapshot {
	hardware, err := m.Hardware().ReadHardware(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return topology.Assemble("", hardware, topology.Driver{State: topology.DriverReady}, gpus, nil)
}

// shuffleLinks makes the links of sysfs's flat folders anew: in memory they are
// listed in the order in which they were made, last first.
func shuffleLinks(r *rapid.T, sys string) {
	for _, pattern := range []string{"bus/pci/devices", "class/net", "class/infiniband", "class/infiniband_verbs", "class/infiniband_mad"} {
		links, err := filepath.Glob(filepath.Join(sys, pattern, "*"))
		if err != nil {
			r.Fatal(err)
		}
		links = slices.DeleteFunc(links, func(link string) bool { return filepath.Base(link) == "bonding_masters" }) // a file
		targets := map[string]string{}
		for _, link := range links {
			if targets[link], err = os.Readlink(link); err != nil {
				r.Fatal(err)
			}
			if err := os.Remove(link); err != nil {
				r.Fatal(err)
			}
		}
		if len(links) == 0 {
			continue
		}
		for _, link := range rapid.Permutation(links).Draw(r, pattern) {
			if err := os.Symlink(targets[link], link); err != nil {
				r.Fatal(err)
			}
		}
	}
}

func uniqueNames(t *testing.T, s *topology.Snapshot) {
	t.Helper()
	var names []string
	for i := range s.GPUs {
		names = append(names, s.GPUs[i].Name)
		for _, partition := range topology.Partitions(&s.GPUs[i]) {
			names = append(names, partition.Name)
		}
	}
	for i := range s.NICs {
		names = append(names, s.NICs[i].Name)
	}
	for _, pair := range topology.Pairs(s) {
		names = append(names, pair.Name)
	}
	slices.Sort(names)
	if unique := slices.Compact(slices.Clone(names)); len(unique) != len(names) {
		t.Errorf("names occur more than once: %v", names)
	}
}
