package guest

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/hostler-dev/hostler/topology"
)

// noUplink is the problem that discovery names in a machine without a default route.
const noUplink = "uplink"

func TestPFsOnTwoNUMANodesAndPCIeRoots(t *testing.T) {
	needMachine(t)
	start := time.Now()
	s := discover(t, noUplink)
	t.Logf("discovery took %s and found:", time.Since(start).Round(time.Millisecond))
	if err := topology.WriteTree(t.Output(), s, topology.DrawOptions{}); err != nil {
		t.Error(err)
	}
	var bridges []string
	for _, b := range s.Bridges {
		bridges = append(bridges, fmt.Sprintf("%s below %s on NUMA node %d", b.PCI, b.PCIeRoot, b.NUMANode))
	}
	want := []string{"0000:20:00.0 below pci0000:20 on NUMA node 0", "0000:40:00.0 below pci0000:40 on NUMA node 1"}
	if diff := cmp.Diff(want, bridges); diff != "" {
		t.Errorf("the root ports are other ones: %s", diff)
	}
	for i, want := range []struct {
		address, mac string
		placement    topology.Placement
	}{
		{pf0, "02:00:00:00:20:00", topology.Placement{PCI: pf0, PCIeRoot: "pci0000:20", Path: []string{"0000:20:00.0"}, NUMANode: 0, Socket: 0}},
		{pf1, "02:00:00:00:40:00", topology.Placement{PCI: pf1, PCIeRoot: "pci0000:40", Path: []string{"0000:40:00.0"}, NUMANode: 1, Socket: 1}},
	} {
		pf := find(t, s, want.address)
		group, err := os.Readlink("/sys/bus/pci/devices/" + want.address + "/iommu_group")
		if err != nil {
			t.Fatal(err) // the machine has an IOMMU
		}
		want.placement.IOMMUGroup = filepath.Base(group)
		if diff := cmp.Diff(want.placement, pf.Placement); diff != "" {
			t.Errorf("PF %d sits elsewhere: %s", i, diff)
		}
		got := fmt.Sprintln(pf.Kind, pf.VFID, pf.NumVFs, pf.TotalVFs, pf.Driver, pf.VendorID, pf.DeviceID, pf.Uplink)
		if want := fmt.Sprintln(topology.PF, -1, 2, 7, "igb", "8086", "10c9", ""); got != want {
			t.Errorf("PF %d is\n%swant\n%s", i, got, want)
		}
		if l := pf.Link; l == nil || l.Name != netdev(t, want.address) || l.MAC != want.mac || l.Type != "ethernet" || l.MTU != 1500 {
			t.Errorf("PF %d has the link %+v, want %s with MAC %s", i, l, netdev(t, want.address), want.mac)
		}
	}
	eventually(t, func() string {
		for _, address := range []string{pf0, pf1} {
			if l := find(t, discover(t, noUplink), address).Link; !l.Up || l.SpeedMbps != 1000 {
				return fmt.Sprintf("the link of %s is %+v, want it up with 1000 Mbit/s", address, l)
			}
		}
		return ""
	})
}

func TestVFsBelongToTheirPFs(t *testing.T) {
	needMachine(t)
	s := discover(t, noUplink)
	if want := []string{pf0, "0000:21:10.0", "0000:21:10.2", pf1, "0000:41:10.0", "0000:41:10.2"}; !cmp.Equal(want, addresses(s)) {
		t.Errorf("the NICs are %v, want %v", addresses(s), want)
	}
	for _, want := range []struct {
		address, parent string
		number          int
	}{
		{"0000:21:10.0", pf0, 0}, {"0000:21:10.2", pf0, 1}, {"0000:41:10.0", pf1, 0}, {"0000:41:10.2", pf1, 1},
	} {
		vf, pf := find(t, s, want.address), find(t, s, want.parent)
		if vf.Kind != topology.VF || vf.Parent != pf.Name || vf.VFID != want.number || vf.Driver != "igbvf" {
			t.Errorf("%s is %s %d of %q with driver %q, want vf %d of %q with igbvf", want.address, vf.Kind, vf.VFID, vf.Parent, vf.Driver, want.number, pf.Name)
		}
		if vf.Placement.PCIeRoot != pf.Placement.PCIeRoot || vf.Placement.NUMANode != pf.Placement.NUMANode {
			t.Errorf("%s sits at %+v, away from its PF at %+v", want.address, vf.Placement, pf.Placement)
		}
		if vf.Link == nil || vf.Link.Name != netdev(t, want.address) {
			t.Errorf("%s has the link %+v, want %s", want.address, vf.Link, netdev(t, want.address))
		}
	}
}

