// Package gpu holds the steps that claims need on GPUs themselves. So far that
// is one: a partition (a MIG device) that does not exist yet is made when a claim
// for it is prepared, and removed when the claim is done.
//
// Who made a partition is known from the journal alone. NVML cannot tell, and
// what somebody else made is used as it is and never removed.
package gpu

import (
	"context"

	"github.com/hostler-dev/hostler/topology"
)

// Partitioner cuts GPUs, and reads how they are cut, afresh: a snapshot is too
// old for that by up to one poll. GPUs are named by PCI address. nvml.Source is one.
type Partitioner interface {
	// Partition returns the GPU instance of that profile at exactly that
	// placement, nil if there is none.
	Partition(ctx context.Context, pci string, profileID int, place topology.MIGPlacement) (*topology.MIGInstance, error)
	// CreatePartition makes a GPU instance with one compute instance that spans it.
	// Errors match topology.ErrNothingMade if no part of it is there for certain.
	CreatePartition(ctx context.Context, pci string, profileID int, place topology.MIGPlacement) (topology.MIGInstance, error)
	// DestroyPartition removes a GPU instance and its compute instances. One that
	// is gone already is no error.
	DestroyPartition(ctx context.Context, pci string, gpuInstance int) error
}
