package claim

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/types"
	metadataapi "k8s.io/dynamic-resource-allocation/api/metadata"
	"tags.cncf.io/container-device-interface/specs-go"

	"github.com/hostler-dev/hostler/driver/vfio"
	"github.com/hostler-dev/hostler/netattach"
	"github.com/hostler-dev/hostler/topology"
)

const containerDir = "/var/run/kubernetes.io/dra-device-attributes/"

// told is what a container can read of a request's devices: attributes without
// their prefix, and where it is mounted by which CDI device.
func (r *room) told(t *testing.T, claim types.UID, request string) (content *metadataapi.DeviceMetadata, attributes []map[string]string) {
	t.Helper()
	content, err := r.metadata.Read(claim, request)
	if err != nil {
		t.Fatal(err)
	}
	for _, device := range content.Requests[0].Devices {
		plain := map[string]string{}
		for name, value := range device.Attributes {
			raw, err := json.Marshal(value)
			if err != nil {
				t.Fatal(err)
			}
			plain[strings.TrimPrefix(string(name), "hostler.dev/")] = string(raw)
		}
		attributes = append(attributes, plain)
	}
	return content, attributes
}

// mounts of a claim's CDI spec, "device: container path" by host path.
func (r *room) mounts(t *testing.T, claim types.UID) map[string]string {
	t.Helper()
	raw, err := os.ReadFile(r.cdi.File(claim))
	if err != nil {
		t.Fatal(err)
	}
	var spec specs.Spec
	if err := json.Unmarshal(raw, &spec); err != nil {
		t.Fatal(err)
	}
	mounts := map[string]string{}
	for _, device := range spec.Devices {
		for _, mount := range device.ContainerEdits.Mounts {
			if !slices.Contains(mount.Options, "ro") {
				t.Errorf("containers can write to %s", mount.HostPath)
			}
			mounts[mount.HostPath] = strings.TrimPrefix(device.Name, string(claim)+"-") + ": " + mount.ContainerPath
		}
	}
	return mounts
}

func TestContainersAreToldOfEachKindOfDevice(t *testing.T) {
	for _, test := range []struct {
		name   string
		device [2]string
		want   map[string]string
	}{
		{"a GPU", onGPU("gpu-0000-17-00-0"), map[string]string{
			"type": `{"string":"gpu"}`, "uuid": `{"string":"GPU-a"}`, "driverVersion": `{"version":"570.124.6"}`, "resource.kubernetes.io/pciBusID": `{"string":"0000:17:00.0"}`}},
		{"a partition that was there", onGPU(part2g4), map[string]string{
			"type": `{"string":"mig"}`, "migProfile": `{"string":"2g.20gb"}`, "uuid": `{"string":"MIG-0000:47:00.0-1"}`, "resource.kubernetes.io/pciBusID": `{"string":"0000:47:00.0"}`}},
		{"a partition that was made for the claim", onGPU(part1g0), map[string]string{
			"type": `{"string":"mig"}`, "migProfile": `{"string":"1g.10gb"}`, "uuid": `{"string":"MIG-0000:47:00.0-2"}`}},
		{"a PF", onNIC("nic-0000-18-00-0"), map[string]string{
			"type": `{"string":"nic"}`, "kind": `{"string":"pf"}`, "rdmaDevice": `{"string":"mlx5_0"}`, "ifName": `{"string":"eth1"}`, "k8s.cni.cncf.io/deviceID": `{"string":"0000:18:00.0"}`}},
		{"a VF", onNIC("nic-0000-1d-00-1"), map[string]string{
			"type": `{"string":"nic"}`, "kind": `{"string":"vf"}`, "pfName": `{"string":"nic-0000-1d-00-0"}`, "vfID": `{"int":0}`, "resource.kubernetes.io/pciBusID": `{"string":"0000:1d:00.1"}`}},
		{"a pair", onAny(pairPlain), map[string]string{
			"type": `{"string":"pair"}`, "uuid": `{"string":"GPU-b"}`, "gpuName": `{"string":"gpu-0000-27-00-0"}`, "nicName": `{"string":"nic-0000-19-00-0"}`, "k8s.cni.cncf.io/deviceID": `{"string":"0000:19:00.0"}`}},
		{"an RDMA device without a netdev", onNIC("nic-0000-1a-00-0"), map[string]string{
			"type": `{"string":"nic"}`, "rdmaDevice": `{"string":"mlx5_0"}`, "resource.kubernetes.io/pciBusID": `{"string":"0000:1a:00.0"}`, "ifName": ""}},
		{"an egress scope", onEgress(), map[string]string{"type": `{"string":"egress"}`}},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := newMIGRoom(t, t.TempDir(), boot, migDevice())
			c := allocated("c", test.device)
			if _, err := r.prepare(c); err != nil {
				t.Fatal(err)
			}
			content, attributes := r.told(t, c.UID, "r0")
			device := content.Requests[0].Devices[0]
			if device.Driver != "hostler.dev" || device.Pool+"/"+device.Name != node+"/"+test.device[0]+"/"+test.device[1] || content.Name != "c" || content.Namespace != "team" || content.UID != c.UID {
				t.Errorf("it says of itself %+v", content)
			}
			for name, want := range test.want {
				if got := attributes[0][name]; got != want {
					t.Errorf("%s is %s, want %s", name, got, want)
				}
			}
			if err := r.Unprepare(t.Context(), c.UID); err != nil {
				t.Fatal(err)
			}
			if left, err := r.metadata.List(); err != nil || len(left) > 0 {
				t.Errorf("left of it: %v (%v)", left, err)
			}
		})
	}
}

