package cdi

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"tags.cncf.io/container-device-interface/specs-go"

	"github.com/hostler-dev/hostler/topology"
)

func deviceNamed(t *testing.T, spec *specs.Spec, device string) specs.Device {
	t.Helper()
	for _, d := range spec.Devices {
		if d.Name == string(claimUID)+"-"+device {
			return d
		}
	}
	t.Fatalf("the spec has no device %s", device)
	return specs.Device{}
}

// nodes lists device nodes as "path from host path".
func nodes(edits specs.ContainerEdits) []string {
	var out []string
	for _, node := range edits.DeviceNodes {
		out = append(out, node.Path+" from "+node.HostPath)
	}
	slices.Sort(out)
	return out
}

func TestEveryClaimPassesTheGate(t *testing.T) {
	for name, device := range map[string]Device{
		"GPU alone":    {Name: "gpu-0000-17-00-0", GPU: theGPU()},
		"RDMA NIC":     {Name: "nic-0000-18-00-0", RDMA: &topology.RDMADevice{Name: "mlx5_0", CharDevices: []string{"/dev/infiniband/uverbs0"}}},
		"plain NIC":    {Name: "nic-0000-18-00-0"},
		"egress scope": {Name: "egress"},
	} {
		t.Run(name, func(t *testing.T) {
			hooks := build(t, builder(t), &Claim{UID: claimUID, Devices: []Device{device}}).ContainerEdits.Hooks
			want := []string{"hostler-gate", "--socket", "/run/hostler/gate.sock", "--records", "/run/hostler/attached", "--claim", string(claimUID)}
			if len(hooks) != 1 || hooks[0].HookName != "createRuntime" || hooks[0].Path != "/var/lib/hostler/bin/hostler-gate" || !slices.Equal(hooks[0].Args, want) {
				t.Errorf("hooks of all containers: %+v", hooks)
			}
		})
	}
}

func TestGPUWithoutDriverFiles(t *testing.T) {
	b := builder(t)
	claim := &Claim{UID: claimUID, Driver: topology.Driver{Version: "570.124.06", Library: filepath.Join(filepath.Dir(b.Dev), "usr/lib64/libnvidia-ml.so.1")},
		Devices: []Device{{Name: "gpu-0000-17-00-0", GPU: theGPU(), Capabilities: []string{"compute", "utility"}}, {Name: "nic-0000-18-00-0"}}}
	spec := build(t, b, claim)
	if got, want := nodes(deviceNamed(t, spec, "gpu-0000-17-00-0").ContainerEdits), []string{"/dev/nvidia3 from /host/dev/nvidia3"}; !slices.Equal(got, want) {
		t.Errorf("the GPU's nodes are %v, want %v", got, want)
	}
	common := deviceNamed(t, spec, "gpu-driver").ContainerEdits
	if got, want := nodes(common), []string{"/dev/nvidia-uvm from /host/dev/nvidia-uvm", "/dev/nvidiactl from /host/dev/nvidiactl"}; !slices.Equal(got, want) {
		t.Errorf("the shared nodes are %v, want %v", got, want)
	}
	if len(common.Mounts) != 1 || common.Mounts[0].HostPath != "/host/driver/usr/lib64/libnvidia-ml.so.1" || common.Mounts[0].ContainerPath != "/usr/lib64/libnvidia-ml.so.1" {
		t.Errorf("mounts: %+v", common.Mounts)
	}
	if got := nodes(deviceNamed(t, spec, "nic-0000-18-00-0").ContainerEdits); len(got)+len(nodes(spec.ContainerEdits)) != 0 {
		t.Errorf("a container with the NIC alone gets device nodes too: %v, %v", got, nodes(spec.ContainerEdits))
	}
	if got := claim.DeviceIDs("gpu-0000-17-00-0", ""); len(got) != 2 || got[0] != "hostler.dev/claim="+string(claimUID)+"-gpu-0000-17-00-0" {
		t.Errorf("a container of the GPU's request gets %v", got)
	}
	if got := claim.DeviceIDs("nic-0000-18-00-0", ""); len(got) != 1 {
		t.Errorf("a container of the NIC's request gets %v", got)
	}
}

// What a container gets is named by the share that its request got, and not by the device alone.
func TestSharesOfOneDeviceAreDevicesOfTheirOwn(t *testing.T) {
	claim := &Claim{UID: claimUID, Devices: []Device{{Name: "gpu-0000-17-00-0", GPU: theGPU(), Share: "one"}, {Name: "gpu-0000-17-00-0", GPU: theGPU(), Share: "two"}, {Name: "egress", Share: "three"}}}
	spec := build(t, builder(t), claim)
	var names []string
	for _, device := range spec.Devices {
		names = append(names, strings.TrimPrefix(device.Name, string(claimUID)+"-"))
	}
	if want := []string{"gpu-driver", "gpu-0000-17-00-0-one", "gpu-0000-17-00-0-two", "egress"}; !slices.Equal(names, want) {
		t.Errorf("the spec has %q, want %q", names, want)
	}
	for _, device := range claim.Devices {
		if id := claim.DeviceIDs(device.Name, device.Share)[0]; !slices.ContainsFunc(spec.Devices, func(d specs.Device) bool { return strings.HasSuffix(id, "="+d.Name) }) {
			t.Errorf("share %s of %s is to be %s, which is not in the spec", device.Share, device.Name, id)
		}
	}
}

