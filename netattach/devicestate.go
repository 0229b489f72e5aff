// What became of an intent: the name and addresses by which a pod knows a netdev, what
// CNI chains did for it, and whether the pod can use its RDMA device. A chain may have
// assigned addresses, so only the kernel knows; what else a chain did, only it can say.

package netattach

import (
	"net/netip"

	"k8s.io/apimachinery/pkg/types"
)

// DeviceState is a device in a pod as the kernel showed it when it had been attached.
type DeviceState struct {
	// Device is the allocation result's.
	Device string `json:"device"`
	// Pool, Request and ShareID are, too.
	Pool    string     `json:"pool,omitempty"`
	Request string     `json:"request,omitempty"`
	ShareID *types.UID `json:"shareID,omitempty"`
	// Interface is its netdev's name in the pod, MAC its hardware address there; "" for an
	// RDMA device without netdev.
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
	// Interfaces in the pod that the chain made or worked upon, that for which it was
	// run first.
	Interfaces []InterfaceState `json:"interfaces,omitempty"`
	// DNS of the network, nil if the chain says nothing of it.
	DNS *NetworkDNS `json:"dns,omitempty"`
	// Fault is what the chain's plugins found wrong when they were last asked (CNI's
	// CHECK), "" for nothing.
	Fault string `json:"fault,omitempty"`
}

// InterfaceState is an interface in a pod.
type InterfaceState struct {
	Name string `json:"name"`
	// Index by which the kernel tells it from a later one of the same name. It is 0 for
	// the claimed device itself, which DeviceIntent.PodIndex tells.
	Index int `json:"index,omitempty"`
	// MAC is its hardware address, "" if the chain names none, and Addresses those that
	// the chain has for it.
	MAC       string         `json:"mac,omitempty"`
	Addresses []netip.Prefix `json:"addresses,omitempty"`
}

// NetworkDNS is how names of a network are resolved. A pod's resolvers are what its
// dnsPolicy and dnsConfig say, which nobody can change any more by the time a chain is
// run, so this is only told.
type NetworkDNS struct {
	NameServers []string `json:"nameServers,omitempty"`
	Domain      string   `json:"domain,omitempty"`
	Search      []string `json:"search,omitempty"`
	Options     []string `json:"options,omitempty"`
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