// A program in user space finds its functions by the addresses in the file.
func TestContainersAreToldOfFunctionsInUserSpace(t *testing.T) {
	r := newRoom(t, t.TempDir(), boot)
	nic := r.snapshot.NIC("nic-0000-1d-00-1")
	entry := &Entry{ClaimUID: "uid-c", ClaimNamespace: "team", ClaimName: "c", Devices: []Device{{
		Request: "r0", Pool: node + "/nic", Name: nic.Name, NIC: nic,
		VFIO: &vfio.Binding{Group: "37", Functions: []vfio.Function{{PCI: "0000:1d:00.1", Driver: "mlx5_core"}, {PCI: "0000:1d:00.2"}}},
	}}}
	step := &metadataStep{steps: r.steps, entry: entry}
	if err := step.Do(t.Context()); err != nil {
		t.Fatal(err)
	}
	_, attributes := r.told(t, "uid-c", "r0")
	for name, want := range map[string]string{"mode": `{"string":"vfio"}`, "vfioGroup": `{"int":37}`, "vfioFunctions": `{"strings":["0000:1d:00.1","0000:1d:00.2"]}`, "resource.kubernetes.io/pciBusID": `{"string":"0000:1d:00.1"}`} {
		if got := attributes[0][name]; got != want {
			t.Errorf("%s is %s, want %s", name, got, want)
		}
	}
}

func TestEachRequestHasItsOwnFile(t *testing.T) {
	r := newRoom(t, t.TempDir(), boot)
	c := allocated("c", onGPU("gpu-0000-17-00-0"), onGPU("gpu-0000-27-00-0"), onNIC("nic-0000-19-00-0"))
	results := c.Status.Allocation.Devices.Results
	results[0].Request, results[1].Request, results[2].Request = "gpus/large", "gpus/large", "nic"
	c.Annotations = map[string]string{resourceapi.PodResourceClaimAnnotation: "mine"}
	if _, err := r.prepare(c); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		r.metadata.File(c.UID, "gpus"): "gpu-0000-17-00-0: " + containerDir + "resourceclaimtemplates/mine/gpus/hostler.dev-metadata.json",
		r.metadata.File(c.UID, "nic"):  "nic-0000-19-00-0: " + containerDir + "resourceclaimtemplates/mine/nic/hostler.dev-metadata.json",
	}
	if diff := cmp.Diff(want, r.mounts(t, c.UID)); diff != "" {
		t.Errorf("mounts (-want +got):\n%s", diff)
	}
	gpus, _ := r.told(t, c.UID, "gpus")
	nic, _ := r.told(t, c.UID, "nic")
	if len(gpus.Requests[0].Devices) != 2 || gpus.Requests[0].Name != "gpus/large" || len(nic.Requests[0].Devices) != 1 || *nic.PodClaimName != "mine" {
		t.Errorf("the files are %+v and %+v", gpus, nic)
	}
}

