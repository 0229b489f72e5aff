package machine

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// What the profiles' particular shapes look like in the rendered files.

// portTypeIn finds the PCI Express port type as lspci does.
func portTypeIn(t *testing.T, config []byte) portType {
	t.Helper()
	if len(config) != 256 || config[configStatus]&statusHasCaps == 0 || config[config[configCapabilityList]] != capabilityPCIe {
		t.Fatalf("no PCI Express capability in %x", config)
	}
	return portType(config[config[configCapabilityList]+2] >> 4)
}

func TestBridgesSayWhatKindOfPortTheyAre(t *testing.T) {
	r := render(t, "hgx-a100-mig", RenderOptions{})
	for pci, want := range map[string]portType{
		"0000:00:01.1": rootPort, "0000:01:00.0": upstreamPort, "0000:02:00.0": downstreamPort, "0000:03:00.0": upstreamPort,
		"0000:04:00.0": downstreamPort, "0000:05:00.0": upstreamPort, "0000:06:00.0": downstreamPort, "0000:07:00.0": endpoint,
	} {
		config, err := os.ReadFile(filepath.Join(r.Sys, "bus/pci/devices", pci, "config"))
		if err != nil {
			t.Fatal(err)
		}
		if got := portTypeIn(t, config); got != want {
			t.Errorf("%s has port type %#x, want %#x", pci, got, want)
		}
	}
}

func TestDataDirectFunctionsHaveTheirNICsVUKeyword(t *testing.T) {
	p := load(t, "gb300-nvl")
	r := render(t, "gb300-nvl", RenderOptions{})
	seen := map[string]string{}
	for _, n := range p.NICs {
		if n.DataDirect == nil {
			continue
		}
		own, second := vu(t, r, n.PCI), vu(t, r, n.DataDirect.PCI)
		if own == "" || own != second {
			t.Errorf("VU of %s is %q, of its Data Direct function %q", n.PCI, own, second)
		}
		claimIdentity(t, seen, own, 0, n.PCI)
		expectContent(t, filepath.Join(r.Sys, "bus/pci/devices", n.DataDirect.PCI, "device"), "0x2100")
	}
	if len(seen) != 4 {
		t.Errorf("%d cards with Data Direct, want 4", len(seen))
	}
}

// vu reads the keyword as the kernel's pci_vpd_find_ro_info_keyword does, after
// the checksum that pci_vpd_check_csum wants.
func vu(t *testing.T, r *Rendered, pci string) string {
	t.Helper()
	vpd, err := os.ReadFile(filepath.Join(r.Sys, "bus/pci/devices", pci, "vpd"))
	if err != nil {
		t.Fatal(err)
	}
	skip := 3 + int(binary.LittleEndian.Uint16(vpd[1:]))
	fields := vpd[skip+3:]
	if vpd[0] != 0x82 || vpd[skip] != 0x90 || vpd[len(vpd)-1] != 0x78 {
		t.Fatalf("vital product data of %s lacks a tag: %x", pci, vpd)
	}
	value := ""
	for len(fields) > 3 && fields[0] != 0x78 {
		keyword, length := string(fields[:2]), int(fields[2])
		if keyword == "VU" {
			value = string(fields[3 : 3+length])
		}
		if keyword == "RV" {
			sum := byte(0)
			for _, b := range vpd[:len(vpd)-len(fields)+4] {
				sum += b
			}
			if sum != 0 {
				t.Errorf("vital product data of %s has a wrong checksum", pci)
			}
		}
		fields = fields[3+length:]
	}
	return value
}

func TestInfiniBandPortsLookLikeInfiniBand(t *testing.T) {
	p := load(t, "dgx-1-v100")
	r := render(t, "dgx-1-v100", RenderOptions{})
	expectContent(t, filepath.Join(r.Sys, "class/net/ib0/type"), "32")
	expectContent(t, filepath.Join(r.Sys, "class/net/ib0/device/class"), "0x020700")
	expectContent(t, filepath.Join(r.Sys, "class/infiniband/mlx5_0/ports/1/link_layer"), "InfiniBand")
	address, err := os.ReadFile(filepath.Join(r.Sys, "class/net/ib0/address"))
	if err != nil {
		t.Fatal(err)
	}
	if mac, err := net.ParseMAC(strings.TrimSpace(string(address))); err != nil || len(mac) != 20 {
		t.Errorf("address of ib0 is %s (%v), want 20 bytes", address, err)
	}
	if names := p.NetdevNames(); len(names) != 0 {
		t.Errorf("Plug would make %v; an Ethernet device cannot stand for an InfiniBand port", names)
	}
	tray := render(t, "gb200-nvl", RenderOptions{})
	if _, err := os.Stat(filepath.Join(tray.Sys, "bus/pci/devices/0000:03:00.0/net")); err == nil {
		t.Error("an InfiniBand port without IPoIB has a netdev")
	}
}

