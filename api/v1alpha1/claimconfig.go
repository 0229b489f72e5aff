package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// GPUMode says by what a pod uses its GPU.
type GPUMode string

const (
	// GPUModeDriver gives the pod the driver's libraries and device nodes.
	GPUModeDriver GPUMode = "driver"
	// GPUModeVFIO takes the GPU from its driver and gives it to user space: a
	// virtual machine in the pod.
	GPUModeVFIO GPUMode = "vfio"
)

// GPUConfig configures GPU requests (class gpu.hostler.dev).
//
// +k8s:deepcopy-gen:interfaces=k8s.io/apimachinery/pkg/runtime.Object
type GPUConfig struct {
	metav1.TypeMeta `json:",inline"`

	// Mode says by what the pod uses the GPU: driver by the node's driver, vfio by
	// a driver of its own, in a virtual machine, as a PCI device bound to vfio-pci. Default: driver.
	Mode GPUMode `json:"mode,omitempty"`
	// DriverCapabilities are the parts of the driver that a container sees, as
	// in NVIDIA_DRIVER_CAPABILITIES: compute, utility, graphics, video,
	// display, ngx, compat32. Not with mode vfio. Default: compute and utility.
	DriverCapabilities []string `json:"driverCapabilities,omitempty"`
}

// RDMAMode says what a pod gets of its NIC's RDMA device.
type RDMAMode string

const (
	// RDMAAuto injects the device's character devices if the NIC has an RDMA device and
	// the pod gets all of it.
	RDMAAuto RDMAMode = "Auto"
	// RDMAShared is Auto for a NIC that must have an RDMA device, which stays in the
	// node's namespace, where the kernel lets every pod with the nodes use it.
	RDMAShared RDMAMode = "Shared"
	// RDMAExclusive also moves the RDMA device into the pod's network namespace.
	RDMAExclusive RDMAMode = "Exclusive"
	// RDMANone injects none.
	RDMANone RDMAMode = "None"
)

// NICMode says by what a pod uses its NIC.
type NICMode string

const (
	// NICModeNetdev moves the netdev into the pod.
	NICModeNetdev NICMode = "netdev"
	// NICModeMacvlan gives the pod a child of the netdev with a hardware address of
	// its own; the NIC stays on the node and can have children in other pods.
	NICModeMacvlan NICMode = "macvlan"
	// NICModeIPVLAN gives the pod a child of the netdev that has its hardware address.
	NICModeIPVLAN NICMode = "ipvlan"
	// NICModeVFIO takes the NIC from its driver and gives it to user space: a
	// virtual machine in the pod, or a program such as one with DPDK.
	NICModeVFIO NICMode = "vfio"
)

