package machine

import (
	"crypto/sha256"
	"flag"
	"fmt"
	"hash"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/dynamic-resource-allocation/deviceattribute"
)

var update = flag.Bool("update", false, "rewrite the golden listings in testdata")

func load(t *testing.T, name string) *Profile {
	t.Helper()
	p, err := Load(name)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func render(t *testing.T, name string, options RenderOptions) *Rendered {
	t.Helper()
	p := load(t, name)
	if name == large {
		p.NICs = p.NICs[:2]
	}
	r, err := Render(p, TempDir(t), options)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// listing names every file of a tree with its type, and the content of the small ones.
func listing(t *testing.T, root string) string {
	t.Helper()
	var lines []string
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name, _ := filepath.Rel(root, path)
		switch {
		case d.Type()&fs.ModeSymlink != 0:
			target, err := os.Readlink(path)
			lines = append(lines, name+" -> "+target)
			return err
		case d.Type()&fs.ModeCharDevice != 0:
			lines = append(lines, name+" (character device)")
		case strings.HasPrefix(name, "driver/usr") || filepath.Base(name) == "config" || filepath.Base(name) == "resource":
			lines = append(lines, name)
		default:
			content, err := os.ReadFile(path)
			lines = append(lines, fmt.Sprintf("%s = %q", name, strings.TrimSuffix(string(content), "\n")))
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	sort.Strings(lines)
	return strings.Join(lines, "\n") + "\n"
}

// The golden listings leave out what repeats a hundredfold: CPUs, of which a
// DGX has 224, counters, which all start at zero, and device nodes of MIG instances.
func withoutRepetition(listing string) string {
	var kept []string
	for line := range strings.Lines(listing) {
		if !strings.Contains(line, "system/cpu/cpu") && !strings.Contains(line, "/statistics/") && !strings.Contains(line, "counters/") &&
			!strings.Contains(line, "dev/nvidia-caps/") {
			kept = append(kept, line)
		}
	}
	return strings.Join(kept, "")
}

// Sampling a NIC needs its counters, a CPU's socket its package id.
func TestRepeatedFilesAreThereForEach(t *testing.T) {
	p := load(t, "dgx-h100")
	r := render(t, "dgx-h100", RenderOptions{})
	for _, n := range p.NICs {
		for _, file := range []string{"statistics/rx_bytes", "statistics/tx_bytes", "statistics/rx_dropped"} {
			expectContent(t, filepath.Join(r.Sys, "class/net", n.Interface, file), "0")
		}
		for _, file := range []string{"counters/port_rcv_data", "counters/link_downed", "hw_counters/out_of_sequence"} {
			expectContent(t, filepath.Join(r.Sys, "class/infiniband", n.RDMA.Name, "ports/1", file), "0")
		}
	}
	for cpu, socket := range map[int]string{0: "0", 55: "0", 56: "1", 111: "1", 112: "0", 223: "1"} {
		expectContent(t, filepath.Join(r.Sys, fmt.Sprintf("devices/system/cpu/cpu%d/topology/physical_package_id", cpu)), socket)
	}
}

// large is a machine of a quarter of a million files. Tests render the first two
// of its PFs with their VFs, BenchmarkRender all.
const large = "nic-16x128"

// summarised are machines of whose files the golden file has a count and a hash
// for each folder: they are made of the same parts as others, whose files it lists.
var summarised = []string{large, "gb200-nvl", "hgx-a100-mig", "l40s-pcie"}

// summary counts and hashes what lies below each folder of the third level.
func summary(listing string) string {
	type folder struct {
		hash  hash.Hash
		files int
	}
	folders := map[string]*folder{}
	for line := range strings.Lines(listing) {
		name, _, _ := strings.Cut(line, " ")
		elements := strings.Split(name, "/")
		name = strings.Join(elements[:min(3, len(elements)-1)], "/")
		if folders[name] == nil {
			folders[name] = &folder{hash: sha256.New()}
		}
		folders[name].files++
		folders[name].hash.Write([]byte(line))
	}
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(folders)) {
		fmt.Fprintf(&b, "%s %d files %x\n", name, folders[name].files, folders[name].hash.Sum(nil)[:8])
	}
	return b.String()
}

func expectContent(t *testing.T, path, want string) {
	t.Helper()
	content, err := os.ReadFile(path)
	if got := strings.TrimSpace(string(content)); err != nil || got != want {
		t.Errorf("%s holds %q (%v), want %q", path, got, err, want)
	}
}

func TestRenderedTreeIsTheGoldenOne(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("the golden listings have device nodes, which only root can make")
	}
	for _, name := range Names() {
		t.Run(name, func(t *testing.T) {
			r := render(t, name, RenderOptions{})
			whole := listing(t, filepath.Dir(r.Sys))
			got := withoutRepetition(whole)
			if slices.Contains(summarised, name) {
				got = summary(whole)
			}
			golden := filepath.Join("testdata", name+".txt")
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("rendered tree differs (go test -update if it should):\n%s", diff)
			}
		})
	}
}