func TestVFsByCountLieWhereSRIOVPutsThem(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		bus, count := rapid.IntRange(0, 200).Draw(t, "bus"), rapid.IntRange(1, 300).Draw(t, "VFs")
		offset, stride := rapid.IntRange(1, 16).Draw(t, "offset"), rapid.IntRange(1, 4).Draw(t, "stride")
		n := NIC{PCI: fmt.Sprintf("0000:%02x:00.0", bus), Driver: "mlx5_core", Interface: fmt.Sprintf("enp%ds0np0", bus),
			RDMA: &RDMA{Name: "mlx5_0"}, TotalVFs: count, VFCount: count, VFOffset: offset, VFStride: stride, VFRDMAIndex: 1}
		if err := n.expandVFs(); err != nil {
			t.Fatal(err)
		}
		if len(n.VFs) != count {
			t.Fatalf("%d VFs, want %d", len(n.VFs), count)
		}
		for i, vf := range n.VFs {
			b, devfn := busAndFunction(vf.PCI)
			if got, want := int(b)<<8|int(devfn), bus<<8+offset+i*stride; got != want || !pciPattern.MatchString(vf.PCI) {
				t.Fatalf("VF %d is at %s, want routing ID %#x", i, vf.PCI, want)
			}
			if want := fmt.Sprintf("enp%ds0v%d", bus, i); vf.Interface != want || vf.RDMA.Index != 1+i {
				t.Fatalf("VF %d is %s with RDMA device %d, want %s with %d", i, vf.Interface, vf.RDMA.Index, want, 1+i)
			}
		}
	})
}

func TestTheLargeMachineHasAllItsFunctions(t *testing.T) {
	p := load(t, large)
	functions, nodes := 0, map[string]bool{}
	for _, n := range p.NICs {
		functions += 1 + len(n.VFs)
	}
	for _, node := range deviceNodes(p) {
		number := fmt.Sprintf("%d:%d", node.major, node.minor)
		if nodes[number] {
			t.Errorf("%s has the number %s of another device", node.name, number)
		}
		nodes[number] = true
	}
	if functions != 16*129 || len(p.Links(0)) != 1+16*129 {
		t.Errorf("%d functions and %d links, want 2064 and 2065", functions, len(p.Links(0)))
	}
}

func TestDeviceNodesHaveNumbersOfTheirOwn(t *testing.T) {
	for _, name := range Names() {
		seen := map[string]string{}
		for _, node := range deviceNodes(load(t, name)) {
			number := fmt.Sprintf("%d:%d", node.major, node.minor)
			if first, taken := seen[number]; taken {
				t.Errorf("%s: %s and %s are both %s", name, first, node.name, number)
			}
			seen[number] = node.name
		}
	}
}

// sysfs and Links must not disagree: a reader joins them by name and index.
func TestLinksAreThoseOfTheRenderedSysfs(t *testing.T) {
	for _, name := range Names() {
		if name == large {
			continue
		}
		p := load(t, name)
		r := render(t, name, RenderOptions{NodeIndex: 2})
		entries, err := os.ReadDir(filepath.Join(r.Sys, "class/net"))
		if err != nil {
			t.Fatal(err)
		}
		var inSysfs, inLinks []string
		for _, e := range entries {
			if e.Name() != "bonding_masters" {
				inSysfs = append(inSysfs, e.Name())
			}
		}
		for _, link := range p.Links(2) {
			inLinks = append(inLinks, link.Name)
			folder := filepath.Join(r.Sys, "class/net", link.Name)
			expectContent(t, filepath.Join(folder, "ifindex"), strconv.Itoa(link.Index))
			expectContent(t, filepath.Join(folder, "address"), link.MAC.String())
		}
		slices.Sort(inLinks)
		if diff := cmp.Diff(inSysfs, inLinks); diff != "" {
			t.Errorf("%s: netdevs in sysfs (-) and in Links (+):\n%s", name, diff)
		}
	}
}