// NICConfig configures NIC requests (class nic.hostler.dev).
//
// +k8s:deepcopy-gen:interfaces=k8s.io/apimachinery/pkg/runtime.Object
type NICConfig struct {
	metav1.TypeMeta `json:",inline"`

	// Mode says by what the pod uses the NIC: netdev by its network interface, macvlan
	// and ipvlan by a child of that, which leaves the NIC on the node for children of
	// other pods, vfio by a driver of its own, as a PCI device bound to vfio-pci. With
	// vfio there is no interface to configure and no RDMA device. Default: netdev.
	Mode NICMode `json:"mode,omitempty"`
	// Attach says who brings the interface into the pod: Hostler, or Multus, for
	// which the pod has to name its network in an annotation. With Multus, that network says
	// what the interface is like, and of all fields only rdma and vf can be set here. Default: Hostler.
	Attach NICAttacher `json:"attach,omitempty"`
	// Macvlan configures mode macvlan.
	Macvlan *MacvlanConfig `json:"macvlan,omitempty"`
	// IPVLAN configures mode ipvlan.
	IPVLAN *IPVLANConfig `json:"ipvlan,omitempty"`
	// InterfaceName inside the pod, 1 to 15 characters, and none that names the
	// plumbing of a host (bond0, br-…, docker0, cni0, dummy0, flannel.1 and the like). A request
	// for several NICs cannot set it. Default: the name that the netdev has on the host, or,
	// where no pod can have that, nic and the digits of its PCI address.
	InterfaceName string `json:"interfaceName,omitempty"`
	// HardwareAddress of the interface in the pod, a unicast one of 48 bits,
	// "02:00:5e:10:00:01". Not with mode ipvlan. A claim can choose a locally administered one
	// (02:…, 06:…, 0a:… and the like) for a macvlan child whose class sets none; anything else only a DeviceClass.
	// Default: unchanged, and of a child random.
	HardwareAddress string `json:"hardwareAddress,omitempty"`
	// Addresses with prefix length, "10.1.0.5/24" or "2001:db8::5/64"; of these, and of
	// routes, rules, neighbours and sysctls, at most 64 each.
	Addresses []string `json:"addresses,omitempty"`
	// Routes through this interface.
	Routes []Route `json:"routes,omitempty"`
	// Rules of policy routing, which say what is looked up in which table.
	Rules []RoutingRule `json:"rules,omitempty"`
	// Neighbours are permanent entries of the interface's ARP or NDP table.
	Neighbours []Neighbour `json:"neighbours,omitempty"`
	// MTU in bytes, 68 to 65535. Default: unchanged.
	MTU *int32 `json:"mtu,omitempty"`
	// VRF puts the interface into a VRF, which is made in the pod if it is not there.
	VRF *VRFConfig `json:"vrf,omitempty"`
	// Sysctls of the interface, set before it is up. Names are as the CNI plugin
	// tuning takes them, with IFNAME where the interface's name stands:
	// "net.ipv4.conf.IFNAME.arp_announce". Only those under net.ipv4.conf.IFNAME, net.ipv6.conf.IFNAME,
	// net.ipv4.neigh.IFNAME and net.ipv6.neigh.IFNAME; and only in a DeviceClass those that have the pod pass
	// packets on or answer for others: forwarding, proxy_arp, proxy_ndp and the like.
	Sysctls map[string]string `json:"sysctls,omitempty"`
	// Ethtool switches features of the interface.
	Ethtool *EthtoolConfig `json:"ethtool,omitempty"`
	// RDMA says what the pod gets of the NIC's RDMA device: Auto its character
	// devices, if the NIC has one, moved into the pod's namespace where the node runs RDMA
	// exclusively; Shared them and no move; Exclusive the move, or no pod; None nothing. With macvlan and
	// ipvlan Auto is None, and Shared, which gives a pod verbs that know neither its child nor its
	// bandwidth, only a DeviceClass can set. Default: Auto.
	RDMA RDMAMode `json:"rdma,omitempty"`
	// Networks are NetworkAttachmentDefinitions whose CNI chains are run for
	// the device after it has been moved into the pod, in this order. At most eight;
	// no two of them name the same interface.
	Networks []NetworkReference `json:"networks,omitempty"`
	// VF is set on the NIC, an SR-IOV VF, by way of its PF while the claim is
	// prepared; what was before is restored after it.
	VF *VFConfig `json:"vf,omitempty"`
}

// NICAttacher says who brings an interface into its pod.
type NICAttacher string

const (
	// AttachHostler is the agent itself.
	AttachHostler NICAttacher = "Hostler"
	// AttachMultus is Multus, which finds the device by the claim.
	AttachMultus NICAttacher = "Multus"
)

// MacvlanMode says which of a NIC's children see each other.
type MacvlanMode string

const (
	// MacvlanBridge lets children talk to each other directly.
	MacvlanBridge MacvlanMode = "bridge"
	// MacvlanPrivate lets them not talk to each other.
	MacvlanPrivate MacvlanMode = "private"
	// MacvlanVEPA sends what they say to each other over the wire and back.
	MacvlanVEPA MacvlanMode = "vepa"
)

// MacvlanConfig configures a macvlan child.
type MacvlanConfig struct {
	// Mode is bridge, private or vepa. Default: bridge.
	Mode MacvlanMode `json:"mode,omitempty"`
}

// IPVLANMode says at which layer children are told apart.
type IPVLANMode string

const (
	// IPVLANL2 switches.
	IPVLANL2 IPVLANMode = "l2"
	// IPVLANL3 routes in the node's namespace.
	IPVLANL3 IPVLANMode = "l3"
	// IPVLANL3S routes there through netfilter, too.
	IPVLANL3S IPVLANMode = "l3s"
)

// IPVLANConfig configures an ipvlan child.
type IPVLANConfig struct {
	// Mode is l2, l3 or l3s. A NIC's children all have the same. Default: l2.
	Mode IPVLANMode `json:"mode,omitempty"`
}