// The pairs of the DGX H100 User Guide's table "Network Modules".
func TestEachGPUSharesItsSwitchWithTheNICOfTheUserGuide(t *testing.T) {
	p := load(t, "dgx-h100")
	above := map[string]string{}
	for _, b := range p.Bridges {
		above[b.PCI] = b.Parent
	}
	want := []string{"mlx5_0", "mlx5_3", "mlx5_4", "mlx5_5", "mlx5_6", "mlx5_9", "mlx5_10", "mlx5_11"}
	for i, g := range p.GPUs {
		var near []string
		for _, n := range p.NICs {
			if above[n.Parent] == above[g.Parent] {
				near = append(near, n.RDMA.Name)
			}
		}
		if len(near) != 1 || near[0] != want[i] {
			t.Errorf("GPU %d shares its PCIe switch with %v, want %s", i, near, want[i])
		}
	}
}

func TestRenderingTwiceGivesTheSame(t *testing.T) {
	for _, name := range Names() {
		first := render(t, name, RenderOptions{NodeIndex: 3})
		second := render(t, name, RenderOptions{NodeIndex: 3})
		if diff := cmp.Diff(listing(t, filepath.Dir(first.Sys)), listing(t, filepath.Dir(second.Sys))); diff != "" {
			t.Errorf("%s: two renderings differ:\n%s", name, diff)
		}
	}
}

func TestNodesOfOneProfileShareNoIdentity(t *testing.T) {
	p := load(t, "dgx-h100")
	seen := map[string]string{}
	for node := range 3 {
		for _, g := range p.GPUs {
			claimIdentity(t, seen, p.GPUUUID(node, g.PCI), node, g.PCI)
		}
		for _, n := range p.NICs {
			claimIdentity(t, seen, p.MAC(node, n.PCI).String(), node, n.PCI)
		}
	}
}

func claimIdentity(t *testing.T, seen map[string]string, identity string, node int, pci string) {
	t.Helper()
	owner := fmt.Sprintf("node %d, %s", node, pci)
	if first, taken := seen[identity]; taken {
		t.Errorf("%s belongs to %s and to %s", identity, first, owner)
	}
	seen[identity] = owner
}

func TestEveryLinkLeadsSomewhere(t *testing.T) {
	for _, name := range Names() {
		r := render(t, name, RenderOptions{})
		for _, root := range []string{r.Sys, r.DriverRoot} {
			err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
				if err == nil && d.Type()&fs.ModeSymlink != 0 {
					if _, err := os.Stat(path); err != nil {
						t.Errorf("%s: %v", name, err)
					}
				}
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
		}
	}
}

// Kubernetes' own library must read the tree as it reads a real one.
func TestStandardAttributesComeFromTheTree(t *testing.T) {
	r := render(t, "dgx-h100", RenderOptions{})
	sys := deviceattribute.WithFSFromRoot(r.Sys)
	for _, pci := range []string{"0000:9d:00.0", "0000:9a:00.0"} {
		root, err := deviceattribute.GetPCIeRootAttributeByPCIBusID(pci, sys)
		if err != nil {
			t.Fatal(err)
		}
		if got := *root.Value.StringValue; got != "pci0000:97" {
			t.Errorf("pcieRoot of %s is %s, want pci0000:97", pci, got)
		}
		numa, err := deviceattribute.GetNUMANodeAttributeByPCIBusID(pci, deviceattribute.ScalarAttribute, sys)
		if err != nil {
			t.Fatal(err)
		}
		if got := *numa.Value.IntValue; got != 1 {
			t.Errorf("numaNode of %s is %d, want 1", pci, got)
		}
	}
}

