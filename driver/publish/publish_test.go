package publish

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	resourceapi "k8s.io/api/resource/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/dynamic-resource-allocation/resourceslice"
	"pgregory.net/rapid"

	"github.com/hostler-dev/hostler/topology"
)

const node = "node-a.example"

func gpu(pci string) topology.GPU {
	return topology.GPU{
		Name: topology.GPUName(pci), UUID: "GPU-" + pci, ProductName: "NVIDIA H100 80GB HBM3", Architecture: "Hopper",
		ComputeCapability: "9.0", MemoryBytes: 80 << 30,
		Placement: topology.Placement{PCI: pci, PCIeRoot: "pci0000:16", PCIeSwitch: "0000:15:00.0", NUMANode: 0, Socket: 0},
	}
}

func nic(pci string) topology.NIC {
	return topology.NIC{
		Name: topology.NICName(pci), Kind: topology.PF, VFID: -1, Driver: "mlx5_core",
		Link:      &topology.Link{Name: "eth0", MAC: "02:00:00:00:00:01", Type: "ethernet", SpeedMbps: 400_000},
		RDMA:      &topology.RDMADevice{Name: "mlx5_0"},
		Placement: topology.Placement{PCI: pci, PCIeRoot: "pci0000:16", PCIeSwitch: "0000:15:00.0", NUMANode: 0, Socket: -1},
	}
}

func vf(pf topology.NIC, id int) topology.NIC {
	v := nic(fmt.Sprintf("%s%02x.%d", strings.TrimSuffix(pf.Placement.PCI, "00.0"), 1+id/8, id%8))
	v.Kind, v.Parent, v.VFID = topology.VF, pf.Name, id
	return v
}

func device(t *testing.T, resources resourceslice.DriverResources, pool, name string) resourceapi.Device {
	t.Helper()
	for _, slice := range resources.Pools[pool].Slices {
		for _, d := range slice.Devices {
			if d.Name == name {
				return d
			}
		}
	}
	t.Fatalf("device %s is not in pool %s", name, pool)
	return resourceapi.Device{}
}

func text(d resourceapi.Device, name string) string {
	a, ok := d.Attributes[resourceapi.QualifiedName(name)]
	switch {
	case !ok:
		return "absent"
	case a.StringValue != nil:
		return *a.StringValue
	case a.VersionValue != nil:
		return "version " + *a.VersionValue
	case a.IntValue != nil:
		return fmt.Sprint(*a.IntValue)
	case a.BoolValue != nil:
		return fmt.Sprint(*a.BoolValue)
	}
	return "no value"
}

func TestAttributes(t *testing.T) {
	odd := gpu("0000:18:00.0")
	odd.ProductName, odd.ComputeCapability, odd.Placement.NUMANode = strings.Repeat("x", 65), "nine", -1
	resources := Resources(Input{NodeName: node, Snapshot: &topology.Snapshot{
		Driver: topology.Driver{Version: "570.124.06", CUDAVersion: "12.8"},
		GPUs:   []topology.GPU{gpu("0000:17:00.0"), odd},
		NICs:   []topology.NIC{nic("0000:19:00.0")},
	}})
	for _, test := range []struct{ pool, device, attribute, want string }{
		{"gpu", "gpu-0000-17-00-0", "hostler.dev/type", "gpu"},
		{"gpu", "gpu-0000-17-00-0", "hostler.dev/uuid", "GPU-0000:17:00.0"},
		{"gpu", "gpu-0000-17-00-0", "hostler.dev/driverVersion", "version 570.124.6"},
		{"gpu", "gpu-0000-17-00-0", "hostler.dev/cudaDriverVersion", "version 12.8.0"},
		{"gpu", "gpu-0000-17-00-0", "hostler.dev/cudaComputeCapability", "version 9.0.0"},
		{"gpu", "gpu-0000-17-00-0", "resource.kubernetes.io/pcieRoot", "pci0000:16"},
		{"gpu", "gpu-0000-17-00-0", "resource.kubernetes.io/pciBusID", "0000:17:00.0"},
		{"gpu", "gpu-0000-17-00-0", "resource.kubernetes.io/numaNode", "0"},
		{"gpu", "gpu-0000-17-00-0", "hostler.dev/socket", "0"},
		{"gpu", "gpu-0000-18-00-0", "hostler.dev/productName", "absent"},
		{"gpu", "gpu-0000-18-00-0", "hostler.dev/cudaComputeCapability", "absent"},
		{"gpu", "gpu-0000-18-00-0", "resource.kubernetes.io/numaNode", "absent"},
		{"nic", "nic-0000-19-00-0", "hostler.dev/ifName", "eth0"},
		{"nic", "nic-0000-19-00-0", "hostler.dev/rdma", "true"},
		{"nic", "nic-0000-19-00-0", "hostler.dev/rdmaDevice", "mlx5_0"},
		{"nic", "nic-0000-19-00-0", "hostler.dev/vfID", "absent"},
		{"nic", "nic-0000-19-00-0", "hostler.dev/socket", "absent"},
		{"nic", "nic-0000-19-00-0", "k8s.cni.cncf.io/deviceID", "0000:19:00.0"},
		{"egress", "egress", "hostler.dev/type", "egress"},
	} {
		if got := text(device(t, resources, node+"/"+test.pool, test.device), test.attribute); got != test.want {
			t.Errorf("%s of %s is %q, want %q", test.attribute, test.device, got, test.want)
		}
	}
	group := text(device(t, resources, GPUPool(node), "gpu-0000-17-00-0"), "hostler.dev/affinityGroup")
	if group == "absent" || group != text(device(t, resources, NICPool(node), "nic-0000-19-00-0"), "hostler.dev/affinityGroup") {
		t.Errorf("a GPU and a NIC under one switch are not in one affinity group: %q", group)
	}
	memory := device(t, resources, GPUPool(node), "gpu-0000-17-00-0").Capacity["hostler.dev/memory"].Value
	bandwidth := device(t, resources, NICPool(node), "nic-0000-19-00-0").Capacity["hostler.dev/bandwidth"].Value
	if memory.String() != "80Gi" || bandwidth.String() != "400G" {
		t.Errorf("capacities are memory %s and bandwidth %s, want 80Gi and 400G", memory.String(), bandwidth.String())
	}
}