// VRFConfig is a domain of routing of its own in the pod.
type VRFConfig struct {
	// Name of the VRF's interface, by the rules of interfaceName. Required, but a claim
	// may leave it to its class.
	Name string `json:"name,omitempty"`
	// Table of its routes, 1 to 4294967295, but for 253 to 255, which are the kernel's.
	// Routes of the interface that name none are in it. Required like name.
	Table uint32 `json:"table,omitempty"`
}

// EthtoolConfig is what ethtool(8) switches.
type EthtoolConfig struct {
	// Features by the names that `ethtool --show-features` prints, "tx-checksum-ipv4".
	Features map[string]bool `json:"features,omitempty"`
	// PrivateFlags by the names that `ethtool --show-priv-flags` prints. Only in a DeviceClass,
	// because some are the card's or its port's; not with macvlan and ipvlan.
	PrivateFlags map[string]bool `json:"privateFlags,omitempty"`
}

// VFLinkState says what link a VF sees.
type VFLinkState string

const (
	// VFLinkAuto shows the VF the PF's link.
	VFLinkAuto VFLinkState = "Auto"
	// VFLinkEnable lets VFs of a PF talk to each other when that has no link.
	VFLinkEnable VFLinkState = "Enable"
	// VFLinkDisable cuts the VF off.
	VFLinkDisable VFLinkState = "Disable"
)

// VFConfig is what a PF keeps of one of its VFs. What is not set is left as it is.
type VFConfig struct {
	// MAC is the VF's hardware address, a unicast one of 48 bits,
	// "02:00:5e:10:00:01". Its netdev gets it too. Only in a DeviceClass.
	MAC *string `json:"mac,omitempty"`
	// VLAN that the PF puts the VF's frames into, 1 to 4094, or 0 for none. Only in a DeviceClass.
	VLAN *int32 `json:"vlan,omitempty"`
	// VLANQoS is the priority in that VLAN's tag, 0 to 7; needs a vlan from 1 on.
	// Only in a DeviceClass. Default: 0 if vlan is set.
	VLANQoS *int32 `json:"vlanQoS,omitempty"`
	// SpoofCheck drops what the VF sends under an address that is not its own. Only in a DeviceClass.
	SpoofCheck *bool `json:"spoofCheck,omitempty"`
	// Trust lets the VF see all traffic and choose its own address. Only in a DeviceClass.
	Trust *bool `json:"trust,omitempty"`
	// MinTxRate is what the VF can send at least, in Mbit/s, at the cost of
	// the others; 0 guarantees nothing. Only in a DeviceClass.
	MinTxRate *int32 `json:"minTxRate,omitempty"`
	// MaxTxRate is what the VF can send at most, in Mbit/s; 0 is no limit. A claim
	// can lower the limit that a VF has, and not raise it.
	MaxTxRate *int32 `json:"maxTxRate,omitempty"`
	// LinkState is the link that the VF sees: Auto the PF's, Enable one that is
	// always up, Disable none. A claim cannot connect a VF that has none.
	LinkState VFLinkState `json:"linkState,omitempty"`
}

// RouteScope says how far a route's destination is.
type RouteScope string

const (
	// RouteScopeGlobal is behind a gateway.
	RouteScopeGlobal RouteScope = "Global"
	// RouteScopeLink is on the interface's own link.
	RouteScopeLink RouteScope = "Link"
)

// Route is one route through the interface.
type Route struct {
	// Destination prefix, "0.0.0.0/0" for the default route.
	Destination string `json:"destination"`
	// Gateway address; empty for a directly connected prefix.
	Gateway string `json:"gateway,omitempty"`
	// OnLink reaches the gateway through the interface though no address's prefix has it.
	OnLink bool `json:"onLink,omitempty"`
	// Source address that the pod's own packets get on this route.
	Source string `json:"source,omitempty"`
	// Scope of the destination: Global or Link. Default: Link without a gateway, else Global.
	Scope RouteScope `json:"scope,omitempty"`
	// Table that the route is in. Default: the VRF's, else the main table (254).
	Table uint32 `json:"table,omitempty"`
	// Metric, of which the lower one is preferred. Default: the kernel's.
	Metric uint32 `json:"metric,omitempty"`
}

// RoutingRule says which table is asked for packets of some kind.
type RoutingRule struct {
	// Priority, 1 to 32765; the lowest is asked first. Those of one pod must differ.
	Priority uint32 `json:"priority"`
	// Source prefix of packets; at least one of source and destination.
	Source string `json:"source,omitempty"`
	// Destination prefix of packets.
	Destination string `json:"destination,omitempty"`
	// Table that is asked.
	Table uint32 `json:"table"`
}

