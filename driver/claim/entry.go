// Package claim prepares and unprepares resource claims on this node.
//
// Plan decides, purely: from a claim, a snapshot and the configs in the claim
// it derives an Entry, the complete record of what the claim gets. The Journal
// makes the entry durable before anything is done. The Runner then takes the
// entry's Steps, each of which can be done, verified and undone, and which are
// derived from the entry alone, so that after a kill -9 at any instruction
// whatever was begun can be completed or undone from the journal.
//
// Store and Ledger are what others read: the network intents of prepared
// claims, and who holds which device.
package claim

import (
	"slices"

	"k8s.io/apimachinery/pkg/types"

	"github.com/hostler-dev/hostler/driver/vfio"
	"github.com/hostler-dev/hostler/netattach"
	"github.com/hostler-dev/hostler/topology"
)

// Entry is the record of one claim that is prepared or being prepared, or of what
// is still to be removed after one. It is never modified once the journal has it; a change makes a new one.
type Entry struct {
	ClaimUID       types.UID `json:"claimUID"`
	ClaimNamespace string    `json:"claimNamespace"`
	ClaimName      string    `json:"claimName"`
	// PodClaimName is how the pod's spec calls a claim that was made from a template,
	// "" for any other. Agents that do not know it need not.
	PodClaimName string `json:"podClaimName,omitempty"`
	// BootID of the machine when the claim was prepared. Devices do not stay
	// configured, and CDI specs do not stay at all, across a reboot.
	BootID string `json:"bootID"`
	// Pods that the claim was reserved for.
	Pods    []netattach.PodReference `json:"pods,omitempty"`
	Devices []Device                 `json:"devices,omitempty"`
	// Egress is the scope of the claim's egress device, nil if it has none.
	Egress *netattach.EgressIntent `json:"egress,omitempty"`
	// Released: the claim is unprepared, and nobody holds anything by it any more.
	// Devices are the partitions that were made for it and could not be removed
	// because the driver did not work.
	Released bool `json:"released,omitempty"`
	// Ending says why the claim, which is over or was never prepared whole, could
	// not be undone when that was last tried; "" if it was not tried. Its devices are
	// nobody else's until it is undone, and not its own for more than that.
	Ending string `json:"ending,omitempty"`
	// Later: a later version of the agent prepared the claim, and this is what can be read of it.
	Later bool `json:"-"`
	// First is set on the copy from which the first attempt derives its steps.
	First bool `json:"-"`
}

// Device is one allocation result of ours, with what it needs.
type Device struct {
	// Request, Pool, Name, ShareID and AdminAccess are the allocation result's.
	Request     string     `json:"request"`
	Pool        string     `json:"pool"`
	Name        string     `json:"name"`
	ShareID     *types.UID `json:"shareID,omitempty"`
	AdminAccess bool       `json:"adminAccess,omitempty"`

	// GPU as it was when the claim was prepared, and the driver capabilities asked
	// for. Of a partition it is the GPU that the partition is part of.
	GPU          *topology.GPU `json:"gpu,omitempty"`
	Capabilities []string      `json:"capabilities,omitempty"`
	// Partition is set if the device is not the whole GPU.
	Partition *Partition `json:"partition,omitempty"`

	// NIC as it was when the claim was prepared: what slices go on saying
	// while a pod holds it. A pair has both a GPU and a NIC.
	NIC *topology.NIC `json:"nic,omitempty"`
	// RDMA says that containers get the NIC's RDMA device nodes.
	RDMA bool `json:"rdma,omitempty"`
	// Network is what pods get of the NIC: its netdev or a child of it, by the agent or by
	// Multus, CNI chains, and its RDMA device, also where that has no netdev. Nil if they
	// get nothing, or if the NIC is given to user space.
	Network *netattach.DeviceIntent `json:"network,omitempty"`
	// VF is what is set on the NIC, a VF, by way of its PF; nil if nothing is.
	VF *VFChange `json:"vf,omitempty"`
	// VFIO is set if the device's PCI functions are given to user space. Then
	// neither its driver's device nodes nor its netdev are. Of a pair it is either half
	// or, with another binding behind it, both. It has no group before admission.
	VFIO *vfio.Binding `json:"vfio,omitempty"`
}

