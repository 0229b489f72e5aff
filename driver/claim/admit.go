// Admission looks once more, right before a claim's entry joins the journal, at
// what a snapshot may be too old for and a mistake would do harm in: a NIC that the
// node has begun to live on since, who made a partition that is there, how a VF was
// before it is set up, and what is bound to a function that goes to user space. All
// are read afresh.

package claim

import (
	"context"
	"errors"
	"fmt"

	"github.com/hostler-dev/hostler/api/v1alpha1"
	"github.com/hostler-dev/hostler/driver/gpu"
	"github.com/hostler-dev/hostler/driver/vfio"
	"github.com/hostler-dev/hostler/netattach"
	"github.com/hostler-dev/hostler/topology"
)

// Admission has the last word on an entry.
type Admission struct {
	// Uplinks returns, by name, why the node lives on those of the NICs that it
	// lives on. Nil admits every NIC.
	Uplinks func(context.Context, []topology.NIC) (map[string]string, error)
	// Partitioner reads how GPUs are cut; nil admits no partition.
	Partitioner gpu.Partitioner
	// Partitions says whether partitions are made for claims.
	Partitions v1alpha1.PartitionOffer
	// VFs reads what PFs keep of their VFs; nil admits nothing that is set on one.
	VFs VFs
	// VFIO reads IOMMU groups; nil admits nothing to user space.
	VFIO *vfio.Bus
	// Settled reports whether what earlier claims left of the netdev of a PCI function is in
	// order, see attach.Attacher. Nil: it is.
	Settled func(ctx context.Context, pci string) (bool, error)
	// HostState returns a netdev with its state on the host as it is now. Nil: nobody
	// reads it, and what Multus takes comes home as the plan says it was.
	HostState func(netattach.DeviceIntent) (netattach.DeviceIntent, error)
	Journal   *Journal
	BootID    string
}

// Admit refuses the entry, or completes what it says of partitions.
func (a *Admission) Admit(ctx context.Context, entry *Entry) error {
	if err := a.checkUplinks(ctx, entry); err != nil {
		return err
	}
	for i := range entry.Devices {
		if device := &entry.Devices[i]; device.Partition != nil {
			if err := a.settle(ctx, device); err != nil {
				return fmt.Errorf("partition %s: %w", device.Name, err)
			}
		}
		if device := &entry.Devices[i]; device.VF != nil {
			if err := a.admitVF(ctx, entry, device); err != nil {
				return fmt.Errorf("VF %s: %w", nameOf(device, device.NIC.Name), err)
			}
		}
		if device := &entry.Devices[i]; device.Network != nil && device.Network.External && a.HostState != nil {
			if err := a.settled(ctx, device.NIC); err != nil {
				return fmt.Errorf("NIC %s: %w", device.Name, err)
			}
			// When the agent sees the netdev again, Multus has it in the pod.
			state, err := a.HostState(*device.Network)
			if err != nil {
				return fmt.Errorf("note how NIC %s is on the host: %w", device.Name, err)
			}
			if device.VF != nil && device.VF.Wanted.MAC != nil {
				state.HostMAC = device.Network.HostMAC // which the VF gets only after this
			}
			device.Network = &state
		}
		if device := &entry.Devices[i]; device.VFIO != nil {
			if err := a.admitToUserSpace(ctx, entry, device); err != nil {
				return err
			}
		}
	}
	return nil
}

func (a *Admission) checkUplinks(ctx context.Context, entry *Entry) error {
	var nics []topology.NIC
	for i := range entry.Devices {
		if nic := entry.Devices[i].NIC; nic != nil {
			nics = append(nics, *nic)
		}
	}
	if a.Uplinks == nil || len(nics) == 0 {
		return nil
	}
	uplinks, err := a.Uplinks(ctx, nics)
	if err != nil {
		return fmt.Errorf("look whether the node lives on one of the claim's NICs: %w; the kubelet tries again", err)
	}
	for i := range nics {
		if reason := uplinks[nics[i].Name]; reason != "" {
			return uplinkError(nics[i].Name, reason)
		}
	}
	return nil
}

func uplinkError(nic, reason string) error {
	return fmt.Errorf("NIC %s is the node's own: it %s; it is never given to a pod, whatever the claim tolerates; leave the toleration out of the request, or delete the pod to have another NIC allocated", nic, reason)
}

// settle finds out whose the partition is. The journal is asked before the GPU:
// a claim that lets go of a partition removes it first and leaves the journal
// then, so that what is there and not in the journal is the administrator's.
func (a *Admission) settle(ctx context.Context, device *Device) error {
	if a.Partitioner == nil {
		return errors.New("this agent runs without access to GPU partitions")
	}
	made := NewLedger(a.Journal).Made(a.BootID)[device.Name]
	partition := device.Partition
	there, err := a.Partitioner.Partition(ctx, device.GPU.Placement.PCI, partition.ProfileID, partition.Placement)
	if err != nil {
		return fmt.Errorf("look whether it exists: %w; the kubelet tries again", err)
	}
	partition.Static = device.AdminAccess || there != nil && !made
	switch {
	case there == nil && device.AdminAccess:
		return errors.New("it does not exist; admin access is for looking at what is there, and makes nothing")
	case there == nil && a.Partitions == v1alpha1.PartitionsExisting:
		return errOnlyExisting
	case there != nil && partition.Static && len(there.ComputeInstances) != 1:
		return fmt.Errorf("the administrator has cut it into %d compute instances; only one that is whole can be given to a pod", len(there.ComputeInstances))
	}
	return nil
}

var errOnlyExisting = errors.New("it does not exist, and this node offers only partitions that its administrator makes (publish.partitions is Existing); delete the pod to have another device allocated")
