// Package publish turns the machine into what the scheduler reads: a Snapshot,
// the taints that health derived, and the NICs as they were when pods took
// them, become the ResourceSlices of this node.
//
// It is a pure function. Order and grouping depend on PCI addresses alone, so
// an unchanged machine yields deeply equal slices and nothing is written; a
// taint on a device changes the slice that it shares with its parts and, of a VF in
// a pair, the pair's. Whatever two devices have in common (a GPU and its
// partitions, a PF and its VFs, a pair and its halves) is a counter that both take,
// so that the scheduler never gives it away twice. What an API server cannot
// express that way is not offered, and Shortfalls says so.
package publish

import (
	resourceapi "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/dynamic-resource-allocation/resourceslice"
	"k8s.io/utils/ptr"

	"github.com/hostler-dev/hostler/api/v1alpha1"
	"github.com/hostler-dev/hostler/topology"
)

// DriverName is the DRA driver's name on the wire.
const DriverName = "hostler.dev"

// EgressDevice is the one, virtual device of the egress pool. It stands for the
// node's ability to enforce an egress scope, of which there is no end: any
// number of claims can have it at the same time.
const EgressDevice = "egress"

const (
	// UplinkTaint keeps claims off the NICs that the node itself lives on. A claim
	// that tolerates it is still refused when it is prepared.
	UplinkTaint = DriverName + "/uplink"
	// AwayTaint keeps claims off NICs whose netdev somebody else has taken into
	// another network namespace.
	AwayTaint = DriverName + "/netdev-away"
	// MIGModeTaint keeps claims off the whole of a GPU in MIG mode, on which CUDA does not run.
	MIGModeTaint = DriverName + "/mig-mode"
)

// Taint is a verdict about a device, as health hands it over. That of a GPU also
// holds for its partitions, that of a GPU or NIC for pairs with it.
type Taint struct {
	Device, Key, Value string
	Effect             resourceapi.DeviceTaintEffect
	// TimeAdded is when the fault was first seen. The zero value leaves it to the API server.
	TimeAdded metav1.Time
}

// Features are the optional parts of the resource API that the API server has.
type Features struct {
	// Taints of devices (DRADeviceTaints).
	Taints bool
	// FewTaints: they are those of Kubernetes 1.34, at most four a device and
	// none with the effect None, where later releases take 16 with any effect.
	FewTaints bool
	// Counters shared by devices, in slices of their own (DRAPartitionableDevices as of Kubernetes 1.35).
	Counters bool
	// SharedDevices may be allocated more than once (DRAConsumableCapacity).
	SharedDevices bool
	// ListAttributes have several values (DRAListTypeAttributes).
	ListAttributes bool
}

// Use is a device in a claim's hands.
type Use struct {
	// Pool that it was allocated from; "" stands for the one in which it is published now.
	Pool string
	// GPU and NIC are the hardware that it is or is part of, by name: both of a pair.
	GPU, NIC string
	// Shared: the claim has a share of it, maybe all, and not the device for itself.
	Shared bool
}

func (u *Use) pair() bool { return u.GPU != "" && u.NIC != "" }

// Input is everything that slices are made of.
type Input struct {
	NodeName string
	// Features of the API server: what it lacks is left out of the slices, and
	// what would be unsafe without it is not offered.
	Features Features
	// Publish says in which form devices are offered, with defaults set.
	Publish v1alpha1.PublishConfig
	// Made are the partitions, by device name, that this agent has made for
	// claims or has just removed: they come and go with their claims and keep no other
	// placement from being offered.
	Made map[string]bool
	// InUse are the devices, by name, that claims hold now, other than by admin access.
	// Their entries stay, whatever else is withheld: the scheduler counts what an
	// allocated device takes only as long as it sees the device, in the pool that it
	// was allocated from.
	InUse map[string]Use
	// Snapshot may be nil before the first look at the machine: pools are then empty.
	Snapshot *topology.Snapshot
	Taints   []Taint
	// Held are the NICs that pods hold, by device name, as they were when they
	// were prepared, those in pairs too. In a pod's network namespace a netdev is out
	// of discovery's sight, but its slice entry must not change while it is allocated.
	Held map[string]topology.NIC
	// HeldGPUs are the GPUs that pods have in user space, by device name, as they were
	// when they were prepared. Their driver, and so the snapshot, does not list them,
	// or lists them no longer as what they are.
	HeldGPUs map[string]topology.GPU
}

// GPUPool, NICPool and EgressPool name the pools of a node. A pool per kind
// means that a fault of a GPU never rewrites a NIC's slice.
func GPUPool(node string) string    { return node + "/gpu" }
func NICPool(node string) string    { return node + "/nic" }
func EgressPool(node string) string { return node + "/egress" }

// DevicePool holds GPUs, NICs and pairs of them where pairs are offered: devices
// can only share counters within a pool.
func DevicePool(node string) string { return node + "/device" }

// Resources returns all that this node offers.
func Resources(in Input) resourceslice.DriverResources { return offer(in).resources() }

// Offer is Resources and Shortfalls of one input, worked out together.
func Offer(in Input) (resourceslice.DriverResources, []string) {
	o := offer(in)
	return o.resources(), o.shortfalls()
}

func (o *offering) resources() resourceslice.DriverResources {
	in := o.in
	pools := map[string]resourceslice.Pool{EgressPool(in.NodeName): egressPool(in.Features)}
	if in.Publish.CompositeDevices {
		shelves := append(append([]*shelf{o.whole}, o.cut...), o.virtualFunctions()...)
		pools[DevicePool(in.NodeName)] = pool([][]resourceapi.CounterSet{o.gpuSets, o.nicSets}, shelves)
	} else {
		pools[GPUPool(in.NodeName)] = pool([][]resourceapi.CounterSet{o.gpuSets}, append([]*shelf{o.whole}, o.cut...))
		pools[NICPool(in.NodeName)] = pool([][]resourceapi.CounterSet{o.nicSets}, append([]*shelf{o.physical}, o.virtualFunctions()...))
	}
	return resourceslice.DriverResources{Pools: pools}
}

// egressPool has a device for one claim at a time where the API server does not
// know devices that are shared.
func egressPool(features Features) resourceslice.Pool {
	device := resourceapi.Device{Name: EgressDevice, Attributes: egressAttributes()}
	if features.SharedDevices {
		device.AllowMultipleAllocations = ptr.To(true)
	}
	return resourceslice.Pool{Slices: []resourceslice.Slice{{Devices: []resourceapi.Device{device}}}}
}