// VFChange is what a claim sets on a VF and what it was before.
type VFChange struct {
	// PF is the PF's PCI address, Index the VF's number at it.
	PF    string `json:"pf"`
	Index int    `json:"index"`
	// Wanted has the settings that the claim asks for; those that are nil are left as they are.
	Wanted netattach.VFSettings `json:"wanted"`
	// Before has all settings as they were read right before the entry joined the
	// journal; unpreparing restores those that are in Wanted.
	Before netattach.VFSettings `json:"before"`
	// NetdevMAC is the address that the VF's netdev had then, "" if it had none. It
	// is restored if Wanted has a MAC.
	NetdevMAC string `json:"netdevMAC,omitempty"`
	// Asked is the part of Wanted that the claim itself asks for, rather than its
	// class; for admission.
	Asked netattach.VFSettings `json:"-"`
}

// Partition is a part of a GPU. What it is while it exists (its instance
// numbers, its UUID) is not recorded: it is read from the GPU when it is needed.
type Partition struct {
	// Profile is NVIDIA's name of it, "1g.10gb".
	Profile   string                `json:"profile"`
	ProfileID int                   `json:"profileID"`
	Placement topology.MIGPlacement `json:"placement"`
	// Static: it existed before the claim was prepared and outlives it. Any other
	// is made for the claim and removed with it.
	Static bool `json:"static,omitempty"`
}

// exclusive reports whether no other claim may hold the device.
func (d *Device) exclusive() bool { return !d.AdminAccess && (d.GPU != nil || d.NIC != nil) }

// overlaps reports whether the two devices have hardware in common, whatever
// they are called: the same GPU or parts of it that share a memory slice, the
// same NIC, or a PF and one of its VFs.
func (d *Device) overlaps(o *Device) bool {
	return d.sharesGPU(o) || d.sharesNIC(o) || d.sharesGroup(o)
}

func (d *Device) sharesGPU(o *Device) bool {
	if d.GPU == nil || o.GPU == nil || d.GPU.Placement.PCI != o.GPU.Placement.PCI {
		return false
	}
	return d.Partition == nil || o.Partition == nil || d.Partition.Placement.Overlaps(o.Partition.Placement)
}

func (d *Device) sharesNIC(o *Device) bool {
	if d.NIC == nil || o.NIC == nil {
		return false
	}
	if d.NIC.Name == o.NIC.Name {
		return !d.isBeside(o) || mixes(d.Network.Child, o.Network.Child)
	}
	// A PF of which there are children has its VFs for itself, too, as the counters in
	// its slice say: a VF can be set to see what its PF's children are sent.
	return d.NIC.Parent == o.NIC.Name || o.NIC.Parent == d.NIC.Name
}

// isBeside says that the two devices are different shares of one NIC, each by a
// child, so that neither takes the NIC from the other.
func (d *Device) isBeside(o *Device) bool {
	return d.isChild() && o.isChild() && d.NIC.Name == o.NIC.Name && d.share() != "" && o.share() != "" && d.share() != o.share()
}

func (d *Device) isChild() bool { return d.Network != nil && d.Network.Child != nil }

// Intent is what the claim wants in the network namespaces of its pods.
func (e *Entry) Intent() netattach.Intent {
	intent := netattach.Intent{
		ClaimUID:       e.ClaimUID,
		ClaimNamespace: e.ClaimNamespace,
		ClaimName:      e.ClaimName,
		Pods:           slices.Clone(e.Pods),
		RDMA:           e.usesRDMA(),
		Egress:         e.Egress,
	}
	for i := range e.Devices {
		network := e.Devices[i].Network
		if network == nil {
			continue
		}
		device := *network
		if vf := e.Devices[i].VF; vf != nil && vf.Wanted.MAC != nil {
			device.UnclaimedMAC = vf.NetdevMAC
		}
		intent.Devices = append(intent.Devices, device)
	}
	return intent
}

// usesRDMA reports whether the claim's containers can bypass the kernel's network stack.
func (e *Entry) usesRDMA() bool {
	return slices.ContainsFunc(e.Devices, func(d Device) bool { return d.RDMA || d.nicInUserSpace() })
}

// sharesPodWith reports whether some pod uses both claims. Pods use claims of their
// own namespace; that of another may be said to be reserved for the pod all the same.
func (e *Entry) sharesPodWith(other *Entry) bool {
	return e.ClaimNamespace == other.ClaimNamespace && slices.ContainsFunc(e.Pods, func(p netattach.PodReference) bool {
		return slices.ContainsFunc(other.Pods, func(q netattach.PodReference) bool { return p.UID == q.UID })
	})
}