func TestProfilesThatContradictThemselvesAreRefused(t *testing.T) {
	for what, c := range map[string]struct{ profile, old, new, want string }{
		"unknown key":             {"workstation", "product: Workstation", "produkt: Workstation", "produkt"},
		"missing bridge":          {"workstation", `parent: "0000:16:02.0"`, `parent: "0000:ff:02.0"`, `parent "0000:ff:02.0" is not among the bridges`},
		"one address twice":       {"workstation", `"0000:65:00.0"`, `"0000:17:00.0"`, "is already used by gpus[0]"},
		"one interface twice":     {"workstation", "enp102s0f0v1", "enp102s0f0v0", "is already used by"},
		"address in another form": {"workstation", `"0000:17:00.0"`, `"17:00.0"`, "is not a PCI address"},
		"NUMA node that is not":   {"workstation", `root: "pci0000:64", numaNode: 0, id: "8086:347a"`, `root: "pci0000:64", numaNode: 7, id: "8086:347a"`, "NUMA node 7 does not exist"},
		"more VFs than possible":  {"workstation", "totalVFs: 8", "totalVFs: 3", "4 VFs, but totalVFs is 3"},
		"unknown architecture":    {"workstation", "architecture: Ada", "architecture: Lovelace", `"Lovelace" is not one of`},
		"a link with one end":     {"dgx-1-v100", `"0000:86:00.0": 2}}`, `"0000:86:00.0": 1}}`, "has 1 NVLinks to 0000:86:00.0, which has 2 back"},
		"a link to itself":        {"vlan-bond", `nvLinks: {"0000:9a:00.0": 12}`, `nvLinks: {"0000:18:00.0": 12}`, "has 12 NVLinks to 0000:18:00.0"},
		"too many links":          {"gb200-nvl", "hiddenSwitchLinks: 18", "hiddenSwitchLinks: 19", "19 NVLinks; a GPU has up to 18"},
		"cluster that is no UUID": {"gb200-nvl", "clusterUUID: 2b19cdc2-", "clusterUUID: 2b19cdc2", "is not a UUID"},
		"memory node that is not": {"gb200-nvl", "memoryNode: 10", "memoryNode: 11", "memory node 11 does not exist"},
		"IB uplink, no netdev":    {"gb200-nvl", "driver: mlx5_core, speedMbps", "driver: mlx5_core, uplink: true, speedMbps", "needs an interface"},
		"Data Direct nowhere":     {"gb300-nvl", `parent: "0008:02:00.0"`, `parent: "0008:0f:00.0"`, `dataDirect: parent "0008:0f:00.0" is not among the bridges`},
		"overlapping instances":   {"hgx-a100-mig", "{profile: 1g.5gb, start: 0}]", "{profile: 1g.5gb, start: 4}]", "memory slice 4 is taken"},
		"instance out of place":   {"hgx-a100-mig", "{profile: 2g.10gb, start: 4}", "{profile: 2g.10gb, start: 5}", `no profile "2g.10gb" that starts at memory slice 5`},
		"too many in an instance": {"hgx-a100-mig", "computeSlices: [1, 1, 1]", "computeSlices: [1, 1, 2]", "compute instances of 4 slices in a profile of 3"},
		"MIG without profiles":    {"vlan-bond", "minor: 0", "minor: 0, mig: {}", "has no migProfiles"},
		"VFs listed and counted":  {"workstation", "totalVFs: 8", "totalVFs: 8\n  vfCount: 2", "vfs and vfCount exclude each other"},
		"VFs beyond the bus":      {"vlan-bond", "vfOffset: 2", "vfOffset: 60000", "do not fit behind 0000:31:00.0"},
		"bond over nothing":       {"vlan-bond", "lower: [enp49s0f0np0, enp49s0f1np1]", "lower: []", "lies over nothing"},
		"VLAN over what is not":   {"vlan-bond", "lower: [bond0]", "lower: [bond1]", `there is no link "bond1" before it`},
		"port of two masters":     {"vlan-bond", "lower: [enp177s0]", "lower: [enp49s0f0np0]", "enp49s0f0np0 is a port of another link"},
		"unknown kind of link":    {"vlan-bond", "kind: bridge", "kind: hsr", `kind "hsr" is not one of`},
	} {
		t.Run(what, func(t *testing.T) {
			valid, err := fs.ReadFile(profiles, "profiles/"+c.profile+".yaml")
			if err != nil {
				t.Fatal(err)
			}
			changed := strings.Replace(string(valid), c.old, c.new, 1)
			if changed == string(valid) {
				t.Fatalf("the profile has no %q to change", c.old)
			}
			if _, err := Parse("changed", []byte(changed)); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v does not say %q", err, c.want)
			}
		})
	}
	if _, err := Load("dgx-h900"); err == nil || !strings.Contains(err.Error(), "dgx-1-v100, dgx-h100, ") {
		t.Errorf("an unknown name is not answered with the known ones: %v", err)
	}
}
