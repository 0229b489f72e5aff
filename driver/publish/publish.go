// Package publish turns the machine into what the scheduler reads: a Snapshot,
// the taints that health derived, and the NICs as they were when pods took
// them, become the ResourceSlices of this node.
//
// It is a pure function. Order and grouping depend on PCI addresses alone, so
// an unchanged machine yields deeply equal slices and nothing is written; a
// taint on a device changes the one slice that holds it.
package publish

import (
	"strings"

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

// UplinkTaint keeps claims off the NICs that the node itself lives on. A claim
// that tolerates it is still refused when it is prepared.
const UplinkTaint = DriverName + "/uplink"

// Taint is a verdict about a device, as health hands it over.
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
	// Counters shared by devices, in slices of their own (DRAPartitionableDevices as of Kubernetes 1.35).
	Counters bool
	// SharedDevices may be allocated more than once (DRAConsumableCapacity).
	SharedDevices bool
	// ListAttributes have several values (DRAListTypeAttributes).
	ListAttributes bool
}

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
	// Snapshot may be nil before the first look at the machine: pools are then empty.
	Snapshot *topology.Snapshot
	Taints   []Taint
	// Held are the NICs that pods hold, by device name, as they were when they
	// were prepared. In a pod's network namespace a netdev is out of
	// discovery's sight, but its slice entry must not change while it is allocated.
	Held map[string]topology.NIC
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
func Resources(in Input) resourceslice.DriverResources {
	snapshot := in.Snapshot
	if snapshot == nil {
		snapshot = &topology.Snapshot{}
	}
	taints := taintsByDevice(in.Taints)
	return resourceslice.DriverResources{Pools: map[string]resourceslice.Pool{
		GPUPool(in.NodeName):    gpuPool(snapshot, taints),
		NICPool(in.NodeName):    nicPool(snapshot, in.Held, taints),
		EgressPool(in.NodeName): egressPool(),
	}}
}

func gpuPool(snapshot *topology.Snapshot, taints map[string][]resourceapi.DeviceTaint) resourceslice.Pool {
	wiring := wiringOf(snapshot)
	devices := make([]resourceapi.Device, 0, len(snapshot.GPUs))
	for i := range snapshot.GPUs {
		gpu := &snapshot.GPUs[i]
		devices = append(devices, resourceapi.Device{
			Name:       gpu.Name,
			Attributes: gpuAttributes(gpu, &snapshot.Driver, wiring),
			Capacity:   gpuCapacity(gpu),
			Taints:     taints[gpu.Name],
		})
	}
	return pool(devices)
}

func nicPool(snapshot *topology.Snapshot, held map[string]topology.NIC, taints map[string][]resourceapi.DeviceTaint) resourceslice.Pool {
	complete := *snapshot
	complete.NICs = withHeld(snapshot.NICs, held)
	wiring := wiringOf(&complete)
	var physical []resourceapi.Device
	var parents []string
	virtual := map[string][]resourceapi.Device{}
	for _, nic := range complete.NICs {
		device := resourceapi.Device{
			Name:       nic.Name,
			Attributes: nicAttributes(&nic, wiring),
			Capacity:   nicCapacity(&nic),
			Taints:     nicTaints(&nic, taints[nic.Name]),
		}
		if nic.Kind != topology.VF {
			physical = append(physical, device)
			continue
		}
		if _, known := virtual[nic.Parent]; !known {
			parents = append(parents, nic.Parent)
		}
		virtual[nic.Parent] = append(virtual[nic.Parent], device)
	}
	// VFs come and go, and fail, with their PF: each PF's VFs have slices of
	// their own, so that a change of their number rearranges nobody else's.
	groups := [][]resourceapi.Device{physical}
	for _, parent := range parents {
		groups = append(groups, virtual[parent])
	}
	return pool(groups...)
}

func egressPool() resourceslice.Pool {
	return pool([]resourceapi.Device{{
		Name:                     EgressDevice,
		Attributes:               attributes{}.text("type", "egress"),
		AllowMultipleAllocations: ptr.To(true),
	}})
}

// pool cuts each group into slices. Every slice stays within the limit that
// the API sets for slices with taints or counters, whether it has any today or
// not: otherwise the first taint would push devices, allocated ones among
// them, from one slice into another. A pool without devices has one empty
// slice, which says that the driver is there and found none.
func pool(groups ...[]resourceapi.Device) resourceslice.Pool {
	var out resourceslice.Pool
	for _, devices := range groups {
		for len(devices) > 0 {
			n := min(len(devices), resourceapi.ResourceSliceMaxDevicesWithAdvancedFeatures)
			out.Slices = append(out.Slices, resourceslice.Slice{Devices: devices[:n:n]})
			devices = devices[n:]
		}
	}
	if len(out.Slices) == 0 {
		out.Slices = []resourceslice.Slice{{}}
	}
	return out
}

// withHeld returns the NICs in PCI order, each that a pod holds as it was when
// the pod took it.
func withHeld(nics []topology.NIC, held map[string]topology.NIC) []topology.NIC {
	out := make([]topology.NIC, 0, len(nics)+len(held))
	seen := make(map[string]bool, len(nics))
	for _, nic := range nics {
		seen[nic.Name] = true
		if taken, ok := held[nic.Name]; ok {
			nic = taken
		}
		out = append(out, nic)
	}
	for name, nic := range held {
		if !seen[name] {
			out = append(out, nic)
		}
	}
	sortByPCI(out)
	return out
}

// nicTaints adds the uplink's taint to those of health.
func nicTaints(nic *topology.NIC, taints []resourceapi.DeviceTaint) []resourceapi.DeviceTaint {
	if nic.Uplink == "" {
		return taints
	}
	uplink := resourceapi.DeviceTaint{Key: UplinkTaint, Value: labelValue(nic.Uplink), Effect: resourceapi.DeviceTaintEffectNoSchedule}
	// The API allows 16 taints a device; the uplink's is the one that must not fall off the end.
	out := append([]resourceapi.DeviceTaint{uplink}, taints...)
	return out[:min(len(out), resourceapi.DeviceTaintsMaxLength)]
}

// labelValue makes a sentence fit where the API wants a label value: letters,
// digits, '-', '_' and '.', at most 63, with a letter or digit at both ends.
func labelValue(s string) string {
	mapped := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '.', r == '_', r == '-':
			return r
		}
		return '-'
	}, s)
	if len(mapped) > 63 {
		mapped = mapped[:63]
	}
	return strings.Trim(mapped, "-_.")
}
