package host_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/hostler-dev/hostler/test/machine"
	"github.com/hostler-dev/hostler/test/simulated"
	"github.com/hostler-dev/hostler/topology"
	"github.com/hostler-dev/hostler/topology/host"
	"github.com/hostler-dev/hostler/topology/nic"
)

// manyVFs renders a node of PFs with that many VFs each, all with netdev and RDMA device.
func manyVFs(t testing.TB, pfs, vfs int) host.Config {
	root := machine.TempDir(t)
	write := func(path, content string) {
		full := filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(full, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	link := func(path, target string) {
		full := filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(target, full); err != nil {
			t.Fatal(err)
		}
	}
	kernel := &simulated.Kernel{}
	number := 0
	function := func(bus string, address string) string {
		folder := fmt.Sprintf("devices/pci0000:%s/%s", bus, address)
		netdev, rdma := fmt.Sprintf("n%d", number), fmt.Sprintf("mlx5_%d", number)
		for name, content := range map[string]string{
			"class": "0x020000", "vendor": "0x15b3", "device": "0x101e", "numa_node": "-1", "net/" + netdev + "/speed": "100000",
			"infiniband/" + rdma + "/node_guid": "0000:0000:0000:0001", "infiniband/" + rdma + "/ports/1/state": "4: ACTIVE",
		} {
			write(folder+"/"+name, content)
		}
		link("bus/pci/devices/"+address, "../../../"+folder)
		link(folder+"/driver", "../../../bus/pci/drivers/mlx5_core")
		link("class/net/"+netdev, "../../"+folder+"/net/"+netdev)
		link("class/infiniband/"+rdma, "../../"+folder+"/infiniband/"+rdma)
		write(fmt.Sprintf("class/infiniband_verbs/uverbs%d/ibdev", number), rdma)
		number++
		kernel.AllLinks = append(kernel.AllLinks, nic.LinkState{Index: number, Name: netdev, Kind: "device", Up: true})
		return folder
	}
	for pf := range pfs {
		bus := fmt.Sprintf("%02x", 0x10+pf*4)
		folder := function(bus, fmt.Sprintf("0000:%s:00.0", bus))
		write(folder+"/sriov_totalvfs", "128")
		write(folder+"/sriov_numvfs", fmt.Sprint(vfs))
		for vf := range vfs {
			address := fmt.Sprintf("0000:%s:%02x.%d", bus, 1+vf/8, vf%8)
			link(function(bus, address)+"/physfn", "../0000:"+bus+":00.0")
			link(fmt.Sprintf("%s/virtfn%d", folder, vf), "../"+address)
		}
	}
	return host.Config{Sys: root, Dev: t.TempDir(), Kernel: kernel}
}

func TestEveryVFIsFoundOnce(t *testing.T) {
	hardware, err := host.New(manyVFs(t, 3, 20)).ReadHardware(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	vfs := map[string]int{}
	names := map[string]bool{}
	for _, nic := range hardware.NICs {
		names[nic.Name] = true
		if nic.Kind == topology.VF {
			vfs[nic.Parent]++
		}
		if nic.Link == nil || nic.RDMA == nil || len(nic.RDMA.CharDevices) == 0 || len(nic.Problems) > 0 || (nic.VFID < 0) != (nic.Kind == topology.PF) {
			t.Fatalf("%s is incomplete: %+v", nic.Name, nic)
		}
	}
	if len(names) != 3*21 || len(vfs) != 3 {
		t.Errorf("found %d NICs, VFs of %d PFs", len(names), len(vfs))
	}
	for pf, n := range vfs {
		if n != 20 {
			t.Errorf("%s has %d VFs", pf, n)
		}
	}
}

// The budget is one second.
func BenchmarkDiscoverTwoThousandVFs(b *testing.B) {
	reader := host.New(manyVFs(b, 16, 128))
	for b.Loop() {
		if _, err := reader.ReadHardware(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}
