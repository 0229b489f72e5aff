// The scheduler's own allocator, run over what is published: that the
// attributes mean to it what they are meant to.

package publish

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	v1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/dynamic-resource-allocation/cel"
	"k8s.io/dynamic-resource-allocation/structured"
	"k8s.io/klog/v2/ktesting"
	"k8s.io/utils/ptr"

	"github.com/hostler-dev/hostler/topology"
)

// classes are those of the chart: one per type.
type classes struct{}

func (classes) List() ([]*resourceapi.DeviceClass, error) { return nil, errors.New("not needed") }
func (classes) Get(name string) (*resourceapi.DeviceClass, error) {
	expression := fmt.Sprintf(`device.driver == "hostler.dev" && device.attributes["hostler.dev"].type == %q`, name)
	return &resourceapi.DeviceClass{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       resourceapi.DeviceClassSpec{Selectors: []resourceapi.DeviceSelector{{CEL: &resourceapi.CELDeviceSelector{Expression: expression}}}},
	}, nil
}

// allocate returns the devices that the claims get, nil if they cannot be satisfied.
func allocate(t *testing.T, in Input, claims ...*resourceapi.ResourceClaim) []string {
	t.Helper()
	_, ctx := ktesting.NewTestContext(t)
	var published []*resourceapi.ResourceSlice
	for name, pool := range Resources(in).Pools {
		for i, slice := range pool.Slices {
			published = append(published, &resourceapi.ResourceSlice{
				ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("%s-%d", name, i)},
				Spec: resourceapi.ResourceSliceSpec{
					Driver: DriverName, NodeName: ptr.To(in.NodeName), Devices: slice.Devices,
					Pool: resourceapi.ResourcePool{Name: name, ResourceSliceCount: int64(len(pool.Slices))},
				},
			})
		}
	}
	features := structured.Features{AdminAccess: true, ConsumableCapacity: true, DeviceTaints: true, PrioritizedList: true}
	state := structured.AllocatedState{
		AllocatedDevices: sets.New[structured.DeviceID](), AllocatedSharedDeviceIDs: sets.New[structured.SharedDeviceID](),
		AggregatedCapacity: structured.NewConsumedCapacityCollection(),
	}
	allocator, err := structured.NewAllocator(ctx, features, state, classes{}, published, cel.NewCache(10, cel.Features{EnableConsumableCapacity: true}))
	if err != nil {
		t.Fatal(err)
	}
	results, err := allocator.Allocate(ctx, &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: in.NodeName}}, claims)
	if err != nil {
		t.Fatal(err)
	}
	var devices []string
	for _, result := range results {
		for _, device := range result.Devices.Results {
			devices = append(devices, device.Device)
		}
	}
	return devices
}

func claimFor(name string, match string, wanted ...string) *resourceapi.ResourceClaim {
	claim := &resourceapi.ResourceClaim{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name)}}
	for _, class := range wanted {
		claim.Spec.Devices.Requests = append(claim.Spec.Devices.Requests, resourceapi.DeviceRequest{Name: class, Exactly: &resourceapi.ExactDeviceRequest{
			DeviceClassName: class, AllocationMode: resourceapi.DeviceAllocationModeExactCount, Count: 1,
		}})
	}
	if match != "" {
		claim.Spec.Devices.Constraints = []resourceapi.DeviceConstraint{{MatchAttribute: ptr.To(resourceapi.FullyQualifiedName(match))}}
	}
	return claim
}

func TestSchedulerAllocates(t *testing.T) {
	at := func(pci, root string) topology.Placement {
		return topology.Placement{PCI: pci, PCIeRoot: root, NUMANode: 0, Socket: 0}
	}
	far, near, pair := gpu("0000:17:00.0"), gpu("0000:47:00.0"), nic("0000:48:00.0")
	far.Placement, near.Placement, pair.Placement = at("0000:17:00.0", "pci0000:16"), at("0000:47:00.0", "pci0000:46"), at("0000:48:00.0", "pci0000:46")
	uplink := nic("0000:18:00.0")
	uplink.Placement, uplink.Uplink = at("0000:18:00.0", "pci0000:16"), "carries the default route"
	machine := &topology.Snapshot{GPUs: []topology.GPU{far, near}, NICs: []topology.NIC{uplink, pair}}
	faulty := []Taint{{Device: near.Name, Key: "hostler.dev/xid", Value: "79", Effect: resourceapi.DeviceTaintEffectNoSchedule}}

	for _, test := range []struct {
		name   string
		taints []Taint
		claims []*resourceapi.ResourceClaim
		want   []string
	}{
		{"a GPU and a NIC under one root complex", nil, []*resourceapi.ResourceClaim{claimFor("c", "resource.kubernetes.io/pcieRoot", "gpu", "nic")}, []string{near.Name, pair.Name}},
		{"the same by our own affinity group", nil, []*resourceapi.ResourceClaim{claimFor("c", "hostler.dev/affinityGroup", "gpu", "nic")}, []string{near.Name, pair.Name}},
		{"no such pair while the GPU is faulty", faulty, []*resourceapi.ResourceClaim{claimFor("c", "resource.kubernetes.io/pcieRoot", "gpu", "nic")}, nil},
		{"a faulty GPU is avoided", faulty, []*resourceapi.ResourceClaim{claimFor("c", "", "gpu")}, []string{far.Name}},
		{"the uplink is not given away when the other NIC is taken", nil, []*resourceapi.ResourceClaim{claimFor("c", "", "nic"), claimFor("d", "", "nic")}, nil},
		{"three claims share the egress device", nil, []*resourceapi.ResourceClaim{claimFor("c", "", "egress"), claimFor("d", "", "egress"), claimFor("e", "", "egress")}, []string{EgressDevice, EgressDevice, EgressDevice}},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := allocate(t, Input{NodeName: node, Snapshot: machine, Taints: test.taints}, test.claims...)
			if !slices.Equal(got, test.want) {
				t.Errorf("allocated %v, want %v", got, test.want)
			}
		})
	}
}
