package pci

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/dynamic-resource-allocation/deviceattribute"

	"github.com/hostler-dev/hostler/topology"
)

// machine writes a sysfs tree; paths are below it, links begin with "->".
func machine(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, content := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		target, isLink := strings.CutPrefix(content, "->")
		if isLink {
			if err := os.Symlink(target, path); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// function adds a PCI function below a path of bridges.
func function(files map[string]string, path, class, numa string, more map[string]string) {
	address := filepath.Base(path)
	files["bus/pci/devices/"+address] = "->../../../devices/" + path
	files["devices/"+path+"/class"] = class + "\n"
	files["devices/"+path+"/vendor"] = "0x15b3\n"
	files["devices/"+path+"/device"] = "0x1021\n"
	if numa != "" {
		files["devices/"+path+"/numa_node"] = numa + "\n"
	}
	for name, content := range more {
		files["devices/"+path+"/"+name] = content
	}
}

// configOf is a config space whose PCI Express capability says what kind of port it is.
func configOf(kind portKind) string {
	config := make([]byte, 256)
	config[configStatus] = statusHasCaps
	config[configCapabilityList] = 0x40
	config[0x40], config[0x41] = 0x01, 0x50 // power management first
	config[0x50], config[0x52] = capabilityPCIe, byte(kind)<<4|2
	return string(config)
}

func twoNodes() map[string]string {
	return map[string]string{
		"devices/system/node/node0/cpulist":                    "0-3\n",
		"devices/system/node/node0/distance":                   "10 21\n",
		"devices/system/node/node1/cpulist":                    "\n",
		"devices/system/node/node1/distance":                   "21 10\n",
		"devices/system/node/possible":                         "0-1\n",
		"devices/system/cpu/cpu0/topology/physical_package_id": "0\n",
	}
}

func read(t *testing.T, files map[string]string) *Tree {
	t.Helper()
	tree, err := Read(machine(t, files))
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

func TestPlacement(t *testing.T) {
	const port, up, down = "0000:16:01.0", "0000:17:00.0", "0000:18:02.0"
	cases := []struct {
		name   string
		path   string
		numa   string
		config map[string]string // by bridge
		want   topology.Placement
	}{
		{
			name: "directly below a root port", path: "pci0000:16/" + port + "/0000:17:00.0", numa: "0",
			want: topology.Placement{PCIeRoot: "pci0000:16", Path: []string{port}, NUMANode: 0, Socket: 0},
		},
		{
			name: "behind a switch, config space unreadable", path: "pci0000:16/" + port + "/" + up + "/" + down + "/0000:19:00.0", numa: "0",
			want: topology.Placement{PCIeRoot: "pci0000:16", Path: []string{port, up, down}, PCIeSwitch: up, NUMANode: 0, Socket: 0},
		},
		{
			name: "behind a switch that config space names", path: "pci0000:16/" + port + "/" + up + "/" + down + "/0000:19:00.0", numa: "0",
			config: map[string]string{port: configOf(portRoot), up: configOf(portUpstream), down: configOf(portDownstream)},
			want:   topology.Placement{PCIeRoot: "pci0000:16", Path: []string{port, up, down}, PCIeSwitch: up, NUMANode: 0, Socket: 0},
		},
		{
			name: "behind a PCIe-to-PCI bridge, which is no switch", path: "pci0000:16/" + port + "/" + up + "/0000:19:00.0", numa: "0",
			config: map[string]string{port: configOf(portRoot), up: configOf(0x7)},
			want:   topology.Placement{PCIeRoot: "pci0000:16", Path: []string{port, up}, NUMANode: 0, Socket: 0},
		},
		{
			name: "in a NUMA node without CPUs, which is in no socket", path: "pci0000:16/0000:16:05.0", numa: "1",
			want: topology.Placement{PCIeRoot: "pci0000:16", NUMANode: 1, Socket: -1},
		},
		{
			name: "without NUMA affinity", path: "pci0000:16/0000:16:05.0", numa: "-1",
			want: topology.Placement{PCIeRoot: "pci0000:16", NUMANode: -1, Socket: -1},
		},
		{
			name: "behind Intel VMD, whose domain has five digits", path: "pci0000:80/0000:80:00.5/pci10000:00/10000:00:02.0/10000:01:00.0", numa: "0",
			want: topology.Placement{PCIeRoot: "pci0000:80", Path: []string{"10000:00:02.0"}, NUMANode: 0, Socket: 0},
		},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			files := twoNodes()
			elements := strings.Split(c.path, "/")
			for i := 1; i < len(elements)-1; i++ {
				more := map[string]string{}
				if config := c.config[elements[i]]; config != "" {
					more["config"] = config
				}
				if !strings.HasPrefix(elements[i], "pci") {
					function(files, strings.Join(elements[:i+1], "/"), "0x060400", "0", more)
				}
			}
			function(files, c.path, "0x020000", c.numa, nil)
			address := elements[len(elements)-1]
			c.want.PCI = address
			tree := read(t, files)
			if diff := cmp.Diff(c.want, tree.Functions[address].Placement); diff != "" {
				t.Error(diff)
			}
			if len(tree.Problems) != 0 {
				t.Errorf("unexpected problems: %v", tree.Problems)
			}
		})
	}
}

// The standard attribute must be what Kubernetes' own helper makes of the same sysfs.
func TestPCIeRootIsTheStandardAttribute(t *testing.T) {
	files := twoNodes()
	function(files, "pci0000:16/0000:16:01.0", "0x060400", "0", nil)
	function(files, "pci0000:16/0000:16:01.0/0000:17:00.0", "0x030200", "0", nil)
	root := machine(t, files)
	tree, err := Read(root)
	if err != nil {
		t.Fatal(err)
	}
	standard, err := deviceattribute.GetPCIeRootAttributeByPCIBusID("0000:17:00.0", deviceattribute.WithFSFromRoot(root))
	if err != nil {
		t.Fatal(err)
	}
	own := resourceapi.DeviceAttribute{StringValue: &tree.Functions["0000:17:00.0"].Placement.PCIeRoot}
	if diff := cmp.Diff(standard.Value, own); diff != "" {
		t.Error(diff)
	}
}

func TestNUMANodesWithSocketsAndDistances(t *testing.T) {
	want := []topology.NUMANode{
		{ID: 0, Socket: 0, CPUs: "0-3", Distances: []int{10, 21}},
		{ID: 1, Socket: -1, Distances: []int{21, 10}},
	}
	if diff := cmp.Diff(want, read(t, twoNodes()).NUMANodes); diff != "" {
		t.Error(diff)
	}
}

func TestVFsNameTheirPF(t *testing.T) {
	files := twoNodes()
	function(files, "pci0000:16/0000:18:00.0", "0x020000", "0", map[string]string{
		"sriov_totalvfs": "8\n", "sriov_numvfs": "2\n", "virtfn0": "->../0000:18:00.1", "virtfn1": "->../0000:18:00.2", "driver": "->../../../bus/pci/drivers/mlx5_core",
	})
	function(files, "pci0000:16/0000:18:00.1", "0x020000", "0", map[string]string{"physfn": "->../0000:18:00.0"})
	tree := read(t, files)
	pf, vf := tree.Functions["0000:18:00.0"], tree.Functions["0000:18:00.1"]
	if diff := cmp.Diff(map[int]string{0: "0000:18:00.1", 1: "0000:18:00.2"}, pf.VFs); diff != "" {
		t.Error(diff)
	}
	if pf.TotalVFs != 8 || pf.NumVFs != 2 || pf.Driver != "mlx5_core" || pf.PF != "" {
		t.Errorf("the PF is %+v", pf)
	}
	if vf.PF != "0000:18:00.0" || vf.Driver != "" {
		t.Errorf("the VF is %+v", vf)
	}
}

func TestOneBadFunctionCostsNoOther(t *testing.T) {
	files := twoNodes()
	function(files, "pci0000:16/0000:18:00.0", "Ethernet", "0", nil)
	function(files, "pci0000:16/0000:19:00.0", "0x020000", "7", nil)
	tree := read(t, files)
	if len(tree.Functions) != 1 || tree.Functions["0000:19:00.0"].Placement.NUMANode != -1 {
		t.Errorf("want the second function alone, in no NUMA node; have %v", tree.Functions)
	}
	if len(tree.Problems) != 2 || !strings.Contains(tree.Problems[0].Message, `"Ethernet"`) || !strings.Contains(tree.Problems[1].Message, "7") {
		t.Errorf("the problems are %v", tree.Problems)
	}
}

func TestNoSysfsIsAnErrorThatSaysSo(t *testing.T) {
	root := filepath.Join(t.TempDir(), "nowhere")
	if _, err := Read(root); err == nil || !strings.Contains(err.Error(), "is sysfs mounted at "+root) {
		t.Errorf("the error is %v", err)
	}
}

func FuzzConfigSpace(f *testing.F) {
	f.Add([]byte(configOf(portUpstream)))
	looped := []byte(configOf(portUpstream))
	looped[0x50], looped[0x51] = 0x05, 0x40
	f.Add(looped)
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, config []byte) {
		if kind := portKindOf(config); kind < portUnknown || kind > 0xf {
			t.Errorf("port kind %d does not exist", kind)
		}
	})
}

func FuzzSysfsStrings(f *testing.F) {
	f.Add("../../../devices/pci0000:16/0000:16:01.0/0000:17:00.0", "10 21", "0-3,8")
	f.Fuzz(func(t *testing.T, target, row, list string) {
		root, bridges := placeInPath(target)
		if root == "" && len(bridges) > 0 {
			t.Errorf("bridges %v without a root complex", bridges)
		}
		for _, bridge := range bridges {
			if pci, err := topology.CanonicalPCI(bridge); err != nil || pci != bridge {
				t.Errorf("bridge %q is not in canonical form", bridge)
			}
		}
		if distances, err := parseDistances(row); err != nil && distances != nil {
			t.Error("distances beside an error")
		}
		if cpu, ok := firstCPU(list); ok && cpu < 0 {
			t.Errorf("CPU %d", cpu)
		}
	})
}
