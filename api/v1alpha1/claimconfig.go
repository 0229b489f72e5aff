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
	// RDMAAuto injects the device's character devices if the NIC has an RDMA device.
	RDMAAuto RDMAMode = "Auto"
	// RDMANone injects none.
	RDMANone RDMAMode = "None"
)

// NICMode says by what a pod uses its NIC.
type NICMode string

const (
	// NICModeNetdev moves the netdev into the pod.
	NICModeNetdev NICMode = "netdev"
	// NICModeVFIO takes the NIC from its driver and gives it to user space: a
	// virtual machine in the pod, or a program such as one with DPDK.
	NICModeVFIO NICMode = "vfio"
)

// NICConfig configures NIC requests (class nic.hostler.dev).
//
// +k8s:deepcopy-gen:interfaces=k8s.io/apimachinery/pkg/runtime.Object
type NICConfig struct {
	metav1.TypeMeta `json:",inline"`

	// Mode says by what the pod uses the NIC: netdev by its network interface, vfio
	// by a driver of its own, as a PCI device bound to vfio-pci. With vfio there is
	// no interface to configure and no RDMA device. Default: netdev.
	Mode NICMode `json:"mode,omitempty"`
	// InterfaceName inside the pod, 1 to 15 characters. A request for several
	// NICs cannot set it. Default: the name that the netdev has on the host.
	InterfaceName string `json:"interfaceName,omitempty"`
	// Addresses with prefix length, "10.1.0.5/24" or "2001:db8::5/64".
	Addresses []string `json:"addresses,omitempty"`
	// Routes through this interface.
	Routes []Route `json:"routes,omitempty"`
	// MTU in bytes, 68 to 65535. Default: unchanged.
	MTU *int32 `json:"mtu,omitempty"`
	// RDMA says what the pod gets of the NIC's RDMA device: Auto its character
	// devices, if the NIC has one, None nothing. Default: Auto.
	RDMA RDMAMode `json:"rdma,omitempty"`
	// Networks are NetworkAttachmentDefinitions whose CNI chains are run for
	// the device after it has been moved into the pod. At most one for now.
	Networks []NetworkReference `json:"networks,omitempty"`
	// VF is set on the NIC, an SR-IOV VF, by way of its PF while the claim is
	// prepared; what was before is restored after it.
	VF *VFConfig `json:"vf,omitempty"`
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

// Route is one route in the pod's main table.
type Route struct {
	// Destination prefix, "0.0.0.0/0" for the default route.
	Destination string `json:"destination"`
	// Gateway address; empty for a directly connected prefix.
	Gateway string `json:"gateway,omitempty"`
}

// NetworkReference names a NetworkAttachmentDefinition.
type NetworkReference struct {
	// Name of the NetworkAttachmentDefinition.
	Name string `json:"name"`
	// Namespace that it is in. Default: the claim's namespace.
	Namespace string `json:"namespace,omitempty"`
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
