package pci

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestWhichFunctionsAreOfUse(t *testing.T) {
	type is struct{ GPU, NVSwitch, Network, Bridge bool }
	const nvidia, mellanox = "0x10de\n", "0x15b3\n"
	cases := []struct {
		name, class, vendor string
		more                map[string]string
		want                is
	}{
		{"a data-centre GPU", "0x030200", nvidia, nil, is{GPU: true}},
		{"a GPU with a display", "0x030000", nvidia, nil, is{GPU: true}},
		{"the sound of a GPU", "0x040300", nvidia, nil, is{}},
		{"a virtual function of a GPU, for a vGPU guest", "0x030200", nvidia, map[string]string{"physfn": "->../0000:17:00.0"}, is{}},
		{"another vendor's GPU", "0x030000", "0x1002\n", nil, is{}},
		{"an NVSwitch", "0x068000", nvidia, nil, is{NVSwitch: true}},
		{"another vendor's bridge of no kind", "0x068000", mellanox, nil, is{}},
		{"an Ethernet controller", "0x020000", mellanox, nil, is{Network: true}},
		{"an InfiniBand controller", "0x020700", mellanox, nil, is{Network: true}},
		{"a PCIe port", "0x060400", mellanox, nil, is{Bridge: true}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			files := twoNodes()
			function(files, "pci0000:16/0000:18:00.0", c.class, "0", c.more)
			files["devices/pci0000:16/0000:18:00.0/vendor"] = c.vendor
			f := read(t, files).Functions["0000:18:00.0"]
			if got := (is{f.IsNVIDIAGPU(), f.IsNVSwitch(), f.IsNetwork(), f.IsBridge()}); got != c.want {
				t.Errorf("the function is %+v, want %+v", got, c.want)
			}
		})
	}
}

