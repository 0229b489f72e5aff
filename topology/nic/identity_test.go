package nic

// Which functions are NICs, and what tells them apart.

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/hostler-dev/hostler/topology"
	"github.com/hostler-dev/hostler/topology/pci"
)

// machine is a sysfs that a test puts together function by function.
type machine struct {
	t    testing.TB
	root string
}

func newMachine(t testing.TB) *machine { return &machine{t: t, root: t.TempDir()} }

func (m *machine) link(path, target string) {
	m.t.Helper()
	full := filepath.Join(m.root, path)
	if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
		m.t.Fatal(err)
	}
	if err := os.Symlink(target, full); err != nil {
		m.t.Fatal(err)
	}
}

// function adds a PCI function with files below its folder, which it returns.
func (m *machine) function(address, class, id, driver string, contents map[string]string) string {
	m.t.Helper()
	vendor, device, _ := strings.Cut(id, ":")
	folder := "devices/pci0000:" + address[5:7] + "/" + address
	all := map[string]string{folder + "/class": class, folder + "/vendor": "0x" + vendor, folder + "/device": "0x" + device}
	for name, content := range contents {
		all[folder+"/"+name] = content
	}
	files(m.t, m.root, all)
	m.link("bus/pci/devices/"+address, "../../../"+folder)
	if driver != "" {
		m.link(folder+"/driver", "../../../bus/pci/drivers/"+driver)
	}
	return folder
}

// netdev adds a netdev to a function.
func (m *machine) netdev(folder, name string, contents map[string]string) {
	m.t.Helper()
	all := map[string]string{folder + "/net/" + name + "/speed": "100000"}
	for file, content := range contents {
		all[folder+"/net/"+name+"/"+file] = content
	}
	files(m.t, m.root, all)
	m.link("class/net/"+name, "../../"+folder+"/net/"+name)
}

// rdma adds an RDMA device to a function.
func (m *machine) rdma(folder, name string, contents map[string]string) {
	m.t.Helper()
	all := map[string]string{folder + "/infiniband/" + name + "/node_type": "1: CA"}
	for file, content := range contents {
		all[folder+"/infiniband/"+name+"/"+file] = content
	}
	files(m.t, m.root, all)
	m.link("class/infiniband/"+name, "../../"+folder+"/infiniband/"+name)
}

func (m *machine) read(network *namespace) ([]topology.NIC, []topology.Problem) {
	m.t.Helper()
	tree, err := pci.Read(m.root)
	if err != nil {
		m.t.Fatal(err)
	}
	inventory, problems := New(Config{Sys: m.root, Dev: m.t.TempDir(), Kernel: network}).Read(m.t.Context(), tree)
	return inventory.NICs, problems
}

// away is a network in which the node lives on nothing of ours.
func away() *namespace {
	return (&namespace{}).link("lo", "device", "", "").link("mgmt", "device", "", "").route("0.0.0.0/0", 0, "mgmt")
}