func TestAVLANOverABondIsStackedAsTheKernelShowsIt(t *testing.T) {
	p := load(t, "vlan-bond")
	links := map[string]Link{}
	for _, link := range p.Links(0) {
		links[link.Name] = link
	}
	bond, vlan := links["bond0"], links["bond0.100"]
	if vlan.Lower != bond.Index || vlan.Master != 0 || bond.Lower != 0 {
		t.Errorf("VLAN %+v over bond %+v", vlan, bond)
	}
	for _, port := range []string{"enp49s0f0np0", "enp49s0f1np1"} {
		if links[port].Master != bond.Index {
			t.Errorf("%s has master %d, want %d", port, links[port].Master, bond.Index)
		}
	}
	if p.UplinkName() != "bond0.100" || !bytes.Equal(p.UplinkMAC(3), p.MAC(3, "0000:31:00.0")) {
		t.Errorf("uplink %s %s", p.UplinkName(), p.UplinkMAC(3))
	}
	for _, route := range p.DefaultRoutes() {
		if route.Link != vlan.Index {
			t.Errorf("default route %+v leaves by another link than %d", route, vlan.Index)
		}
	}
	r := render(t, "vlan-bond", RenderOptions{})
	for link, want := range map[string]string{
		"bond0.100/lower_bond0": "bond0", "bond0/upper_bond0.100": "bond0.100", "bond0/lower_enp49s0f0np0": "enp49s0f0np0",
		"enp49s0f0np0/master": "bond0", "enp177s0/master": "br-storage", "vlan200/lower_enp155s0np0": "enp155s0np0",
	} {
		target, err := filepath.EvalSymlinks(filepath.Join(r.Sys, "class/net", link))
		if err != nil || filepath.Base(target) != want {
			t.Errorf("%s leads to %s (%v), want %s", link, target, err, want)
		}
	}
	expectContent(t, filepath.Join(r.Sys, "class/net/bonding_masters"), "bond0")
	if err := Plug(t.Context(), p, PlugOptions{}); err == nil || !strings.Contains(err.Error(), "stacked links") {
		t.Errorf("Plug answers %v for a machine with stacked links", err)
	}
}

func TestMemoryWithoutCPUsIsANUMANode(t *testing.T) {
	r := render(t, "gb200-nvl", RenderOptions{})
	node := filepath.Join(r.Sys, "devices/system/node")
	expectContent(t, filepath.Join(node, "node10/cpulist"), "")
	expectContent(t, filepath.Join(node, "has_cpu"), "0-1")
	expectContent(t, filepath.Join(node, "online"), "0-2,10,18,26")
	expectContent(t, filepath.Join(r.Control, "gpu1/gpu_numa_node"), "10")
	expectContent(t, filepath.Join(r.Control, "gpu0/fabric"), "3 32766 0xaa 2b19cdc25bb14331935bfb73549bcc28")
}

func TestInstancesHaveTheDriversNumbers(t *testing.T) {
	r := render(t, "hgx-a100-mig", RenderOptions{})
	for gpu, want := range map[int][]string{2: {"2 9 4:4 0/2/0:3", "7 19 0:1 0/0/0:1"}, 4: {"1 9 0:4 0/0/0:1", "5 14 4:2 0/1/0:2"}, 5: nil} {
		content, err := os.ReadFile(filepath.Join(r.Control, fmt.Sprintf("gpu%d/mig_instances", gpu)))
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.FieldsFunc(string(content), func(r rune) bool { return r == '\n' })
		if len(lines) != len(want) {
			t.Fatalf("GPU %d has the instances %q, want %q", gpu, lines, want)
		}
		for i, line := range lines {
			if !strings.HasPrefix(line, want[i]+"/MIG-") {
				t.Errorf("GPU %d: instance %q, want one that begins %q", gpu, line, want[i])
			}
		}
	}
	expectContent(t, filepath.Join(r.Control, "gpu0/mig_mode"), "0 0")
	expectContent(t, filepath.Join(r.Control, "gpu5/mig_mode"), "1 1")
}
