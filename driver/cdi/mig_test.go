package cdi

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/hostler-dev/hostler/topology"
)

// migBuilder has a machine whose driver knows the capabilities of GPU instances 1
// and 2 of the GPU with minor 3, and has made the nodes of the first.
func migBuilder(t *testing.T) *Builder {
	t.Helper()
	b := builder(t)
	root := filepath.Dir(b.Dev)
	for name, content := range map[string]string{
		"proc/driver/nvidia-caps/mig-minors": "config 1\nmonitor 2\ngpu3/gi1/access 30\ngpu3/gi1/ci0/access 31\ngpu3/gi2/access 39\ngpu3/gi2/ci0/access 40\ngpu4/gi1/access 165\n",
		"proc/devices":                       "Character devices:\n  1 mem\n237 nvidia-caps\n195 nvidia\n\nBlock devices:\n259 blkext\n",
		"dev/nvidia-caps/nvidia-cap1":        "", "dev/nvidia-caps/nvidia-cap2": "", "dev/nvidia-caps/nvidia-cap30": "", "dev/nvidia-caps/nvidia-cap31": "",
	} {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return b
}

func partition(gpuInstance int) Device {
	return Device{Name: "gpu-0000-17-00-0-mig-1g-10gb-0", GPU: theGPU(), Partition: &Partition{
		Profile: "1g.10gb", Instance: &topology.MIGInstance{GPUInstance: gpuInstance, ComputeInstances: []topology.MIGComputeInstance{{UUID: "MIG-1"}}},
	}}
}

func TestPartitionGetsItsOwnCapabilitiesOnly(t *testing.T) {
	b := migBuilder(t)
	spec := build(t, b, &Claim{UID: claimUID, Devices: []Device{partition(1)}})
	want := []string{
		"/dev/nvidia-caps/nvidia-cap30 from /host/dev/nvidia-caps/nvidia-cap30",
		"/dev/nvidia-caps/nvidia-cap31 from /host/dev/nvidia-caps/nvidia-cap31",
		"/dev/nvidia3 from /host/dev/nvidia3",
	}
	if got := nodes(deviceNamed(t, spec, "gpu-0000-17-00-0-mig-1g-10gb-0").ContainerEdits); !slices.Equal(got, want) {
		t.Errorf("the partition's nodes are %v, want %v", got, want)
	}
	common := strings.Join(nodes(deviceNamed(t, spec, "gpu-driver").ContainerEdits), " ")
	if strings.Contains(common, "nvidia-caps") || !strings.Contains(common, "nvidiactl") {
		t.Errorf("with every partition of the claim come %s", common)
	}
	if env := spec.ContainerEdits.Env; !slices.Contains(env, "NVIDIA_VISIBLE_DEVICES=void") {
		t.Errorf("environment %v; an NVIDIA runtime would add GPUs of its own choice", env)
	}
}

func TestCapabilityWithoutNodeIsMadeFromItsNumbers(t *testing.T) {
	spec := build(t, migBuilder(t), &Claim{UID: claimUID, Devices: []Device{partition(2)}})
	edits := deviceNamed(t, spec, "gpu-0000-17-00-0-mig-1g-10gb-0").ContainerEdits
	if len(edits.DeviceNodes) != 3 {
		t.Fatalf("nodes %v", nodes(edits))
	}
	for i, minor := range map[int]int64{1: 39, 2: 40} {
		node := edits.DeviceNodes[i]
		if node.Type != "c" || node.Major != 237 || node.Minor != minor || node.HostPath != "" || node.FileMode == nil || *node.FileMode != 0o444 {
			t.Errorf("node %+v, want the character device 237:%d", *node, minor)
		}
	}
}

func TestPartitionWithGraphics(t *testing.T) {
	for profile, want := range map[string]bool{"1g.10gb": false, "1g.24gb+gfx": true, "1g.10gb+me": false, "1g.24gb+me+gfx": true, "2g.48gb-me": false} {
		if got := graphics(profile); got != want {
			t.Errorf("graphics(%q) = %v, want %v", profile, got, want)
		}
	}
}

func TestPartitionIsRefusedWithoutItsCapabilities(t *testing.T) {
	halved := partition(1)
	halved.Partition.Instance = &topology.MIGInstance{GPUInstance: 1}
	unmade := partition(1)
	unmade.Partition.Instance = nil
	minor := partition(1)
	minor.GPU.Minor = -1
	for _, test := range []struct {
		name   string
		damage func(root string) error
		device Device
		want   string
	}{
		{"a kernel module without MIG", func(root string) error { return os.RemoveAll(filepath.Join(root, "proc/driver")) }, partition(1), "is the NVIDIA kernel module loaded, with MIG support"},
		{"an instance that the driver does not list", nil, partition(9), "does not list gpu3/gi9/access"},
		{"a list with nonsense", func(root string) error {
			return os.WriteFile(filepath.Join(root, "proc/driver/nvidia-caps/mig-minors"), []byte("gpu3/gi1/access many\n"), 0o600)
		}, partition(1), "has no device number"},
		{"no node, and no number of the driver's", func(root string) error { return os.WriteFile(filepath.Join(root, "proc/devices"), nil, 0o600) }, partition(2), "nvidia-modprobe makes it"},
		{"a partition that was never made", nil, unmade, "does not exist whole"},
		{"a partition without compute instance", nil, halved, "does not exist whole"},
		{"a GPU of unknown minor", nil, minor, "does not say which /dev/nvidia* node"},
	} {
		b := migBuilder(t)
		b.GPUs.(*NVIDIA).cfg.Proc = t.TempDir()
		if test.damage != nil {
			if err := test.damage(filepath.Dir(b.Dev)); err != nil {
				t.Fatal(err)
			}
		}
		_, err := b.Build(t.Context(), &Claim{UID: claimUID, Devices: []Device{test.device}})
		if err == nil || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), test.device.Name) {
			t.Errorf("%s: %v; want the device and %q named", test.name, err, test.want)
		}
	}
}

