package host_test

// The bus's bad days: functions that go, change hands or answer nonsense while
// the rest of the machine goes on.

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/hostler-dev/hostler/test/machine"
	"github.com/hostler-dev/hostler/topology"
	"github.com/hostler-dev/hostler/topology/nic"
)

// folder is where a function's attributes are.
func (s *bench) folder(t *testing.T, pci string) string {
	t.Helper()
	folder, err := filepath.EvalSymlinks(filepath.Join(s.Rendered.Sys, "bus/pci/devices", pci))
	must(t, err)
	return folder
}

// unplug removes functions as the kernel does, with all links to what was below them.
func (s *bench) unplug(t *testing.T, functions ...string) {
	t.Helper()
	for _, pci := range functions {
		must(t, os.RemoveAll(s.folder(t, pci)))
		must(t, os.Remove(filepath.Join(s.Rendered.Sys, "bus/pci/devices", pci)))
	}
	links, err := filepath.Glob(filepath.Join(s.Rendered.Sys, "class/*/*"))
	must(t, err)
	for _, link := range links {
		if _, err := os.Stat(link); errors.Is(err, os.ErrNotExist) {
			must(t, os.Remove(link))
			s.Kernel.AllLinks = slices.DeleteFunc(s.Kernel.AllLinks, func(l nic.LinkState) bool { return l.Name == filepath.Base(link) })
		}
	}
}

// put replaces an attribute.
func (s *bench) put(t *testing.T, pci, attribute, content string) {
	t.Helper()
	path := filepath.Join(s.folder(t, pci), attribute)
	must(t, errors.Join(os.RemoveAll(path), os.WriteFile(path, []byte(content+"\n"), 0o644)))
}

// spoil makes reading an attribute fail with EIO, as address 0 of a process's memory does.
func (s *bench) spoil(t *testing.T, pci, attribute string) {
	t.Helper()
	path := filepath.Join(s.folder(t, pci), attribute)
	must(t, errors.Join(os.RemoveAll(path), os.Symlink("/proc/self/mem", path)))
}

func (s *bench) bind(t *testing.T, pci, driver string) {
	t.Helper()
	path := filepath.Join(s.folder(t, pci), "driver")
	must(t, os.RemoveAll(path))
	if driver != "" {
		must(t, os.Symlink(filepath.Join(s.Rendered.Sys, "bus/pci/drivers", driver), path))
	}
}

// install puts a driver's library of that version into the place of the one that is there.
func (s *bench) install(t *testing.T, version string) {
	t.Helper()
	folder := filepath.Join(s.Rendered.DriverRoot, "usr/lib64")
	content, err := os.ReadFile(filepath.Join(folder, "libnvidia-ml.so."+s.Profile.Driver.Version))
	must(t, err)
	library := filepath.Join(folder, "libnvidia-ml.so."+version)
	link := filepath.Join(folder, "libnvidia-ml.so.1")
	must(t, os.Remove(link))
	must(t, os.WriteFile(library+".new", content, 0o755))
	must(t, os.Rename(library+".new", library))
	must(t, os.Symlink(filepath.Base(library), link))
}

const (
	gpu0, gpu1 = "0000:17:00.0", "0000:65:00.0"
	pf         = "0000:66:00.0"
)

