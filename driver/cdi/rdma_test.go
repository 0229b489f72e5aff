package cdi

// What a container finds in its /dev/infiniband, by the library with which runtimes
// inject devices.

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	oci "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/types"
	tagscdi "tags.cncf.io/container-device-interface/pkg/cdi"

	"github.com/hostler-dev/hostler/topology"
)

// The kernel's numbers: uverbs from 231:192, umad 231:0 and issm 231:64 (IB_*_BASE_MINOR),
// and rdma_cm among the miscellaneous devices.
var infiniBandNodes = map[string]uint64{
	"uverbs0": unix.Mkdev(231, 192), "uverbs1": unix.Mkdev(231, 193), "uverbs2": unix.Mkdev(231, 194),
	"umad0": unix.Mkdev(231, 0), "umad1": unix.Mkdev(231, 1), "issm1": unix.Mkdev(231, 65), "rdma_cm": unix.Mkdev(10, 122),
}

func TestContainerGetsTheNodesOfItsOwnRDMADevicesAndEachOnce(t *testing.T) {
	b := builder(t)
	b.HostDev = b.Dev
	for name, number := range infiniBandNodes {
		path := filepath.Join(b.Dev, "infiniband", name)
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		if err := unix.Mknod(path, unix.S_IFCHR|0o666, int(number)); errors.Is(err, unix.EPERM) {
			t.Skip("needs CAP_MKNOD to make device nodes: run as root")
		} else if err != nil {
			t.Fatal(err)
		}
	}
	// mlx5_0 has no issm, and mlx5_2, which nobody claimed, neither umad nor issm.
	device := func(name string, nodes ...string) Device {
		rdma := &topology.RDMADevice{Name: name}
		for _, node := range append(nodes, "rdma_cm") {
			rdma.CharDevices = append(rdma.CharDevices, "/dev/infiniband/"+node)
		}
		return Device{Name: "nic-" + name, RDMA: rdma}
	}
	claims := []*Claim{
		{UID: "claim-a", Devices: []Device{device("mlx5_0", "uverbs0", "umad0", "issm0")}},
		{UID: "claim-b", Devices: []Device{device("mlx5_1", "uverbs1", "umad1", "issm1"), device("mlx5_2", "uverbs2")}},
	}
	specs := t.TempDir()
	for _, claim := range claims {
		raw, err := json.Marshal(build(t, b, claim))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(specs, string(claim.UID)+".json"), raw, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cache, err := tagscdi.NewCache(tagscdi.WithSpecDirs(specs), tagscdi.WithAutoRefresh(false))
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		devices [][2]string
		want    []string
	}{
		"a container with a claim's device":         {[][2]string{{"claim-a", "nic-mlx5_0"}}, []string{"rdma_cm", "uverbs0", "umad0"}},
		"a container with one of a claim's two":     {[][2]string{{"claim-b", "nic-mlx5_1"}}, []string{"issm1", "rdma_cm", "uverbs1", "umad1"}},
		"a container with devices of two claims":    {[][2]string{{"claim-a", "nic-mlx5_0"}, {"claim-b", "nic-mlx5_1"}}, []string{"issm1", "rdma_cm", "uverbs0", "uverbs1", "umad0", "umad1"}},
		"a container with a device that only verbs": {[][2]string{{"claim-b", "nic-mlx5_2"}}, []string{"rdma_cm", "uverbs2"}},
	} {
		t.Run(name, func(t *testing.T) {
			var ids []string
			for _, d := range test.devices {
				ids = append(ids, DeviceID(types.UID(d[0]), d[1]))
			}
			container := &oci.Spec{Linux: &oci.Linux{Resources: &oci.LinuxResources{}}}
			if unresolved, err := cache.InjectDevices(container, ids...); err != nil {
				t.Fatalf("%v: %v", unresolved, err)
			}
			var nodes []string
			allowed := map[string]int{}
			for _, node := range container.Linux.Devices {
				name := filepath.Base(node.Path)
				nodes = append(nodes, name)
				if number := unix.Mkdev(uint32(node.Major), uint32(node.Minor)); number != infiniBandNodes[name] || filepath.Dir(node.Path) != "/dev/infiniband" {
					t.Errorf("%s is %d:%d", node.Path, node.Major, node.Minor)
				}
				for _, rule := range container.Linux.Resources.Devices {
					if rule.Allow && *rule.Major == node.Major && *rule.Minor == node.Minor {
						allowed[name]++
					}
				}
			}
			slices.Sort(nodes)
			slices.Sort(test.want)
			if diff := cmp.Diff(test.want, nodes); diff != "" {
				t.Errorf("nodes (-want +got):\n%s", diff)
			}
			if len(allowed) != len(test.want) {
				t.Errorf("the device cgroup allows %v", allowed)
			}
		})
	}
}
