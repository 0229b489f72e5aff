// Package netattach is everything that happens in a pod's network namespace:
// claimed netdevs moved in and brought home (netattach/link), CNI chains run
// for them (netattach/multus), egress scopes enforced (netattach/egress), and
// the two doors through which a sandbox reaches all that: the NRI hook
// (netattach/nri), and the gate behind it (netattach/gate), which lets no
// container start whose claims are not attached and locked.
//
// The driver decides; this package acts. Prepare writes an Intent per claim,
// complete and validated, with all slow work done. Attaching a sandbox to it
// is netlink only and takes milliseconds.
package netattach

import (
	"net/netip"

	"k8s.io/apimachinery/pkg/types"

	"github.com/hostler-dev/hostler/api/v1alpha1"
)

// Intent is what one claim wants done in the network namespace of each pod
// that uses it. It is a plain value: the driver's journal stores it as JSON.
type Intent struct {
	ClaimUID       types.UID `json:"claimUID"`
	ClaimNamespace string    `json:"claimNamespace"`
	ClaimName      string    `json:"claimName"`
	// Pods that the claim was reserved for when it was prepared.
	Pods []PodReference `json:"pods,omitempty"`
	// Devices to move in, in claim order.
	Devices []DeviceIntent `json:"devices,omitempty"`
	// RDMA says that containers of the claim get RDMA devices, whose verbs bypass
	// egress scopes.
	RDMA bool `json:"rdma,omitempty"`
	// Egress is the scope to enforce, nil if the claim has none.
	Egress *EgressIntent `json:"egress,omitempty"`
}

// PodReference identifies a pod.
type PodReference struct {
	UID       types.UID `json:"uid"`
	Namespace string    `json:"namespace,omitempty"`
	Name      string    `json:"name,omitempty"`
}

// DeviceIntent is one netdev on its way into a pod.
type DeviceIntent struct {
	// Request, Pool and Device are the allocation result's.
	Request string `json:"request"`
	Pool    string `json:"pool"`
	Device  string `json:"device"`
	// PCI address of the function, for CNI plugins that want a device ID.
	PCI string `json:"pci"`
	// HostName is the netdev's name in the host's namespace, to which it returns.
	HostName string `json:"hostName"`
	// PodName is its name inside the pod.
	PodName string `json:"podName"`
	// HostMAC is the address with which the netdev leaves the host and comes home: a
	// VF's is the claim's, if that sets one. It finds the netdev again when its name got lost.
	HostMAC string `json:"hostMAC"`
	// PodIndex is its index in the pod, which a pod cannot change as it can name
	// and MAC. It is known once the netdev was moved in, 0 before.
	PodIndex int `json:"podIndex,omitempty"`
	// HostMTU, HostUp (administratively) and HostAddresses are the state that is
	// restored when it comes home. They are read when the netdev is moved in, not
	// when the claim is prepared: it may still be on its way home from another pod then.
	HostMTU       int            `json:"hostMTU,omitempty"`
	HostUp        bool           `json:"hostUp,omitempty"`
	HostAddresses []netip.Prefix `json:"hostAddresses,omitempty"`
	// MTU in the pod, 0 to leave it.
	MTU       int            `json:"mtu,omitempty"`
	Addresses []netip.Prefix `json:"addresses,omitempty"`
	Routes    []Route        `json:"routes,omitempty"`
	// Networks are CNI chains to run for the device once it is in the pod.
	Networks []NetworkIntent `json:"networks,omitempty"`
}

// Route in the pod's main table.
type Route struct {
	Destination netip.Prefix `json:"destination"`
	Gateway     netip.Addr   `json:"gateway,omitzero"`
}

// NetworkIntent is a NetworkAttachmentDefinition, resolved.
type NetworkIntent struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	// Config is the CNI configuration list, device id included, as JSON.
	Config []byte `json:"config"`
}

// EgressIntent is a scope on its way into a pod.
type EgressIntent struct {
	// Config is defaulted and valid; class ceiling and claim are merged already.
	Config v1alpha1.EgressConfig `json:"config"`
	// Resolvers are the addresses that port 53 may go to under DNS mode ClusterResolver.
	Resolvers []netip.Addr `json:"resolvers,omitempty"`
	// NodeAddresses are those by which the cluster knows the pod's node. The scope
	// denies them, whatever it allows; a resolver may be among them.
	NodeAddresses []netip.Addr `json:"nodeAddresses,omitempty"`
}
