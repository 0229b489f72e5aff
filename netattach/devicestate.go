// What became of an intent: the name and addresses by which a pod knows a netdev.
// A CNI chain may have assigned them, so only the kernel knows.

package netattach

import (
	"net/netip"

	"k8s.io/apimachinery/pkg/types"
)

// DeviceState is a netdev in a pod as the kernel showed it when it had been attached.
type DeviceState struct {
	// Device is the allocation result's.
	Device string `json:"device"`
	// Pool, Request and ShareID are, too.
	Pool    string     `json:"pool,omitempty"`
	Request string     `json:"request,omitempty"`
	ShareID *types.UID `json:"shareID,omitempty"`
	// Interface is its name in the pod, MAC its hardware address there.
	Interface string `json:"interface"`
	MAC       string `json:"mac,omitempty"`
	// Addresses without the link-local ones, which the kernel makes itself.
	Addresses []netip.Prefix `json:"addresses,omitempty"`
	// RDMA is what became of the RDMA device, nil if none was asked for.
	RDMA *RDMAState `json:"rdma,omitempty"`
	// Networks are the results of the device's CNI chains, in the order in which they were run.
	Networks []NetworkState `json:"networks,omitempty"`
}

// NetworkState is what a CNI chain says that it did.
type NetworkState struct {
	// Namespace and Name of the NetworkAttachmentDefinition.
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	// Interface in the pod that the chain made or found, MAC its hardware address
	// and Addresses those that the chain has for it.
	Interface string         `json:"interface"`
	MAC       string         `json:"mac,omitempty"`
	Addresses []netip.Prefix `json:"addresses,omitempty"`
	// NameServers of the network. A pod's resolvers are what its dnsPolicy and
	// dnsConfig say, which nobody can change any more by then, so these are only told.
	NameServers []string `json:"nameServers,omitempty"`
}

// RDMAState says how a pod has an RDMA device.
type RDMAState struct {
	// Device is its name.
	Device string `json:"device"`
	// Exclusive: it is in the pod's namespace and in no other.
	Exclusive bool `json:"exclusive,omitempty"`
	// Fallback says why the pod cannot use it, "" if it can. A claim with "rdma: Auto"
	// is attached without it then; the two other modes refuse the pod.
	Fallback string `json:"fallback,omitempty"`
}