func TestWhatIsANIC(t *testing.T) {
	const ethernet, infiniband, other = "0x020000", "0x020700", "0x088000"
	m := newMachine(t)
	m.netdev(m.function("0000:10:00.0", ethernet, "15b3:1021", "mlx5_core", nil), "eth1", nil)
	m.function("0000:11:00.0", ethernet, "15b3:1021", "mlx5_core", nil) // its netdev is in a pod
	m.function("0000:12:00.0", ethernet, "15b3:1021", "vfio-pci", nil)
	m.function("0000:13:00.0", ethernet, "15b3:1021", "", nil)
	m.function("0000:14:00.0", ethernet, "15b3:101e", "mlx5_vfio_pci", nil)
	m.rdma(m.function("0000:15:00.0", infiniband, "15b3:1021", "mlx5_core", nil), "mlx5_5", nil)
	m.rdma(m.function("0000:16:00.0", other, "1d0f:efa1", "efa", nil), "efa_0", nil)
	m.function("0000:17:00.0", other, "8086:2021", "ioatdma", nil)
	virtio := m.function("0000:18:00.0", ethernet, "1af4:1041", "virtio-pci", nil)
	files(t, m.root, map[string]string{virtio + "/virtio0/net/ens8/speed": "-1"})
	nics, problems := m.read(away().link("eth1", "device", "", "").link("ens8", "device", "", ""))
	type found struct {
		Link, RDMA string
	}
	got := map[string]found{}
	for _, nic := range nics {
		f := found{}
		if nic.Link != nil {
			f.Link = nic.Link.Name
		}
		if nic.RDMA != nil {
			f.RDMA = nic.RDMA.Name
		}
		if len(nic.Problems) > 0 {
			t.Errorf("%s has the problems %v", nic.Name, nic.Problems)
		}
		got[nic.Placement.PCI] = f
	}
	want := map[string]found{
		"0000:10:00.0": {Link: "eth1"}, "0000:11:00.0": {}, "0000:15:00.0": {RDMA: "mlx5_5"}, "0000:16:00.0": {RDMA: "efa_0"}, "0000:18:00.0": {Link: "ens8"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if len(problems) != 0 {
		t.Errorf("what is not offered is no problem: %v", problems)
	}
}

func TestSeveralNetdevsOfAFunction(t *testing.T) {
	m := newMachine(t)
	ib := m.function("0000:10:00.0", "0x020700", "15b3:1021", "mlx5_core", nil)
	m.netdev(ib, "a8001", map[string]string{"ifindex": "4", "iflink": "5"}) // the child of a partition, before its parent in the alphabet
	m.netdev(ib, "ib0", map[string]string{"ifindex": "5", "iflink": "5"})
	dual := m.function("0000:11:00.0", "0x020000", "15b3:1007", "mlx4_core", nil)
	m.netdev(dual, "port-b", map[string]string{"ifindex": "6", "iflink": "6", "dev_port": "0"})
	m.netdev(dual, "port-a", map[string]string{"ifindex": "7", "iflink": "7", "dev_port": "1"})
	network := away().link("ib0", "ipoib", "", "").link("a8001", "ipoib", "", "ib0").link("port-a", "device", "", "").link("port-b", "device", "", "")
	network.links[network.index("ib0")-1].Type = "infiniband"
	nics, _ := m.read(network)
	if nics[0].Link == nil || nics[0].Link.Name != "ib0" || nics[0].Link.Type != "infiniband" {
		t.Errorf("of IPoIB parent and child the NIC has %+v", nics[0].Link)
	}
	if nics[1].Link == nil || nics[1].Link.Name != "port-b" {
		t.Errorf("of two ports the NIC has %+v", nics[1].Link)
	}
	for netdev, nic := range map[string]int{"a8001": 0, "port-a": 1} {
		network.routes = nil
		nics, _ = m.read(network.route("0.0.0.0/0", 0, netdev))
		if nics[nic].Uplink == "" {
			t.Errorf("a default route over the further netdev %s leaves the NIC free", netdev)
		}
	}
}

// A subfunction's netdev is below an auxiliary device of its PF, not in its net/.
func TestASubfunctionThatTheNodeLivesOnMakesItsPFAnUplink(t *testing.T) {
	m := newMachine(t)
	pf := m.function("0000:10:00.0", "0x020000", "15b3:1021", "mlx5_core", nil)
	m.netdev(pf, "p0", nil)
	files(t, m.root, map[string]string{pf + "/mlx5_core.sf.2/net/p0s88/speed": "100000"})
	m.link("class/net/p0s88", "../../"+pf+"/mlx5_core.sf.2/net/p0s88")
	network := (&namespace{}).link("p0", "device", "", "").link("p0s88", "device", "", "").route("0.0.0.0/0", 0, "p0s88")
	nics, _ := m.read(network)
	if want := "carries the default route 0.0.0.0/0 via p0s88"; nics[0].Uplink != want {
		t.Errorf("the PF %q, want %q", nics[0].Uplink, want)
	}
	agree(t, New(Config{Sys: m.root, Dev: t.TempDir(), Kernel: network}), nics)
}

func TestFirmware(t *testing.T) {
	m := newMachine(t)
	pf := m.function("0000:10:00.0", "0x020000", "15b3:1021", "mlx5_core", map[string]string{"sriov_totalvfs": "8", "sriov_numvfs": "1"})
	m.netdev(pf, "p0", nil)
	m.rdma(pf, "mlx5_0", map[string]string{"fw_ver": "28.39.1002\n"})
	vf := m.function("0000:10:00.1", "0x020000", "15b3:101e", "mlx5_core", nil)
	m.netdev(vf, "p0v0", nil)
	m.link(vf+"/physfn", "../0000:10:00.0")
	m.link(pf+"/virtfn0", "../0000:10:00.1")
	m.netdev(m.function("0000:11:00.0", "0x020000", "8086:159b", "ice", nil), "p1", nil)
	m.netdev(m.function("0000:12:00.0", "0x020000", "8086:159b", "ice", nil), "p2", nil)
	network := away().link("p0", "device", "", "").link("p0v0", "device", "", "").link("p1", "device", "", "").link("p2", "device", "", "")
	network.firmwares = map[string]string{"p0": "asked in vain", "p0v0": "asked in vain", "p1": "4.51 0x8001e501 23.0.8", "p2": "broken"}
	nics, _ := m.read(network)
	var got []string
	for _, nic := range nics {
		got = append(got, nic.Firmware)
	}
	if want := []string{"28.39.1002", "28.39.1002", "4.51 0x8001e501 23.0.8", ""}; !cmp.Equal(want, got) {
		t.Error(cmp.Diff(want, got))
	}
	if p := nics[3].Problems; len(p) != 1 || p[0].Subject != "firmware" || len(nics[2].Problems) != 0 {
		t.Errorf("the NIC that does not tell has the problems %v", p)
	}
}

func TestGUIDs(t *testing.T) {
	m := newMachine(t)
	m.rdma(m.function("0000:10:00.0", "0x020700", "15b3:1021", "mlx5_core", nil), "mlx5_0", map[string]string{
		"node_guid": "946D:AE03:0012:3456\n", "sys_image_guid": "946d:ae03:0012:3450\n", "ports/1/gids/0": "fe80:0000:0000:0000:946d:ae03:0012:3457\n",
	})
	m.rdma(m.function("0000:11:00.0", "0x020700", "15b3:101e", "mlx5_core", nil), "mlx5_1", map[string]string{
		"node_guid": "0000:0000:0000:0000\n", "sys_image_guid": "unknown\n", "ports/1/gids/0": "0000:0000:0000:0000:0000:0000:0000:0000\n",
	})
	nics, _ := m.read(away())
	want := []*topology.RDMADevice{
		{Name: "mlx5_0", NodeGUID: "946d:ae03:0012:3456", SystemImageGUID: "946d:ae03:0012:3450", Ports: []topology.RDMAPort{{Port: 1, GUID: "946d:ae03:0012:3457"}}},
		{Name: "mlx5_1", Ports: []topology.RDMAPort{{Port: 1}}}, // a VF without GUIDs yet
	}
	if diff := cmp.Diff(want, []*topology.RDMADevice{nics[0].RDMA, nics[1].RDMA}); diff != "" {
		t.Error(diff)
	}
	if p := nics[1].Problems; len(p) != 1 || p[0].Subject != "sys_image_guid of mlx5_1" || !strings.Contains(p[0].Message, `"unknown"`) {
		t.Errorf("the problems are %v", p)
	}
}
