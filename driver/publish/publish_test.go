package publish

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	resourceapi "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/hostler-dev/hostler/topology"
)

func TestAttributes(t *testing.T) {
	odd := gpu("0000:18:00.0")
	odd.ProductName, odd.ComputeCapability, odd.Placement.NUMANode = strings.Repeat("x", 65), "nine", -1
	resources := Resources(Input{NodeName: node, Features: everything, Snapshot: &topology.Snapshot{
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
		{"gpu", "gpu-0000-17-00-0", "hostler.dev/iommuGroup", "7"},
		{"gpu", "gpu-0000-17-00-0", "hostler.dev/rail", "0"},
		{"gpu", "gpu-0000-18-00-0", "hostler.dev/rail", "absent"},
		{"nic", "nic-0000-19-00-0", "hostler.dev/rail", "0"},
		{"nic", "nic-0000-19-00-0", "hostler.dev/iommuGroup", "absent"},
		{"nic", "nic-0000-19-00-0", "hostler.dev/firmwareVersion", "28.39.1002 (MT_0000000838)"},
		{"nic", "nic-0000-19-00-0", "hostler.dev/linkSpeed", "400000"},
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
	egress := device(t, Resources(Input{NodeName: node, Features: everything}), EgressPool(node), EgressDevice)
	if egress.AllowMultipleAllocations == nil || !*egress.AllowMultipleAllocations || len(egress.Capacity) != 0 {
		t.Errorf("the egress device can run out: %+v", egress)
	}
}

func TestUplinkIsTainted(t *testing.T) {
	uplink := nic("0000:19:00.0")
	uplink.Uplink = "carries the default route 0.0.0.0/0 via eth0, and with it the API server's address"
	got := device(t, Resources(Input{NodeName: node, Features: everything, Snapshot: &topology.Snapshot{NICs: []topology.NIC{uplink}}}), NICPool(node), uplink.Name)
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
	got := device(t, Resources(Input{NodeName: node, Features: everything, Snapshot: &topology.Snapshot{GPUs: []topology.GPU{gpu("0000:17:00.0")}}, Taints: taints}), GPUPool(node), name).Taints
	if len(got) != 16 || got[0].Key != "hostler.dev/xid" || got[0].Value != "79" || !got[0].TimeAdded.Equal(&since) {
		t.Errorf("got %d taints, first %+v", len(got), got[0])
	}
}

// Its RDMA device stays in the host's sight, so it looks like an InfiniBand device; the
// pod would get verbs and no netdev.
func TestANICThatSomebodyElseTookIsTainted(t *testing.T) {
	roce := nic("0000:19:00.0")
	roce.RDMA = &topology.RDMADevice{Name: "mlx5_0", Ports: []topology.RDMAPort{{Port: 1, LinkLayer: "Ethernet"}}}
	away := roce
	away.Link = nil
	in := Input{NodeName: node, Features: everything, Snapshot: &topology.Snapshot{NICs: []topology.NIC{away}}}
	if got := device(t, Resources(in), NICPool(node), away.Name).Taints; len(got) != 1 || got[0].Key != AwayTaint || got[0].Effect != resourceapi.DeviceTaintEffectNoSchedule {
		t.Errorf("taints %+v", got)
	}
	in.Held = map[string]topology.NIC{roce.Name: roce}
	if got := device(t, Resources(in), NICPool(node), away.Name).Taints; len(got) != 0 {
		t.Errorf("in a pod of ours it has the taints %+v", got)
	}
}

func TestHeldNICStaysAsItWas(t *testing.T) {
	atHome := nic("0000:19:00.0")
	away := atHome
	away.Link = nil
	held := map[string]topology.NIC{atHome.Name: atHome}
	before := Resources(Input{NodeName: node, Features: everything, Snapshot: &topology.Snapshot{NICs: []topology.NIC{atHome}}})
	for name, snapshot := range map[string]*topology.Snapshot{
		"netdev in a pod":            {NICs: []topology.NIC{away}},
		"function not discovered":    {},
		"no snapshot at all, though": nil,
	} {
		after := Resources(Input{NodeName: node, Features: everything, Snapshot: snapshot, Held: held})
		if diff := cmp.Diff(before.Pools[NICPool(node)], after.Pools[NICPool(node)]); diff != "" {
			t.Errorf("%s: the slice of an allocated device changed:\n%s", name, diff)
		}
	}
}