// An administrator's request for a device that the claim has by another one.
func TestOneDeviceByTwoRequests(t *testing.T) {
	r := newRoom(t, t.TempDir(), boot)
	c := watching(allocated("c", onGPU("gpu-0000-17-00-0"), onGPU("gpu-0000-17-00-0")))
	if _, err := r.prepare(c); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{}
	for i := range 2 {
		want[r.metadata.File(c.UID, fmt.Sprintf("r%d", i))] = fmt.Sprintf("gpu-0000-17-00-0: %sresourceclaims/c/r%d/hostler.dev-metadata.json", containerDir, i)
	}
	if diff := cmp.Diff(want, r.mounts(t, c.UID)); diff != "" {
		t.Errorf("mounts (-want +got):\n%s", diff)
	}
}

func TestMetadataIsMadeAgain(t *testing.T) {
	for _, test := range []struct {
		name       string
		disturb    func(r *room, file string) error
		generation int64
	}{
		{"when the directory was wiped", func(r *room, _ string) error { return r.metadata.Remove("uid-c") }, 1},
		{"when somebody wrote to it", func(_ *room, file string) error { return os.WriteFile(file, []byte("{}"), 0o600) }, 1},
		{"when the machine changed", func(r *room, _ string) error { r.snapshot.Driver.Version = "580.0.1"; return nil }, 2},
		{"only then", func(*room, string) error { return nil }, 1},
	} {
		r := newRoom(t, t.TempDir(), boot)
		c := allocated("c", onGPU("gpu-0000-17-00-0"))
		if _, err := r.prepare(c); err != nil {
			t.Fatal(err)
		}
		if err := test.disturb(r, r.metadata.File(c.UID, "r0")); err != nil {
			t.Fatal(err)
		}
		if err := r.Reconcile(t.Context(), reader(c), r.cdi); err != nil {
			t.Fatalf("%s: %v", test.name, err)
		}
		content, attributes := r.told(t, c.UID, "r0")
		if content.Generation != test.generation || attributes[0]["uuid"] != `{"string":"GPU-a"}` {
			t.Errorf("%s: generation %d, %v", test.name, content.Generation, attributes)
		}
	}
}

// While a driver is loaded anew its GPUs are out of sight, and with them what they
// are connected to.
func TestMetadataStaysWhileHardwareIsOutOfSight(t *testing.T) {
	r := newRoom(t, t.TempDir(), boot)
	c := allocated("c", onGPU("gpu-0000-17-00-0"), onNIC("nic-0000-19-00-0"))
	if _, err := r.prepare(c); err != nil {
		t.Fatal(err)
	}
	_, before := r.told(t, c.UID, "r0")
	r.snapshot = &topology.Snapshot{BootID: boot, NICs: r.snapshot.NICs}
	if err := r.Reconcile(t.Context(), reader(c), r.cdi); err != nil {
		t.Fatal(err)
	}
	content, after := r.told(t, c.UID, "r0")
	if diff := cmp.Diff(before, after); diff != "" || content.Generation != 1 {
		t.Errorf("generation %d (-before +after):\n%s", content.Generation, diff)
	}
}

