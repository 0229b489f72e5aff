package nic

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/hostler-dev/hostler/topology"
)

// tree adds files to a sysfs root.
func files(t testing.TB, root string, contents map[string]string) {
	t.Helper()
	for name, content := range contents {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func TestRDMADevices(t *testing.T) {
	root, tree := hardware(t)
	dev := t.TempDir()
	files(t, dev, map[string]string{"infiniband/rdma_cm": ""})
	files(t, root, map[string]string{
		// mlx5_10 belongs to p0 as mlx5_2 does: in switchdev mode a PF lists its representors' device too.
		"devices/pci0000:00/0000:10:00.0/infiniband/mlx5_2/node_guid":          "946d:ae03:0012:3456\n",
		"devices/pci0000:00/0000:10:00.0/infiniband/mlx5_2/ports/1/state":      "4: ACTIVE\n",
		"devices/pci0000:00/0000:10:00.0/infiniband/mlx5_2/ports/1/phys_state": "5: LinkUp\n",
		"devices/pci0000:00/0000:10:00.0/infiniband/mlx5_2/ports/1/link_layer": "InfiniBand\n",
		"devices/pci0000:00/0000:10:00.0/infiniband/mlx5_2/ports/1/rate":       "400 Gb/sec (4X NDR)\n",
		"devices/pci0000:00/0000:10:00.0/infiniband/mlx5_10/node_guid":         "946d:ae03:0012:9999\n",
		"class/infiniband_verbs/uverbs2/ibdev":                                 "mlx5_2\n",
		"class/infiniband_verbs/uverbs7/ibdev":                                 "mlx5_10\n",
		"class/infiniband_mad/umad2/ibdev":                                     "mlx5_2\n",
		"class/infiniband_mad/abi_version":                                     "5\n",
		"devices/virtual/infiniband/rxe0/ports/1/gid_attrs/ndevs/0":            "p1\n",
		"devices/virtual/infiniband/rxe9/parent":                               "p0\n", // soft RoCE on top of mlx5_2 changes nothing
		"devices/virtual/infiniband/rxe0/ports/1/state":                        "1: DOWN\n",
	})
	for device, target := range map[string]string{
		"mlx5_2": "../../devices/pci0000:00/0000:10:00.0/infiniband/mlx5_2", "mlx5_10": "../../devices/pci0000:00/0000:10:00.0/infiniband/mlx5_10",
		"rxe0": "../../devices/virtual/infiniband/rxe0", "rxe9": "../../devices/virtual/infiniband/rxe9",
	} {
		if err := os.MkdirAll(filepath.Join(root, "class/infiniband"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(target, filepath.Join(root, "class/infiniband", device)); err != nil {
			t.Fatal(err)
		}
	}
	inventory, problems := New(Config{Sys: root, Dev: dev, Kernel: ports().route("0.0.0.0/0", 0, "p2")}).Read(t.Context(), tree)
	nics := inventory.NICs
	if len(problems) != 0 {
		t.Errorf("problems: %v", problems)
	}
	want := []*topology.RDMADevice{
		{
			Name: "mlx5_2", NodeGUID: "946d:ae03:0012:3456",
			Ports:       []topology.RDMAPort{{Port: 1, State: "ACTIVE", PhysState: "LinkUp", LinkLayer: "InfiniBand", Rate: "400 Gb/sec (4X NDR)"}},
			CharDevices: []string{"/dev/infiniband/rdma_cm", "/dev/infiniband/umad2", "/dev/infiniband/uverbs2"},
		},
		{Name: "rxe0", Ports: []topology.RDMAPort{{Port: 1, State: "DOWN"}}}, // soft RoCE on p1, found by its GIDs
		nil,
	}
	if diff := cmp.Diff(want, []*topology.RDMADevice{nics[0].RDMA, nics[1].RDMA, nics[2].RDMA}); diff != "" {
		t.Error(diff)
	}
	// A device in a pod's namespace is not in class/infiniband here; its nodes are where they were.
	if err := os.Remove(filepath.Join(root, "class/infiniband/mlx5_2")); err != nil {
		t.Fatal(err)
	}
	for device, want := range map[string][]string{"mlx5_2": want[0].CharDevices, "mlx5_10": {"/dev/infiniband/rdma_cm", "/dev/infiniband/uverbs7"}, "mlx5_1": nil} {
		if got, err := CharDevices(root, dev, device); err != nil || !slices.Equal(got, want) {
			t.Errorf("%s has the nodes %v, %v; want %v", device, got, err, want)
		}
	}
}

// In switchdev mode a PF's folder lists the VFs' representors beside its own netdev.
func TestARepresentorIsNotTheNICsOwnNetdev(t *testing.T) {
	root, tree := hardware(t)
	files(t, root, map[string]string{
		"devices/pci0000:00/0000:10:00.0/net/a_rep/phys_port_name": "pf0vf0\n",
		"class/net/a_rep/phys_port_name":                           "pf0vf0\n",
	})
	network := ports().link("a_rep", "device", "", "").route("0.0.0.0/0", 0, "p2")
	nics := read(t.Context(), New(Config{Sys: root, Dev: t.TempDir(), Kernel: network}), tree)
	if nics[0].Link == nil || nics[0].Link.Name != "p0" {
		t.Errorf("the NIC's link is %+v", nics[0].Link)
	}
	network.routes = nil
	nics = read(t.Context(), New(Config{Sys: root, Dev: t.TempDir(), Kernel: network.route("0.0.0.0/0", 0, "a_rep")}), tree)
	if nics[0].Uplink == "" {
		t.Error("a default route over a representor leaves the NIC free to be given away")
	}
}

func TestRDMANamespacesAreTheKernelsWord(t *testing.T) {
	root, tree := hardware(t)
	silent := ports().route("0.0.0.0/0", 0, "p2")
	silent.rdma = "shared"
	if inventory, _ := New(Config{Sys: root, Dev: t.TempDir(), Kernel: silent}).Read(t.Context(), tree); inventory.RDMANamespaces != "" {
		t.Error("a kernel without RDMA was asked")
	}
	if err := os.MkdirAll(filepath.Join(root, "class/infiniband"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, said := range []string{"", "shared", "exclusive", "broken"} {
		network := ports().route("0.0.0.0/0", 0, "p2")
		network.rdma = said
		inventory, problems := New(Config{Sys: root, Dev: t.TempDir(), Kernel: network}).Read(t.Context(), tree)
		if said == "broken" {
			if inventory.RDMANamespaces != "" || len(problems) != 1 || problems[0].Subject != "RDMA devices" {
				t.Errorf("a kernel that does not say it: %q, problems %v", inventory.RDMANamespaces, problems)
			}
			continue
		}
		if inventory.RDMANamespaces != said || len(problems) != 0 {
			t.Errorf("%q: %q, problems %v", said, inventory.RDMANamespaces, problems)
		}
	}
}