func TestSemanticVersion(t *testing.T) {
	for in, want := range map[string]string{
		"570.124.06": "570.124.6", "12.8": "12.8.0", "9": "9.0.0", " 1.2.3 ": "1.2.3",
		"": "", "1.2.3.4": "", "535.x": "", "-1.0": "", "1..2": "", "99999999999999999999.0": "",
	} {
		got, ok := semanticVersion(in)
		if got != want || ok != (want != "") {
			t.Errorf("semanticVersion(%q) = %q, %v; want %q", in, got, ok, want)
		}
	}
}

func TestEgressIsSharedByAnyNumberOfClaims(t *testing.T) {
	egress := device(t, Resources(Input{NodeName: node}), EgressPool(node), EgressDevice)
	if egress.AllowMultipleAllocations == nil || !*egress.AllowMultipleAllocations || len(egress.Capacity) != 0 {
		t.Errorf("the egress device can run out: %+v", egress)
	}
}

func TestUplinkIsTainted(t *testing.T) {
	uplink := nic("0000:19:00.0")
	uplink.Uplink = "carries the default route 0.0.0.0/0 via eth0, and with it the API server's address"
	got := device(t, Resources(Input{NodeName: node, Snapshot: &topology.Snapshot{NICs: []topology.NIC{uplink}}}), NICPool(node), uplink.Name)
	if len(got.Taints) != 1 || got.Taints[0].Key != "hostler.dev/uplink" || got.Taints[0].Effect != resourceapi.DeviceTaintEffectNoSchedule {
		t.Fatalf("taints of the uplink: %+v", got.Taints)
	}
	if faults := validation.IsValidLabelValue(got.Taints[0].Value); len(faults) > 0 {
		t.Errorf("the taint's value %q: %v", got.Taints[0].Value, faults)
	}
}

func TestTaintsKeepTheGravestWithinTheLimit(t *testing.T) {
	name := topology.GPUName("0000:17:00.0")
	var taints []Taint
	for i := range 20 {
		taints = append(taints, Taint{Device: name, Key: fmt.Sprintf("hostler.dev/f%02d", i), Effect: resourceapi.DeviceTaintEffectNone})
	}
	since := metav1.NewTime(time.Unix(1000, 0))
	taints = append(taints, Taint{Device: name, Key: "hostler.dev/xid", Value: "79", Effect: resourceapi.DeviceTaintEffectNoSchedule, TimeAdded: since})
	got := device(t, Resources(Input{NodeName: node, Snapshot: &topology.Snapshot{GPUs: []topology.GPU{gpu("0000:17:00.0")}}, Taints: taints}), GPUPool(node), name).Taints
	if len(got) != 16 || got[0].Key != "hostler.dev/xid" || got[0].Value != "79" || !got[0].TimeAdded.Equal(&since) {
		t.Errorf("got %d taints, first %+v", len(got), got[0])
	}
}

func TestHeldNICStaysAsItWas(t *testing.T) {
	atHome := nic("0000:19:00.0")
	away := atHome
	away.Link = nil
	held := map[string]topology.NIC{atHome.Name: atHome}
	before := Resources(Input{NodeName: node, Snapshot: &topology.Snapshot{NICs: []topology.NIC{atHome}}})
	for name, snapshot := range map[string]*topology.Snapshot{
		"netdev in a pod":            {NICs: []topology.NIC{away}},
		"function not discovered":    {},
		"no snapshot at all, though": nil,
	} {
		after := Resources(Input{NodeName: node, Snapshot: snapshot, Held: held})
		if diff := cmp.Diff(before.Pools[NICPool(node)], after.Pools[NICPool(node)]); diff != "" {
			t.Errorf("%s: the slice of an allocated device changed:\n%s", name, diff)
		}
	}
}