// Neighbour is an address whose hardware address is known beforehand.
type Neighbour struct {
	// Address of the neighbour.
	Address string `json:"address"`
	// HardwareAddress of the neighbour, "02:00:5e:10:00:02".
	HardwareAddress string `json:"hardwareAddress"`
}

// NetworkReference names a NetworkAttachmentDefinition.
type NetworkReference struct {
	// Name of the NetworkAttachmentDefinition.
	Name string `json:"name"`
	// Namespace that it is in. Any other than the claim's only a DeviceClass can name.
	// Default: the claim's namespace.
	Namespace string `json:"namespace,omitempty"`
	// InterfaceName for what the chain makes. Default: the device's own in the pod.
	InterfaceName string `json:"interfaceName,omitempty"`
	// IPs that the chain's plugins are asked to assign, with prefix length (capability ips).
	IPs []string `json:"ips,omitempty"`
	// MAC that they are asked to set (capability mac). Who can choose it is as with hardwareAddress.
	MAC string `json:"mac,omitempty"`
	// DefaultRoute are gateways of the pod's default routes through this network.
	DefaultRoute []string `json:"defaultRoute,omitempty"`
}

// DNSMode says which resolvers an egress scope lets through.
type DNSMode string

const (
	// DNSClusterResolver allows port 53 to the pod's own resolvers only.
	DNSClusterResolver DNSMode = "ClusterResolver"
	// DNSNone allows no name resolution.
	DNSNone DNSMode = "None"
)

// KernelBypass says what happens when a scoped pod holds an RDMA device, whose
// verbs bypass netfilter and BPF.
type KernelBypass string

const (
	// KernelBypassDeny refuses such a pod.
	KernelBypassDeny KernelBypass = "Deny"
	// KernelBypassAllow lets it run; what its verbs send is not filtered.
	KernelBypassAllow KernelBypass = "Allow"
)

// EgressConfig is an inline egress scope (class egress.hostler.dev): what the
// pod that holds the claim may talk to. What no rule allows is refused.
//
// +k8s:deepcopy-gen:interfaces=k8s.io/apimachinery/pkg/runtime.Object
type EgressConfig struct {
	metav1.TypeMeta `json:",inline"`

	// Allow lists at most 64 rules. None: nothing leaves the pod.
	Allow []EgressRule `json:"allow,omitempty"`
	// DNS says which name resolution the scope lets through: ClusterResolver
	// port 53 of the pod's own resolvers, None none. Default: ClusterResolver.
	DNS DNSMode `json:"dns,omitempty"`
	// Never lists prefixes that are denied whatever a rule allows, in addition
	// to the built-in ones: link-local and cloud metadata addresses, and those
	// by which the cluster knows the pod's own node, but for a resolver there. A
	// service that runs on the node can be allowed by the service's own address.
	Never []string `json:"never,omitempty"`
	// KernelBypass says whether the pod may also hold an RDMA device, whose
	// verbs bypass every rule of the scope. Default: Deny.
	KernelBypass KernelBypass `json:"kernelBypass,omitempty"`
}

// EgressRule allows some destinations on some ports.
type EgressRule struct {
	// Name appears in counters and logs; unique within the scope, a DNS label.
	Name string `json:"name"`
	// To lists destinations; at least one.
	To []EgressPeer `json:"to"`
	// Ports lists destination ports; at least one.
	Ports []EgressPort `json:"ports"`
}

// EgressPeer is a set of destinations. Exactly one member is set.
type EgressPeer struct {
	// CIDR is a set of destinations given by their addresses.
	CIDR *CIDRPeer `json:"cidr,omitempty"`
}

// CIDRPeer is a prefix with holes.
type CIDRPeer struct {
	// CIDR is a prefix without address bits beyond its length, "10.0.0.0/8" or "2001:db8::/32".
	CIDR string `json:"cidr"`
	// Except lists prefixes inside CIDR that are left out.
	Except []string `json:"except,omitempty"`
}

// EgressProtocol is TCP, UDP or SCTP.
type EgressProtocol string

// EgressPort is one destination port or a range of them.
type EgressPort struct {
	// Protocol of the transport. Default: TCP.
	Protocol EgressProtocol `json:"protocol,omitempty"`
	// Port is 1 to 65535.
	Port int32 `json:"port"`
	// EndPort, if set, makes a range from Port to EndPort.
	EndPort int32 `json:"endPort,omitempty"`
}