func TestPairGetsBothItsNodes(t *testing.T) {
	const name = "pair-0000-17-00-0-0000-18-00-0"
	claim := &Claim{UID: claimUID, Devices: []Device{{Name: name, GPU: theGPU(), RDMA: &topology.RDMADevice{Name: "mlx5_0", CharDevices: []string{"/dev/infiniband/uverbs0"}}}}}
	edits := deviceNamed(t, build(t, builder(t), claim), name).ContainerEdits
	want := []string{"/dev/infiniband/uverbs0 from /host/dev/infiniband/uverbs0", "/dev/nvidia3 from /host/dev/nvidia3"}
	if got := nodes(edits); !slices.Equal(got, want) || !slices.Contains(edits.Env, "HOSTLER_DEVICE_PAIR_0000_17_00_0_0000_18_00_0="+name) {
		t.Errorf("nodes %v, environment %v; want %v", got, edits.Env, want)
	}
	if got := claim.DeviceIDs(name, ""); len(got) != 2 {
		t.Errorf("a container of the pair's request gets %v, want the driver's files too", got)
	}
}

// Whatever the kernel's list says, reading it ends with a number of it or an error.
func FuzzCapabilityNumbers(f *testing.F) {
	f.Add("config 1\ngpu3/gi1/access 30\n", "gpu3/gi1/access")
	f.Add("gpu3/gi1/access -1\n", "gpu3/gi1/access")
	f.Add("gpu3/gi1/access 99999999999999999999\n", "gpu3/gi1/access")
	f.Add("", "")
	f.Fuzz(func(t *testing.T, content, key string) {
		path := filepath.Join(t.TempDir(), "list")
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		file, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		if number, err := numberIn(file, key, 0); err == nil && (number < 0 || !strings.Contains(content, key)) {
			t.Fatalf("%q is said to have number %d in %q", key, number, content)
		}
	})
}