func TestTaintChangesOneSlice(t *testing.T) {
	snapshot := &topology.Snapshot{}
	for p := range 4 {
		pf := nic(fmt.Sprintf("0000:%02x:00.0", 0x20+p))
		snapshot.NICs = append(snapshot.NICs, pf)
		for i := range 128 {
			snapshot.NICs = append(snapshot.NICs, vf(pf, i))
		}
	}
	before := Resources(Input{NodeName: node, Snapshot: snapshot}).Pools[NICPool(node)]
	after := Resources(Input{NodeName: node, Snapshot: snapshot, Taints: []Taint{
		{Device: snapshot.NICs[200].Name, Key: "hostler.dev/port", Effect: resourceapi.DeviceTaintEffectNoSchedule},
	}}).Pools[NICPool(node)]
	changed := 0
	for i := range before.Slices {
		if !apiequality.Semantic.DeepEqual(before.Slices[i], after.Slices[i]) {
			changed++
		}
	}
	if len(before.Slices) != len(after.Slices) || changed != 1 {
		t.Errorf("%d of %d slices changed (now %d), want 1", changed, len(before.Slices), len(after.Slices))
	}
}

// Whatever the machine and the taints: slices are within the API's limits,
// every device is there once, and the same input in another order gives the
// same output.
func TestSlicesAreValid(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := drawInput(t)
		resources := Resources(in)
		seen := map[string]bool{}
		for pool, contents := range resources.Pools {
			for _, segment := range strings.Split(pool, "/") {
				if faults := validation.IsDNS1123Subdomain(segment); len(faults) > 0 {
					t.Fatalf("pool name %q: %v", pool, faults)
				}
			}
			if len(contents.Slices) == 0 {
				t.Fatalf("pool %q has no slice", pool)
			}
			for _, slice := range contents.Slices {
				checkSlice(t, slice, seen)
			}
		}
		if want := len(in.Snapshot.GPUs) + len(in.Snapshot.NICs) + 1; len(seen) != want {
			t.Fatalf("%d devices published, want %d", len(seen), want)
		}
		slices.Reverse(in.Taints)
		if !apiequality.Semantic.DeepEqual(resources, Resources(in)) {
			t.Fatal("the order of taints changes the slices")
		}
	})
}

func drawInput(t *rapid.T) Input {
	in := Input{NodeName: node, Snapshot: &topology.Snapshot{Driver: topology.Driver{Version: rapid.String().Draw(t, "version")}}}
	for i := range rapid.IntRange(0, 150).Draw(t, "gpus") {
		g := gpu(fmt.Sprintf("0000:%02x:00.0", i))
		g.ProductName = rapid.String().Draw(t, "product")
		in.Snapshot.GPUs = append(in.Snapshot.GPUs, g)
		in.Taints = append(in.Taints, drawTaints(t, g.Name)...)
	}
	for i := range rapid.IntRange(0, 20).Draw(t, "pfs") {
		pf := nic(fmt.Sprintf("0001:%02x:00.0", i))
		pf.Uplink = rapid.SampledFrom([]string{"", "carries the default route"}).Draw(t, "uplink")
		in.Snapshot.NICs = append(in.Snapshot.NICs, pf)
		in.Taints = append(in.Taints, drawTaints(t, pf.Name)...)
		for n := range rapid.IntRange(0, 130).Draw(t, "vfs") {
			in.Snapshot.NICs = append(in.Snapshot.NICs, vf(pf, n))
		}
	}
	return in
}

func drawTaints(t *rapid.T, device string) []Taint {
	var taints []Taint
	for i := range rapid.IntRange(0, 18).Draw(t, "taints") {
		taints = append(taints, Taint{Device: device, Key: fmt.Sprintf("hostler.dev/f%d", i), Value: rapid.String().Draw(t, "value"), Effect: rapid.SampledFrom([]resourceapi.DeviceTaintEffect{"None", "NoSchedule", "NoExecute"}).Draw(t, "effect")})
	}
	return taints
}

func checkSlice(t *rapid.T, slice resourceslice.Slice, seen map[string]bool) {
	if len(slice.Devices) > 64 {
		t.Fatalf("a slice has %d devices", len(slice.Devices))
	}
	for _, d := range slice.Devices {
		if seen[d.Name] || len(validation.IsDNS1123Label(d.Name)) > 0 {
			t.Fatalf("device name %q is double or no DNS label", d.Name)
		}
		seen[d.Name] = true
		if len(d.Attributes)+len(d.Capacity) > 32 || len(d.Taints) > 16 {
			t.Fatalf("%s has %d attributes, %d capacities, %d taints", d.Name, len(d.Attributes), len(d.Capacity), len(d.Taints))
		}
		for name := range d.Attributes {
			if _, id, _ := strings.Cut(string(name), "/"); len(id) > 32 {
				t.Fatalf("attribute name %q is too long", name)
			}
			if value := text(d, string(name)); len(value) > 64+len("version ") || value == "no value" {
				t.Fatalf("attribute %s has value %q", name, value)
			}
		}
		for _, taint := range d.Taints {
			if faults := validation.IsValidLabelValue(taint.Value); len(faults) > 0 {
				t.Fatalf("taint value %q: %v", taint.Value, faults)
			}
		}
	}
}
