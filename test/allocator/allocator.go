// Package allocator runs the scheduler's own allocator over the slices that a
// node publishes: what a claim gets there is what it gets in a cluster. It
// remembers what it gave away, so that a test reads as a sequence of claims.
package allocator

import (
	"context"
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/dynamic-resource-allocation/cel"
	"k8s.io/dynamic-resource-allocation/resourceslice"
	"k8s.io/dynamic-resource-allocation/structured"
	"k8s.io/utils/ptr"
)

// DefaultFeatures are those that a scheduler of Kubernetes 1.37 has on by default.
var DefaultFeatures = structured.Features{
	AdminAccess: true, ConsumableCapacity: true, DeviceBindingAndStatus: true, DeviceTaints: true,
	PartitionableDevices: true, PrioritizedList: true,
}

// Features134 are those of Kubernetes 1.34, where devices cannot share counters.
var Features134 = structured.Features{AdminAccess: true, PrioritizedList: true}

// Config says what the scheduler sees.
type Config struct {
	// Driver publishes the resources.
	Driver   string
	NodeName string
	// Resources of the node.
	Resources resourceslice.DriverResources
	// Features of the scheduler. The zero value has none.
	Features structured.Features
	// Classes by name. A class that is missing is an error when a claim asks for it.
	Classes map[string]*resourceapi.DeviceClass
}

// TypeClasses are the classes of the Helm chart: one for each type of device,
// named after it.
func TypeClasses(driver string, types ...string) map[string]*resourceapi.DeviceClass {
	classes := map[string]*resourceapi.DeviceClass{}
	for _, name := range types {
		expression := fmt.Sprintf(`device.driver == %q && device.attributes[%q].type == %q`, driver, driver, name)
		classes[name] = &resourceapi.DeviceClass{
			ObjectMeta: metav1.ObjectMeta{Name: name},
			Spec:       resourceapi.DeviceClassSpec{Selectors: []resourceapi.DeviceSelector{{CEL: &resourceapi.CELDeviceSelector{Expression: expression}}}},
		}
	}
	return classes
}

// Scheduler gives the devices of one node away. It is not safe for concurrent use.
type Scheduler struct {
	cfg    Config
	slices []*resourceapi.ResourceSlice
	state  structured.AllocatedState
	cache  *cel.Cache
	node   *corev1.Node
}

// New returns a scheduler that has given nothing away yet.
func New(cfg Config) *Scheduler {
	return &Scheduler{
		cfg: cfg, slices: Slices(cfg.Driver, cfg.NodeName, cfg.Resources),
		cache: cel.NewCache(100, cel.Features{EnableConsumableCapacity: cfg.Features.ConsumableCapacity, EnableListTypeAttributes: cfg.Features.ListTypeAttributes}),
		node:  &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: cfg.NodeName}},
		state: structured.AllocatedState{
			AllocatedDevices: sets.New[structured.DeviceID](), AllocatedSharedDeviceIDs: sets.New[structured.SharedDeviceID](),
			AggregatedCapacity: structured.NewConsumedCapacityCollection(),
		},
	}
}

// Slices are the objects that the kubelet plugin library makes of resources,
// sorted by pool and index.
func Slices(driver, nodeName string, resources resourceslice.DriverResources) []*resourceapi.ResourceSlice {
	var published []*resourceapi.ResourceSlice
	for _, name := range slices.Sorted(maps.Keys(resources.Pools)) {
		pool := resources.Pools[name]
		for i, slice := range pool.Slices {
			published = append(published, &resourceapi.ResourceSlice{
				ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("%04d-%s", i, name)},
				Spec: resourceapi.ResourceSliceSpec{
					Driver: driver, NodeName: ptr.To(nodeName), Devices: slice.Devices, SharedCounters: slice.SharedCounters,
					Pool: resourceapi.ResourcePool{Name: name, Generation: 1, ResourceSliceCount: int64(len(pool.Slices))},
				},
			})
		}
	}
	return published
}

// Find returns what the claims would get, in their order, and nil if the node
// cannot satisfy all of them. It gives nothing away.
func (s *Scheduler) Find(ctx context.Context, claims ...*resourceapi.ResourceClaim) ([]resourceapi.AllocationResult, error) {
	allocator, err := structured.NewAllocator(ctx, s.cfg.Features, s.state, classLister(s.cfg.Classes), s.slices, s.cache)
	if err != nil {
		return nil, fmt.Errorf("make the scheduler's allocator: %w", err)
	}
	return allocator.Allocate(ctx, s.node, claims)
}

// Allocate gives away what Find finds and returns the names of the devices in
// the order of claims and requests, nil if the claims cannot be satisfied.
func (s *Scheduler) Allocate(ctx context.Context, claims ...*resourceapi.ResourceClaim) ([]string, error) {
	results, err := s.Find(ctx, claims...)
	var names []string
	for _, result := range results {
		for _, device := range result.Devices.Results {
			names = append(names, device.Device)
			id := structured.MakeDeviceID(device.Driver, device.Pool, device.Device)
			if device.ShareID == nil {
				s.state.AllocatedDevices.Insert(id)
			} else {
				s.state.AllocatedSharedDeviceIDs.Insert(structured.MakeSharedDeviceID(id, device.ShareID))
				s.state.AggregatedCapacity.Insert(structured.NewDeviceConsumedCapacity(id, device.ConsumedCapacity))
			}
		}
	}
	return names, err
}

// classLister implements structured.DeviceClassLister.
type classLister map[string]*resourceapi.DeviceClass

func (c classLister) List() ([]*resourceapi.DeviceClass, error) {
	return slices.Collect(maps.Values(c)), nil
}

func (c classLister) Get(name string) (*resourceapi.DeviceClass, error) {
	if class, ok := c[name]; ok {
		return class, nil
	}
	return nil, fmt.Errorf("there is no DeviceClass %q", name)
}