// A driver root as the driver's installer leaves it: nvcdi finds its files.
// withDriverFiles puts a driver into the builder's machine, as nvcdi recognises one, and returns a claim for its GPU.
func withDriverFiles(t testing.TB, b *Builder) *Claim {
	t.Helper()
	compiler, err := exec.LookPath("cc")
	if err != nil {
		t.Skip("needs a C compiler to make shared objects that nvcdi recognises")
	}
	root := filepath.Dir(b.Dev)
	libraries := filepath.Join(root, "usr/lib64")
	if err := os.MkdirAll(libraries, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"libcuda", "libnvidia-ml"} {
		file := name + ".so.570.124.06"
		build := exec.Command(compiler, "-shared", "-nostdlib", "-x", "c", "-Wl,-soname,"+name+".so.1", "-o", filepath.Join(libraries, file), "/dev/null")
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		if err := os.Symlink(file, filepath.Join(libraries, name+".so.1")); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(root, "hook"), nil, 0o700); err != nil {
		t.Fatal(err)
	}
	return &Claim{UID: claimUID, Driver: topology.Driver{Version: "570.124.06", Library: filepath.Join(libraries, "libnvidia-ml.so.1")},
		Devices: []Device{{Name: "gpu-0000-17-00-0", GPU: theGPU()}}}
}

func TestGPUWithDriverFiles(t *testing.T) {
	b := builder(t)
	root := filepath.Dir(b.Dev)
	claim := withDriverFiles(t, b)
	spec := build(t, b, claim)
	common := deviceNamed(t, spec, "gpu-driver").ContainerEdits
	if len(common.Hooks) == 0 || len(deviceNamed(t, spec, "gpu-0000-17-00-0").ContainerEdits.Hooks) != 0 {
		t.Errorf("hooks of the driver %v, of the device %v", common.Hooks, deviceNamed(t, spec, "gpu-0000-17-00-0").ContainerEdits.Hooks)
	}
	for _, hook := range common.Hooks {
		// Hooks run on the host, where the agent's paths mean nothing.
		if hook.Path != filepath.Join(root, "hook") || strings.Contains(strings.Join(hook.Args, " "), root) {
			t.Errorf("hook %s %q", hook.Path, hook.Args)
		}
	}
	var mounts []string
	for _, mount := range common.Mounts {
		mounts = append(mounts, mount.HostPath+" to "+mount.ContainerPath)
	}
	for _, want := range []string{
		"/host/driver/usr/lib64/libcuda.so.570.124.06 to /usr/lib64/libcuda.so.570.124.06",
		"/host/driver/usr/lib64/libnvidia-ml.so.570.124.06 to /usr/lib64/libnvidia-ml.so.570.124.06",
	} {
		if !slices.Contains(mounts, want) {
			t.Errorf("mount %q is not among %q", want, mounts)
		}
	}
}

func TestRDMANodes(t *testing.T) {
	b := builder(t)
	rdma := &topology.RDMADevice{Name: "mlx5_0", CharDevices: []string{"/dev/infiniband/uverbs0", "/dev/infiniband/issm0", "/dev/infiniband/rdma_cm"}}
	claim := &Claim{UID: claimUID, Devices: []Device{{Name: "nic-0000-18-00-0", RDMA: rdma}}}
	got := nodes(deviceNamed(t, build(t, b, claim), "nic-0000-18-00-0").ContainerEdits)
	want := []string{"/dev/infiniband/rdma_cm from /host/dev/infiniband/rdma_cm", "/dev/infiniband/uverbs0 from /host/dev/infiniband/uverbs0"}
	if !slices.Equal(got, want) {
		t.Errorf("nodes %v, want %v", got, want)
	}
}

func TestBuildRefuses(t *testing.T) {
	absent := theGPU()
	absent.Minor = 5
	unknown := theGPU()
	unknown.Minor = -1
	for _, test := range []struct {
		name   string
		device Device
		want   string
	}{
		{"a GPU without a device node", Device{Name: absent.Name, GPU: absent}, "has no device node"},
		{"a GPU of unknown minor", Device{Name: unknown.Name, GPU: unknown}, "does not say which /dev/nvidia* node"},
		{"RDMA without verbs", Device{Name: "nic-0000-18-00-0", RDMA: &topology.RDMADevice{Name: "mlx5_9", CharDevices: []string{"/dev/infiniband/uverbs9"}}}, "ib_uverbs"},
	} {
		_, err := builder(t).Build(t.Context(), &Claim{UID: claimUID, Devices: []Device{test.device}})
		if err == nil || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), test.device.Name) {
			t.Errorf("%s: %v; want the device and %q named", test.name, err, test.want)
		}
	}
}

func TestRebase(t *testing.T) {
	for _, test := range []struct{ path, from, to, want string }{
		{"/driver-root/usr/lib", "/driver-root", "/", "/usr/lib"},
		{"/usr/lib", "/", "/run/nvidia/driver", "/run/nvidia/driver/usr/lib"},
		{"/dev/nvidia0", "/dev", "/machine/dev", "/machine/dev/nvidia0"},
		{"/devious", "/dev", "/machine/dev", "/devious"},
		{"/dev/nvidia0", "/dev", "/dev/", "/dev/nvidia0"},
	} {
		if got := rebase(test.path, test.from, test.to); got != test.want {
			t.Errorf("rebase(%q, %q, %q) = %q, want %q", test.path, test.from, test.to, got, test.want)
		}
	}
}