func TestVFsNameTheirPF(t *testing.T) {
	files := twoNodes()
	function(files, "pci0000:16/0000:18:00.0", "0x020000", "0", map[string]string{
		"sriov_totalvfs": "8\n", "sriov_numvfs": "2\n", "virtfn0": "->../0000:18:00.1", "virtfn1": "->../0000:18:00.2", "driver": "->../../../bus/pci/drivers/mlx5_core",
	})
	for _, vf := range []string{"0000:18:00.1", "0000:18:00.2"} {
		function(files, "pci0000:16/"+vf, "0x020000", "0", map[string]string{"physfn": "->../0000:18:00.0"})
	}
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

func TestALinkToAVFThatIsGoneIsNoVF(t *testing.T) {
	files := twoNodes()
	function(files, "pci0000:16/0000:18:00.0", "0x020000", "0", map[string]string{
		"sriov_totalvfs": "8\n", "sriov_numvfs": "2\n", "virtfn0": "->../0000:18:00.1", "virtfn1": "->../0000:18:00.2",
	})
	function(files, "pci0000:16/0000:18:00.1", "0x020000", "0", map[string]string{"physfn": "->../0000:18:00.0"})
	tree := read(t, files)
	if diff := cmp.Diff(map[int]string{0: "0000:18:00.1"}, tree.Functions["0000:18:00.0"].VFs); diff != "" || len(tree.Problems) != 0 {
		t.Errorf("%s problems %v", diff, tree.Problems)
	}
}

func TestIOMMUGroupAndDriverOverride(t *testing.T) {
	files := twoNodes()
	function(files, "pci0000:16/0000:17:00.0", "0x030200", "0", map[string]string{
		"vendor": "0x10de\n", "iommu_group": "->../../../kernel/iommu_groups/42", "driver_override": "vfio-pci\n",
	})
	function(files, "pci0000:16/0000:19:00.0", "0x030200", "0", map[string]string{"vendor": "0x10de\n", "driver_override": "(null)\n"})
	tree := read(t, files)
	if f := tree.Functions["0000:17:00.0"]; f.Placement.IOMMUGroup != "42" || f.DriverOverride != "vfio-pci" {
		t.Errorf("the function is %+v", f)
	}
	if f := tree.Functions["0000:19:00.0"]; f.Placement.IOMMUGroup != "" || f.DriverOverride != "" {
		t.Errorf("a function without group and override is %+v", f)
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

func TestOneBadAttributeCostsOneAttribute(t *testing.T) {
	const address, path = "0000:18:00.0", "devices/pci0000:16/0000:18:00.0/"
	for _, attribute := range []string{"vendor", "device", "numa_node", "sriov_totalvfs", "sriov_numvfs"} {
		for name, content := range map[string]string{"senseless": "-senseless-\n", "unreadable": "->/proc/self/mem"} {
			t.Run(name+" "+attribute, func(t *testing.T) {
				files := twoNodes()
				function(files, "pci0000:16/"+address, "0x020000", "0", map[string]string{"sriov_totalvfs": "8\n", "sriov_numvfs": "0\n"})
				files[path+attribute] = content // address 0 of a process's memory answers EIO, as a device in trouble does
				tree := read(t, files)
				f := tree.Functions[address]
				if f == nil || len(tree.Problems) != 1 || tree.Problems[0].Subject != attribute+" of PCI function "+address {
					t.Fatalf("the function is %+v, the problems are %v", f, tree.Problems)
				}
				if name == "unreadable" && !strings.Contains(tree.Problems[0].Message, "input/output error") {
					t.Errorf("the problem does not say what the kernel said: %v", tree.Problems)
				}
				lost := map[string]bool{
					"vendor": f.VendorID == "", "device": f.DeviceID == "", "numa_node": f.Placement.NUMANode == -1,
					"sriov_totalvfs": f.TotalVFs == 0, "sriov_numvfs": f.NumVFs == 0,
				}
				if !lost[attribute] || f.Placement.PCIeRoot == "" || attribute != "vendor" && f.VendorID != "15b3" {
					t.Errorf("the function is %+v", f)
				}
			})
		}
	}
}

// What a hostile or broken device may put into sysfs must come out as values
// that a slice can carry, or not at all.
func FuzzAttributes(f *testing.F) {
	f.Add("0x020000", "0x15b3", "1", "8", "2", "0-3,8", "10 21", "0")
	f.Add("0x030200", "0x10de", "-1", "4294967295", "-1", "0-4294967295", "255 255", "-1")
	f.Add("", "ffffffff", "zero", "1e3", " ", "3-0", "-10", "")
	f.Fuzz(func(t *testing.T, class, vendor, node, total, number, cpus, distances, socket string) {
		files := map[string]string{}
		for name, content := range map[string]string{"class": class, "vendor": vendor, "numa_node": node, "sriov_totalvfs": total, "sriov_numvfs": number, "driver_override": number} {
			files["devices/pci0000:16/0000:18:00.0/"+name] = plain(content)
		}
		files["devices/pci0000:16/0000:18:00.0/virtfn0"] = "->../0000:18:00.1"
		files["bus/pci/devices/0000:18:00.0"] = "->../../../devices/pci0000:16/0000:18:00.0"
		files["devices/system/node/node1/cpulist"], files["devices/system/node/node1/distance"] = plain(cpus), plain(distances)
		files["devices/system/cpu/cpu0/topology/physical_package_id"] = plain(socket)
		tree := read(t, files)
		for _, n := range tree.NUMANodes {
			if n.ID != 1 || n.Socket < -1 || len(n.Distances) > 1 || strings.ContainsAny(n.CPUs, " \x00\n") {
				t.Errorf("the NUMA node is %+v", n)
			}
		}
		for _, function := range tree.Functions {
			place := function.Placement
			if place.PCI != "0000:18:00.0" || place.NUMANode != -1 && place.NUMANode != 1 || function.Class >= 1<<24 {
				t.Errorf("the function is %+v", function)
			}
			if function.VendorID != "" && len(function.VendorID) != 4 {
				t.Errorf("the vendor is %q", function.VendorID)
			}
			if function.NumVFs < 0 || function.NumVFs > function.TotalVFs || function.TotalVFs > maxVFs || len(function.VFs) > 0 {
				t.Errorf("%d of %d VFs: %v", function.NumVFs, function.TotalVFs, function.VFs)
			}
		}
		if len(tree.Functions) == 0 && len(tree.Problems) == 0 {
			t.Error("a function was left out and nobody is told")
		}
	})
}

// plain keeps the test's own notation for links out of fuzzed contents.
func plain(content string) string { return strings.TrimPrefix(content, "->") }

func FuzzLinkTargets(f *testing.F) {
	f.Add("../../../devices/pci0000:16/0000:16:01.0/0000:17:00.0")
	f.Add("../../../devices/pci0000:80/0000:80:00.5/pci10000:00/10000:00:02.0/10000:01:00.0")
	f.Add("pci:/pci0:0/0:0:0.0/")
	f.Fuzz(func(t *testing.T, target string) {
		root, bridges := placeInPath(target)
		if root == "" && len(bridges) > 0 || root != "" && !isRootComplex(root) {
			t.Errorf("bridges %v below root complex %q", bridges, root)
		}
		for _, bridge := range bridges {
			if !strings.Contains(bridge, ":") || strings.ContainsAny(bridge, "/ \n") {
				t.Errorf("bridge %q is not an address", bridge)
			}
		}
	})
}

func FuzzCPUList(f *testing.F) {
	f.Add("0-55,112-167")
	f.Add("0,2,4-4")
	f.Fuzz(func(t *testing.T, list string) {
		cpus, err := parseCPUs(list)
		if err != nil {
			return
		}
		again, err := parseCPUs(cpus.String())
		if err != nil || !cmp.Equal(cpus, again, cmp.AllowUnexported(cpuRange{})) || !cpus.within(again) {
			t.Errorf("%q is read as %v, and that as %v, %v", list, cpus, again, err)
		}
	})
}

func TestNoSysfsIsAnErrorThatSaysSo(t *testing.T) {
	root := filepath.Join(t.TempDir(), "nowhere")
	if _, err := Read(root); err == nil || !strings.Contains(err.Error(), "is sysfs mounted at "+root) {
		t.Errorf("the error is %v", err)
	}
	if _, err := os.Stat(root); err == nil {
		t.Error("reading made the folder")
	}
}
