// Package netattach is everything that happens in a pod's network namespace:
// claimed netdevs, or children of them, brought in and home (netattach/link), and their
// RDMA devices (netattach/rdma), CNI chains run for them (netattach/multus), egress scopes
// enforced (netattach/egress), all that in its order (netattach/attach), and the two
// doors through which a sandbox reaches it: the NRI hook (netattach/nri), and the gate
// behind it (netattach/gate), which lets no container start whose claims are not
// attached and locked.
//
// The driver decides; this package acts. Prepare writes an Intent per claim,
// complete and validated, with all slow work done. Attaching a sandbox to it
// takes milliseconds, unless there are CNI chains: these go on behind the hook, and
// the gate waits for them.
package netattach

import (
	"net/netip"
	"slices"

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

// DeviceIntent is one device on its way into a pod: a netdev, a child of one, or an RDMA
// device with or without a netdev.
type DeviceIntent struct {
	// Request, Pool and Device are the allocation result's.
	Request string `json:"request"`
	Pool    string `json:"pool"`
	Device  string `json:"device"`
	// PCI address of the function, for CNI plugins that want a device ID.
	PCI string `json:"pci"`
	// HostName is the netdev's name in the host's namespace, to which it returns; ""
	// for a device that has RDMA and no netdev.
	HostName string `json:"hostName"`
	// PodName is its name inside the pod.
	PodName string `json:"podName"`
	// HostMAC is the address with which the netdev leaves the host and comes home: a
	// VF's is the claim's, if that sets one. It finds the netdev again when its name got lost.
	HostMAC string `json:"hostMAC"`
	// UnclaimedMAC is the address that a VF's netdev had before the claim set one on the VF,
	// "" if it sets none: with it the netdev is left when the claim is over.
	UnclaimedMAC string `json:"unclaimedMAC,omitempty"`
	// PodIndex is its index in the pod, which a pod cannot change as it can name
	// and MAC. It is known once the netdev was moved in, 0 before.
	PodIndex int `json:"podIndex,omitempty"`
	// HostMTU, HostUp (administratively) and HostAddresses are the state that is
	// restored when it comes home. They are read when the netdev is moved in, not
	// when the claim is prepared: it may still be on its way home from another pod then.
	HostMTU       int            `json:"hostMTU,omitempty"`
	HostUp        bool           `json:"hostUp,omitempty"`
	HostAddresses []netip.Prefix `json:"hostAddresses,omitempty"`
	// HostState is what else is restored, nil before the netdev was moved in.
	HostState *HostState `json:"hostState,omitempty"`
	// ShareID of the allocation, where one NIC serves several claims.
	ShareID *types.UID `json:"shareID,omitempty"`
	// Child is what the pod gets instead of the netdev itself, nil if it gets that. With
	// a child HostName and PCI are the parent's, which stays as it is.
	Child *ChildIntent `json:"child,omitempty"`
	// External: Multus brings the netdev into the pod and home, under a name that only it knows.
	External bool `json:"external,omitempty"`
	// ResourceName by which Multus knows an external device.
	ResourceName string `json:"resourceName,omitempty"`
	// RDMA is the NIC's RDMA device, nil if the claim gets none.
	RDMA *RDMAIntent `json:"rdma,omitempty"`
	// HardwareAddress in the pod, "" to leave it.
	HardwareAddress string `json:"hardwareAddress,omitempty"`
	// Bandwidth in bits per second that the pod's side is limited to, 0 for no limit.
	Bandwidth uint64 `json:"bandwidth,omitempty"`
	// MTU in the pod, 0 to leave it.
	MTU        int            `json:"mtu,omitempty"`
	Addresses  []netip.Prefix `json:"addresses,omitempty"`
	Routes     []Route        `json:"routes,omitempty"`
	Rules      []Rule         `json:"rules,omitempty"`
	Neighbours []Neighbour    `json:"neighbours,omitempty"`
	VRF        *VRF           `json:"vrf,omitempty"`
	// Sysctls by their path below /proc/sys, with IFNAME for the interface: "net/ipv4/conf/IFNAME/arp_ignore".
	Sysctls map[string]string `json:"sysctls,omitempty"`
	// Features and PrivateFlags as ethtool names them.
	Features     map[string]bool `json:"features,omitempty"`
	PrivateFlags map[string]bool `json:"privateFlags,omitempty"`
	// Networks are CNI chains to run for the device once it is in the pod, or to bring it there.
	Networks []NetworkIntent `json:"networks,omitempty"`
}

// HasNetdev is false for an RDMA device without netdev (InfiniBand without IPoIB).
func (d *DeviceIntent) HasNetdev() bool { return d.HostName != "" }

// ServesEachPod: any number of pods can have the device, each a child of its own with
// addresses of its own.
func (d *DeviceIntent) ServesEachPod() bool {
	fixed := len(d.Addresses) > 0 || d.HardwareAddress != "" || slices.ContainsFunc(d.Networks, func(n NetworkIntent) bool { return len(n.IPs) > 0 || n.MAC != "" })
	return d.Child != nil && !fixed
}

// DeviceID by which CNI plugins know the device, a PCI address. A child has none, since
// its parent stays on the node, and plugins that are told an ID may take what has it.
func (d *DeviceIntent) DeviceID() string {
	if d.Child != nil {
		return ""
	}
	return d.PCI
}

// HostState is what a netdev had on the host besides name, MAC, MTU, addresses
// and being up.
type HostState struct {
	// Routes through the netdev that the kernel did not make itself.
	Routes []Route `json:"routes,omitempty"`
	// Neighbours are its permanent ones.
	Neighbours []Neighbour `json:"neighbours,omitempty"`
	// Sysctls of the netdev that differ from what the kernel gives a new one, as in DeviceIntent.
	Sysctls map[string]string `json:"sysctls,omitempty"`
	// Features and PrivateFlags that the claim changes, as they were.
	Features     map[string]bool `json:"features,omitempty"`
	PrivateFlags map[string]bool `json:"privateFlags,omitempty"`
	// TxQueueLength in packets.
	TxQueueLength int `json:"txQueueLength,omitempty"`
	// Alias as `ip link set alias` gave it, and AlternativeNames as `ip link property`.
	Alias            string   `json:"alias,omitempty"`
	AlternativeNames []string `json:"alternativeNames,omitempty"`
	// Group of links, 0 for the default one.
	Group uint32 `json:"group,omitempty"`
	// XDPProgram is the kernel's number of the XDP program on it, 0 for none.
	XDPProgram uint32 `json:"xdpProgram,omitempty"`
	// TCXPrograms are those of its programs on the way in and out.
	TCXPrograms []uint32 `json:"tcxPrograms,omitempty"`
	// Flags are those that ip-link(8) sets, as linux/if.h has them: IFF_PROMISC, IFF_ALLMULTI, IFF_NOARP, IFF_MULTICAST.
	Flags uint32 `json:"flags,omitempty"`
	// Addresses are DeviceIntent.HostAddresses with all that was said of them.
	Addresses []HostAddress `json:"addresses,omitempty"`
}

// HostAddress is an address of a netdev on the host.
type HostAddress struct {
	Prefix netip.Prefix `json:"prefix"`
	// Peer at the other end of a link of two, and Broadcast address, if there are any.
	Peer      netip.Prefix `json:"peer,omitzero"`
	Broadcast netip.Addr   `json:"broadcast,omitzero"`
	Label     string       `json:"label,omitempty"`
	// Scope is rtnetlink's (rtnetlink(7)), Flags those that a user sets (IFA_F_*).
	Scope int `json:"scope,omitempty"`
	Flags int `json:"flags,omitempty"`
	// Lifetimes that were left when the netdev was moved, nil for an address that stays.
	Lifetimes *Lifetimes `json:"lifetimes,omitempty"`
}

// Lifetimes of an address, in seconds; 4294967295 is forever.
type Lifetimes struct {
	ValidSeconds     uint32 `json:"validSeconds"`
	PreferredSeconds uint32 `json:"preferredSeconds"`
}

// ChildIntent is a virtual netdev on top of the claimed one.
type ChildIntent struct {
	// Kind is the kernel's word for it, "macvlan" or "ipvlan".
	Kind string `json:"kind"`
	// Mode of the kind: bridge, private, vepa; l2, l3, l3s.
	Mode string `json:"mode"`
	// ParentIndex is the claimed netdev's index on the host, by which its child is
	// recognised. It is known once the child is about to be made, 0 before.
	ParentIndex int `json:"parentIndex,omitempty"`
}

// RDMAIntent is an RDMA device on its way into a pod.
type RDMAIntent struct {
	// Device is its name, "mlx5_0".
	Device string `json:"device"`
	// Mode is what was asked for: Auto, Shared or Exclusive.
	Mode v1alpha1.RDMAMode `json:"mode"`
	// NodeGUID, "946d:ae03:0012:3456" or "" if it has none, and Index, which moves and
	// renames leave, find it again. The index is known once Moves is set.
	NodeGUID string `json:"nodeGUID,omitempty"`
	Index    uint32 `json:"index,omitempty"`
	// Moves says that it is moved into the pod's namespace. It is set when the attachment
	// begins, because the node may run RDMA otherwise than when the claim was prepared.
	Moves bool `json:"moves,omitempty"`
	// Fallback says why the pod cannot use it though it should, see RDMAState.
	Fallback string `json:"fallback,omitempty"`
}

// Route through the netdev.
type Route struct {
	Destination netip.Prefix `json:"destination"`
	Gateway     netip.Addr   `json:"gateway,omitzero"`
	OnLink      bool         `json:"onLink,omitempty"`
	Source      netip.Addr   `json:"source,omitzero"`
	// Link says that the scope is the link's; a route without a gateway has it unless Global is set.
	Link   bool `json:"link,omitempty"`
	Global bool `json:"global,omitempty"`
	// Table is 0 for the VRF's, or the main table where there is none.
	Table  uint32 `json:"table,omitempty"`
	Metric uint32 `json:"metric,omitempty"`
	// Protocol is who made it (rtnetlink(7)), 0 for the agent.
	Protocol int `json:"protocol,omitempty"`
}

// Rule of policy routing in the pod.
type Rule struct {
	Priority    uint32       `json:"priority"`
	Source      netip.Prefix `json:"source,omitzero"`
	Destination netip.Prefix `json:"destination,omitzero"`
	Table       uint32       `json:"table"`
}

// Neighbour is a permanent entry of the ARP or NDP table.
type Neighbour struct {
	Address         netip.Addr `json:"address"`
	HardwareAddress string     `json:"hardwareAddress"`
}

// VRF that the netdev is put into.
type VRF struct {
	Name  string `json:"name"`
	Table uint32 `json:"table"`
}

// NetworkIntent is a NetworkAttachmentDefinition, resolved.
type NetworkIntent struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	// Config is the CNI configuration list, device id included, as JSON.
	Config []byte `json:"config"`
	// Interface for what the chain makes, "" for the device's own name in the pod.
	Interface string `json:"interface,omitempty"`
	// IPs, MAC and DefaultRoute are as in the NICConfig.
	IPs          []netip.Prefix `json:"ips,omitempty"`
	MAC          string         `json:"mac,omitempty"`
	DefaultRoute []netip.Addr   `json:"defaultRoute,omitempty"`
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
