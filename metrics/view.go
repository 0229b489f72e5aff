// A View is everything that one page shows, gathered at one moment: plain
// values, no lock, no call. Rendering is a function of it.

package metrics

import (
	"time"

	"github.com/hostler-dev/hostler/topology"
	"github.com/hostler-dev/hostler/topology/nvml"
)

// View is the content of one page.
type View struct {
	Now      time.Time
	Snapshot *topology.Snapshot
	GPUs     []GPUView
	// Partitions are those that exist.
	Partitions []PartitionView
	NICs       []NICView
	Holders    []Holder
	Containers Containers
	Faults     []Fault
}

// GPUView is a GPU with its newest sample, nil while there is none or once it
// is stale.
type GPUView struct {
	Device topology.GPU
	Sample *nvml.Sample
	sampleState
}

// PartitionView is a partition of a GPU, which is not measured by itself.
type PartitionView struct {
	Name, Profile string
	// UUID of the MIG device, "" if it is cut into several compute instances or none.
	UUID string
	// Model as the driver's own tools word it, "NVIDIA A100-SXM4-40GB MIG 1g.5gb".
	Model string
	// GPU is its name; Placement is the GPU's.
	GPU       string
	Placement topology.Placement
}

// partitionsOf lists a snapshot's partitions that exist. What it returns is made
// once for each snapshot, not for each page.
func partitionsOf(s *topology.Snapshot) []PartitionView {
	var views []PartitionView
	for i := range s.GPUs {
		gpu := &s.GPUs[i]
		for _, p := range topology.Partitions(gpu) {
			if p.Instance != nil {
				views = append(views, PartitionView{
					Name: p.Name, Profile: p.Profile.Name, UUID: p.UUID(), Model: gpu.ProductName + " MIG " + p.Profile.Name,
					GPU: gpu.Name, Placement: gpu.Placement,
				})
			}
		}
	}
	return views
}

// NICView is a NIC with its newest reading, nil like a GPU's sample.
type NICView struct {
	Device  topology.NIC
	Reading *NICReading
	sampleState
}

// sampleState is what is known about the measuring itself.
type sampleState struct {
	// SampledAt is the time of the newest sample, or of the first attempt
	// while there is none.
	SampledAt time.Time
	Errors    uint64
}

// NICReading is one reading of a NIC. What could not be read is nil.
type NICReading struct {
	// Link is nil while the netdev is not in the host's network namespace.
	Link  *LinkReading
	Ports []PortReading
}

// LinkReading is one reading of a netdev.
type LinkReading struct {
	Up                                  bool
	ReceivedBytes, TransmittedBytes     float64
	ReceivedPackets, TransmittedPackets float64
}

// PortReading is one reading of an RDMA port.
type PortReading struct {
	RDMADevice string
	Port       int
	// State as sysfs words it, "ACTIVE"; "" if it could not be read.
	State                           string
	ReceivedBytes, TransmittedBytes *float64
	LinkDowned                      *float64
}

// Pod is a pod that uses a device.
type Pod struct{ UID, Namespace, Name string }

// Holder is one device of one prepared claim, as the driver's ledger has it.
type Holder struct {
	Device, Pool, Request string
	// GPU and NIC are the hardware that the device is or is part of, by name: a
	// partition's GPU, both of a pair. "" for what it has not.
	GPU, NIC                            string
	ClaimUID, ClaimNamespace, ClaimName string
	Pods                                []Pod
	// AdminAccess holders look on; they do not use the device.
	AdminAccess bool
}

// devices are the names under which what it holds is measured or listed: those of
// both halves of a pair, and else the device's own.
func (h *Holder) devices() [2]string {
	if h.GPU != "" && h.NIC != "" {
		return [2]string{h.GPU, h.NIC}
	}
	return [2]string{h.Device}
}

// Fault is a standing verdict of the health engine.
type Fault struct {
	Device, Family, Reason string
	// Severity from 1 (information) to 4 (fatal).
	Severity int
}
