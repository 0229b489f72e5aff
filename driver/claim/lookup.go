// What a device's name stands for on this machine. Names are keys into the
// snapshot and are never parsed: what a pair consists of is found by building the
// names of pairs until one is the name in question. That also finds a pair
// that would be matched differently today than when it was allocated.

package claim

import (
	"strings"

	"github.com/hostler-dev/hostler/topology"
)

// parts are what a device consists of: a GPU or a partition of it, a NIC, or a
// GPU and a NIC.
type parts struct {
	gpu       *topology.GPU
	partition *topology.Partition
	nic       *topology.NIC
}

// lookup returns no parts if the machine has no device of that name. NICs in
// held are taken for what they were when a claim took them.
func lookup(snapshot *topology.Snapshot, held map[string]topology.NIC, name string) parts {
	if gpu := snapshot.GPU(name); gpu != nil {
		return parts{gpu: gpu}
	}
	if nic, ok := held[name]; ok {
		return parts{nic: &nic}
	}
	if nic := snapshot.NIC(name); nic != nil {
		return parts{nic: nic}
	}
	if gpu, partition := snapshot.Partition(name); gpu != nil {
		return parts{gpu: gpu, partition: partition}
	}
	return lookupPair(snapshot, held, name)
}

func lookupPair(snapshot *topology.Snapshot, held map[string]topology.NIC, name string) parts {
	for i := range snapshot.GPUs {
		gpu := &snapshot.GPUs[i]
		// Spares building the names of 2,000 NICs with each of 16 GPUs.
		if !strings.HasPrefix(name, topology.PairName(gpu.Placement.PCI, "")) {
			continue
		}
		for _, nic := range held {
			if topology.PairName(gpu.Placement.PCI, nic.Placement.PCI) == name {
				return parts{gpu: gpu, nic: &nic}
			}
		}
		for j := range snapshot.NICs {
			if nic := &snapshot.NICs[j]; topology.PairName(gpu.Placement.PCI, nic.Placement.PCI) == name {
				return parts{gpu: gpu, nic: nic}
			}
		}
	}
	return parts{}
}

// Parts returns the names of the GPU and the NIC that the device is or is part
// of: health knows these alone. It returns nil for a virtual device and for one that the machine does not have.
func Parts(snapshot *topology.Snapshot, held map[string]topology.NIC, name string) []string {
	var names []string
	found := lookup(snapshot, held, name)
	if found.gpu != nil {
		names = append(names, found.gpu.Name)
	}
	if found.nic != nil {
		names = append(names, found.nic.Name)
	}
	return names
}
