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

// PCI_EXP_TYPE_* of linux/pci_regs.h.
const typeRoot, typeUpstream, typeDownstream, typePCIBridge = 0x4, 0x5, 0x6, 0x7

// configOf is a config space whose PCI Express capability says what kind of port it is.
func configOf(portType byte) string {
	config := make([]byte, 256)
	config[configStatus] = statusHasCaps
	config[configCapabilityList] = 0x40
	config[0x40], config[0x41] = 0x01, 0x50 // power management first
	config[0x50], config[0x52] = capabilityPCIe, portType<<4|2
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
			config: map[string]string{port: configOf(typeRoot), up: configOf(typeUpstream), down: configOf(typeDownstream)},
			want:   topology.Placement{PCIeRoot: "pci0000:16", Path: []string{port, up, down}, PCIeSwitch: up, NUMANode: 0, Socket: 0},
		},
		{
			name: "behind a PCIe-to-PCI bridge, which is no switch", path: "pci0000:16/" + port + "/" + up + "/0000:19:00.0", numa: "0",
			config: map[string]string{port: configOf(typeRoot), up: configOf(typePCIBridge)},
			want:   topology.Placement{PCIeRoot: "pci0000:16", Path: []string{port, up}, NUMANode: 0, Socket: 0},
		},
		{
			name: "behind two levels of switches: the lower one counts", numa: "0",
			path: "pci0000:16/" + port + "/" + up + "/" + down + "/0000:19:00.0/0000:1a:01.0/0000:1b:00.0",
			want: topology.Placement{PCIeRoot: "pci0000:16", Path: []string{port, up, down, "0000:19:00.0", "0000:1a:01.0"}, PCIeSwitch: "0000:19:00.0", NUMANode: 0, Socket: 0},
		},
		{
			name: "behind a bridge with a device right below, config space unreadable: no switch", path: "pci0000:16/" + port + "/" + up + "/0000:19:00.0", numa: "0",
			want: topology.Placement{PCIeRoot: "pci0000:16", Path: []string{port, up}, NUMANode: 0, Socket: 0},
		},
		{
			name: "right below a root complex, as on a system on a chip", path: "pci0000:16/0000:16:05.0", numa: "0",
			want: topology.Placement{PCIeRoot: "pci0000:16", NUMANode: 0, Socket: 0},
		},
		{
			name: "in a root complex below a platform device, as on Arm", path: "platform/14160000.pcie/pci0004:00/0004:00:00.0/0004:01:00.0", numa: "0",
			want: topology.Placement{PCIeRoot: "pci0004:00", Path: []string{"0004:00:00.0"}, NUMANode: 0, Socket: 0},
		},
		{
			name: "in a NUMA node without CPUs: driven by the socket that is nearest", path: "pci0000:16/0000:16:05.0", numa: "1",
			want: topology.Placement{PCIeRoot: "pci0000:16", NUMANode: 1, Socket: 0},
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
				if strings.HasPrefix(elements[i], "0000:") || strings.HasPrefix(elements[i], "10000:") || elements[i] == "0004:00:00.0" {
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
	for _, path := range []string{"pci0000:16/0000:16:01.0/0000:17:00.0", "pci0000:16/0000:16:05.0", "pcidead:be/dead:be:05.0"} {
		function(files, path, "0x030200", "0", nil)
	}
	root := machine(t, files)
	tree, err := Read(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, address := range []string{"0000:17:00.0", "0000:16:05.0", "dead:be:05.0"} {
		standard, err := deviceattribute.GetPCIeRootAttributeByPCIBusID(address, deviceattribute.WithFSFromRoot(root))
		if err != nil {
			t.Fatal(err)
		}
		own := resourceapi.DeviceAttribute{StringValue: &tree.Functions[address].Placement.PCIeRoot}
		if diff := cmp.Diff(standard.Value, own); diff != "" {
			t.Error(diff)
		}
	}
}