func TestNUMANodesWithSocketsAndDistances(t *testing.T) {
	needMachine(t)
	want := []topology.NUMANode{
		{ID: 0, Socket: 0, CPUs: "0", Distances: []int{10, 21}},
		{ID: 1, Socket: 1, CPUs: "1", Distances: []int{21, 10}},
	}
	if diff := cmp.Diff(want, discover(t, noUplink).NUMANodes); diff != "" {
		t.Error(diff)
	}
}

func TestSoftRoCEDevicesWithTheirCharacterDevices(t *testing.T) {
	needMachine(t)
	s := discover(t, noUplink)
	for _, address := range []string{pf0, pf1, "0000:21:10.0"} {
		rdma := find(t, s, address).RDMA
		if want := "rxe_" + netdev(t, address); rdma == nil || rdma.Name != want {
			t.Errorf("%s has the RDMA device %+v, want %s", address, rdma, want)
			continue
		}
		checkCharDevices(t, rdma)
		eventually(t, func() string {
			ports := find(t, discover(t, noUplink), address).RDMA.Ports
			if len(ports) != 1 || ports[0].Port != 1 || ports[0].State != "ACTIVE" || ports[0].LinkLayer != "Ethernet" {
				return fmt.Sprintf("%s has the ports %+v, want one that is active, on Ethernet", rdma.Name, ports)
			}
			return ""
		})
	}
	if without := find(t, s, "0000:21:10.2"); without.RDMA != nil {
		t.Errorf("%s has the RDMA device %+v, want none", without.Name, without.RDMA)
	}
}

// checkCharDevices: the nodes exist, and their numbers are the ones that the
// kernel gave to this RDMA device and no other; rdma_cm is shared.
func checkCharDevices(t *testing.T, rdma *topology.RDMADevice) {
	t.Helper()
	var want []string
	for _, class := range []string{"infiniband_verbs", "infiniband_mad"} {
		owners, err := filepath.Glob("/sys/class/" + class + "/*/ibdev")
		if err != nil {
			t.Fatal(err)
		}
		for _, owner := range owners {
			if name, err := os.ReadFile(owner); err == nil && strings.TrimSpace(string(name)) == rdma.Name {
				entry := filepath.Dir(owner)
				want = append(want, "/dev/infiniband/"+filepath.Base(entry))
				checkDeviceNumber(t, "/dev/infiniband/"+filepath.Base(entry), filepath.Join(entry, "dev"))
			}
		}
	}
	want = append(want, "/dev/infiniband/rdma_cm")
	slices.Sort(want)
	if len(want) < 3 || !cmp.Equal(want, rdma.CharDevices) {
		t.Errorf("%s has the character devices %v, want %v, uverbs and umad among them", rdma.Name, rdma.CharDevices, want)
	}
}

func checkDeviceNumber(t *testing.T, node, attribute string) {
	t.Helper()
	var stat syscall.Stat_t
	if err := syscall.Stat(node, &stat); err != nil {
		t.Errorf("%s: %v", node, err)
		return
	}
	var major, minor uint64
	number, err := os.ReadFile(attribute)
	if _, scanErr := fmt.Sscanf(string(number), "%d:%d", &major, &minor); err != nil || scanErr != nil {
		t.Fatalf("%s holds %q (%v)", attribute, number, err)
	}
	// The kernel's encoding for numbers below 256: major in bits 8 and up, minor below (linux/kdev_t.h).
	if stat.Mode&syscall.S_IFMT != syscall.S_IFCHR || stat.Rdev != major<<8|minor {
		t.Errorf("%s is mode %o, number %#x; want a character device %d:%d", node, stat.Mode, stat.Rdev, major, minor)
	}
}