// The promise is that the file is there: a claim whose files cannot be written is
// not prepared, and nothing of it is left.
func TestUnwritableMetadataFailsThePrepare(t *testing.T) {
	directory := t.TempDir()
	r := newMIGRoom(t, directory, boot, migDevice())
	if err := os.WriteFile(directory+"/metadata", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	before := instances(r.mig)
	_, err := r.prepare(allocated("c", onGPU(part1g0)))
	if err == nil || !strings.Contains(err.Error(), "metadata") {
		t.Fatalf("error %v", err)
	}
	specs, err := r.cdi.List()
	if err != nil || len(specs) > 0 || len(r.journal.Entries()) > 0 {
		t.Errorf("left: specs %v, %d entries (%v)", specs, len(r.journal.Entries()), err)
	}
	if diff := cmp.Diff(before, instances(r.mig)); diff != "" {
		t.Errorf("instances (-before +after):\n%s", diff)
	}
}

func TestContainersAreToldOfNetdevsInTheirPod(t *testing.T) {
	r := newRoom(t, t.TempDir(), boot)
	c := allocated("c", onGPU("gpu-0000-17-00-0"), onNIC("nic-0000-19-00-0"))
	entry, err := r.prepare(c)
	if err != nil {
		t.Fatal(err)
	}
	network := func() *resourceapi.NetworkDeviceData {
		content, _ := r.told(t, c.UID, "r1")
		return content.Requests[0].Devices[0].NetworkData
	}
	if network() != nil {
		t.Errorf("before it is in a pod: %+v", network())
	}
	prefixes := []netip.Prefix{netip.MustParsePrefix("10.1.0.5/24"), netip.MustParsePrefix("2001:db8::5/64")}
	r.attacher.inPods = map[types.UID][]netattach.DeviceState{c.UID: {{Device: "nic-0000-19-00-0", Interface: "net1", MAC: "02:00:00:00:00:AB", Addresses: prefixes}}}
	want := &resourceapi.NetworkDeviceData{InterfaceName: "net1", HardwareAddress: "02:00:00:00:00:ab", IPs: []string{"10.1.0.5/24", "2001:db8::5/64"}}
	for _, moment := range []struct {
		name   string
		happen func() error
	}{
		{"attached", func() error { return r.steps.Attached(entry) }},
		{"attached again", func() error { return r.steps.Attached(entry) }},
		{"reconciled", func() error { return r.Reconcile(t.Context(), reader(c), r.cdi) }},
		{"wiped and reconciled", func() error {
			if err := r.metadata.Remove(c.UID); err != nil {
				return err
			}
			return r.Reconcile(t.Context(), reader(c), r.cdi)
		}},
	} {
		if err := moment.happen(); err != nil {
			t.Fatalf("%s: %v", moment.name, err)
		}
		if diff := cmp.Diff(want, network()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", moment.name, diff)
		}
	}
	if gpu, _ := r.told(t, c.UID, "r0"); gpu.Generation != 1 {
		t.Errorf("the GPU's file was written %d times", gpu.Generation)
	}
	r.attacher.inPods = nil
	if err := r.Reconcile(t.Context(), reader(c), r.cdi); err != nil || network() != nil {
		t.Errorf("home again: %+v (%v)", network(), err)
	}
	if err := r.metadata.Remove(c.UID); err != nil {
		t.Fatal(err)
	}
	if err := r.steps.Attached(entry); err == nil || !strings.Contains(err.Error(), "r1") {
		t.Errorf("attached without a file to say so in: %v", err)
	}
}

// The API allows a device 16 addresses.
func TestContainersAreToldOfSixteenAddresses(t *testing.T) {
	r := newRoom(t, t.TempDir(), boot)
	state := netattach.DeviceState{Device: "nic-0000-19-00-0", Interface: "net1"}
	for i := range 20 {
		state.Addresses = append(state.Addresses, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 1, 0, byte(i)}), 24))
	}
	r.attacher.inPods = map[types.UID][]netattach.DeviceState{"uid-c": {state}}
	if _, err := r.prepare(allocated("c", onNIC("nic-0000-19-00-0"))); err != nil {
		t.Fatal(err)
	}
	content, _ := r.told(t, "uid-c", "r0")
	if n := len(content.Requests[0].Devices[0].NetworkData.IPs); n != 16 {
		t.Errorf("%d addresses", n)
	}
}