// Each day begins with a well workstation: two GPUs, a PF with four VFs, an uplink.
// What is wanted is what then differs from it, and no problem more.
func TestBadDaysOfTheBus(t *testing.T) {
	lose := func(gpu *topology.GPU, problem string) {
		gpu.Lost, gpu.Problems = true, []topology.Problem{{Subject: "PCI bus", Message: problem}}
	}
	leave := func(s *topology.Snapshot, functions ...string) {
		s.NICs = slices.DeleteFunc(s.NICs, func(n topology.NIC) bool { return slices.Contains(functions, n.Placement.PCI) })
	}
	cases := []struct {
		name   string
		happen func(t *testing.T, s *bench)
		want   func(s *topology.Snapshot)
	}{
		{
			"a GPU leaves the bus and the driver still lists it: lost, where it was",
			func(t *testing.T, s *bench) { s.unplug(t, gpu0) },
			func(s *topology.Snapshot) {
				lose(&s.GPUs[0], "the driver still lists the GPU but the PCI bus does not")
			},
		},
		{
			"a GPU is unbound from its driver: lost",
			func(t *testing.T, s *bench) { s.bind(t, gpu0, "") },
			func(s *topology.Snapshot) { lose(&s.GPUs[0], "no driver is bound to the GPU") },
		},
		{
			"a GPU is unbound and bound again: as before",
			func(t *testing.T, s *bench) {
				s.bind(t, gpu0, "")
				s.observe(t)
				s.bind(t, gpu0, "nvidia")
			},
			func(*topology.Snapshot) {},
		},
		{
			"a PF leaves with its VFs: they are gone and nothing else is",
			func(t *testing.T, s *bench) {
				s.unplug(t, pf, "0000:66:00.2", "0000:66:00.3", "0000:66:00.4", "0000:66:00.5")
			},
			func(s *topology.Snapshot) {
				leave(s, pf, "0000:66:00.2", "0000:66:00.3", "0000:66:00.4", "0000:66:00.5")
				s.Bridges = slices.DeleteFunc(s.Bridges, func(b topology.Bridge) bool { return b.PCI == "0000:64:04.0" })
			},
		},
		{
			"a VF leaves after the PF said how many it has: the others keep their numbers",
			func(t *testing.T, s *bench) { s.unplug(t, "0000:66:00.3") },
			func(s *topology.Snapshot) { leave(s, "0000:66:00.3") },
		},
		{
			"a GPU's NUMA node cannot be read: it has none",
			func(t *testing.T, s *bench) { s.spoil(t, gpu1, "numa_node") },
			func(s *topology.Snapshot) {
				s.GPUs[1].Placement.NUMANode, s.GPUs[1].Placement.Socket = -1, -1
				s.Problems = []topology.Problem{{Subject: "numa_node of PCI function " + gpu1, Message: "input/output error"}}
			},
		},
		{
			"a NIC's number of VFs makes no sense: it has no SR-IOV, its VFs no number",
			func(t *testing.T, s *bench) { s.put(t, pf, "sriov_numvfs", "9") },
			func(s *topology.Snapshot) {
				s.Problems = []topology.Problem{{Subject: "sriov_numvfs of PCI function " + pf, Message: "9 of 8 VFs is not possible"}}
				for i := range s.NICs {
					switch f := &s.NICs[i]; {
					case f.Placement.PCI == pf:
						f.NumVFs, f.TotalVFs = 0, 0
					case f.Kind == topology.VF:
						f.VFID, f.Problems = -1, []topology.Problem{{Subject: "VF number", Message: "lists no virtfn link to it"}}
					}
				}
			},
		},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if !inOwnProcess(t) {
				return
			}
			s := simulate(t, "workstation", machine.RenderOptions{})
			want := deepCopy(t, s.observe(t))
			c.want(want)
			c.happen(t, s)
			if diff := cmp.Diff(want, s.observe(t), problemsAlike); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// problemsAlike compares problems by subject and by the part of the message that a test names.
var problemsAlike = cmp.Comparer(func(a, b topology.Problem) bool {
	return a.Subject == b.Subject && (strings.Contains(a.Message, b.Message) || strings.Contains(b.Message, a.Message))
})

// deepCopy is a snapshot that a test may change.
func deepCopy(t *testing.T, s *topology.Snapshot) *topology.Snapshot {
	t.Helper()
	c := *s
	c.GPUs, c.NICs, c.Bridges = slices.Clone(s.GPUs), slices.Clone(s.NICs), slices.Clone(s.Bridges)
	return &c
}

func TestWhoseGPUItIs(t *testing.T) {
	type gpus = []topology.GPUFunction
	cases := []struct {
		name, driver, override string
		want                   gpus
	}{
		{"the driver's", "nvidia", "", gpus{{PCI: gpu0, Bound: true}, {PCI: gpu1, Bound: true}}},
		{"nobody's: the driver could have it", "", "", gpus{{PCI: gpu0}, {PCI: gpu1, Bound: true}}},
		{"nobody's, on its way back to the driver", "", "nvidia", gpus{{PCI: gpu0}, {PCI: gpu1, Bound: true}}},
		{"nobody's, on its way to a virtual machine", "", "vfio-pci", gpus{{PCI: gpu1, Bound: true}}},
		{"a virtual machine's", "vfio-pci", "vfio-pci", gpus{{PCI: gpu1, Bound: true}}},
		{"another driver's", "nouveau", "", gpus{{PCI: gpu1, Bound: true}}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			s := simulate(t, "workstation", machine.RenderOptions{NoDriver: true})
			s.bind(t, gpu0, c.driver)
			if c.override != "" {
				s.put(t, gpu0, "driver_override", c.override)
			}
			hardware, err := s.Hardware().ReadHardware(t.Context())
			must(t, err)
			if diff := cmp.Diff(c.want, hardware.GPUFunctions); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestAGPUThatNoDriverEverHadIsNamedAsAProblem(t *testing.T) {
	s := topology.Assemble("", topology.Hardware{
		Placements: map[string]topology.Placement{gpu0: {PCI: gpu0}}, GPUFunctions: []topology.GPUFunction{{PCI: gpu0}},
	}, topology.Driver{State: topology.DriverReady}, nil, nil)
	if len(s.GPUs) != 0 || len(s.Problems) != 1 || !strings.Contains(s.Problems[0].Subject, gpu0) || !strings.Contains(s.Problems[0].Message, "no driver is bound") {
		t.Errorf("the snapshot is %+v", s)
	}
}

func TestADriverReloadedUnderAnotherVersion(t *testing.T) {
	if !inOwnProcess(t) {
		return
	}
	s := simulate(t, "workstation", machine.RenderOptions{})
	before := s.observe(t)
	must(t, s.Control.KillDriver())
	s.observe(t)
	s.install(t, "999.1")
	must(t, s.Control.ReviveDriver())
	after := s.observe(t)
	if after.Driver.State != topology.DriverFailed || !strings.Contains(after.Driver.Message, "restart the agent") {
		t.Errorf("the driver is %+v, want it to ask for a restart", after.Driver)
	}
	if len(after.GPUs) != 2 || !after.GPUs[0].Lost || after.GPUs[0].UUID != before.GPUs[0].UUID || len(after.NICs) != len(before.NICs) {
		t.Errorf("the machine is %+v", after)
	}
}
