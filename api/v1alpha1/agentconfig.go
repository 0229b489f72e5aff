package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// AgentConfig is the config file of `hostler agent`. Every field has a flag of
// the same dotted name (paths.sys → --paths-sys), and a flag beats the file.
//
// +k8s:deepcopy-gen:interfaces=k8s.io/apimachinery/pkg/runtime.Object
type AgentConfig struct {
	metav1.TypeMeta `json:",inline"`

	// NodeName is the Kubernetes node that this agent serves. Default: the
	// environment variable NODE_NAME, else the host name.
	NodeName string `json:"nodeName,omitempty"`
	// Kubeconfig is the path of a kubeconfig file. Default: the pod's service account.
	Kubeconfig string `json:"kubeconfig,omitempty"`

	Paths     PathsConfig     `json:"paths,omitempty"`
	Discovery DiscoveryConfig `json:"discovery,omitempty"`
	Publish   PublishConfig   `json:"publish,omitempty"`
	Metrics   MetricsConfig   `json:"metrics,omitempty"`
	Health    HealthConfig    `json:"health,omitempty"`
	Logging   LoggingConfig   `json:"logging,omitempty"`
}

// PathsConfig says where the machine, the runtime and the kubelet are. Paths
// are as the agent's own mount namespace sees them, except for the ones that
// begin with "host", which are what the host's container runtime sees.
type PathsConfig struct {
	// Sys is the sysfs mount. Default: /sys.
	Sys string `json:"sys,omitempty"`
	// Dev is the device directory. Default: /dev.
	Dev string `json:"dev,omitempty"`
	// HostDev is Dev as the runtime sees it. Default: the value of Dev.
	HostDev string `json:"hostDev,omitempty"`
	// DriverRoot is the root under which the NVIDIA driver's libraries and
	// programs are found. Default: /driver-root if it exists, else /.
	DriverRoot string `json:"driverRoot,omitempty"`
	// HostDriverRoot is DriverRoot as the runtime sees it. Default: /.
	HostDriverRoot string `json:"hostDriverRoot,omitempty"`
	// NVMLLibrary is the path of libnvidia-ml.so.1. Default: searched under DriverRoot.
	NVMLLibrary string `json:"nvmlLibrary,omitempty"`
	// CDI is the directory for CDI specs. Default: /var/run/cdi.
	CDI string `json:"cdi,omitempty"`
	// State holds the journal and verdicts; it must survive a reboot. Default: /var/lib/hostler.
	State string `json:"state,omitempty"`
	// Run holds the gate's socket and attachment records, under the same path
	// on the host; a tmpfs is fine. Default: /run/hostler.
	Run string `json:"run,omitempty"`
	// Gate is where the gate hook is installed for the runtime, under the same
	// path on the host. Default: /var/lib/hostler/bin/hostler-gate.
	Gate string `json:"gate,omitempty"`
	// CDIHook is NVIDIA's nvidia-cdi-hook on the host, which the runtime runs.
	// Default: /var/lib/hostler/bin/nvidia-cdi-hook.
	CDIHook string `json:"cdiHook,omitempty"`
	// KubeletPlugins is the kubelet's plugin data directory. Default: /var/lib/kubelet/plugins.
	KubeletPlugins string `json:"kubeletPlugins,omitempty"`
	// KubeletRegistry is the kubelet's plugin registration directory. Default: /var/lib/kubelet/plugins_registry.
	KubeletRegistry string `json:"kubeletRegistry,omitempty"`
	// KubeletPodResources is the pod-resources socket. Default: /var/lib/kubelet/pod-resources/kubelet.sock.
	KubeletPodResources string `json:"kubeletPodResources,omitempty"`
	// NRI is the runtime's NRI socket. Default: /var/run/nri/nri.sock.
	NRI string `json:"nri,omitempty"`
	// CNIBin is the directory of CNI plugins. Default: /opt/cni/bin.
	CNIBin string `json:"cniBin,omitempty"`
	// CNIConfig is the directory of the node's own CNI network configurations,
	// which name the NIC that pods' traffic leaves by. Default: /etc/cni/net.d.
	CNIConfig string `json:"cniConfig,omitempty"`
	// CNICache is where libcni keeps results for DEL. Not libcni's own /var/lib/cni, in
	// which the container runtime keeps those of its pods. Default: /var/lib/hostler/cni.
	CNICache string `json:"cniCache,omitempty"`
	// DeviceInfo is where Multus looks for what is known of devices. Default: /var/run/k8s.cni.cncf.io/devinfo.
	DeviceInfo string `json:"deviceInfo,omitempty"`
}

// DiscoveryConfig paces the observer.
type DiscoveryConfig struct {
	// PollInterval between full looks at the machine; kernel events come on top. Default: 30s.
	PollInterval metav1.Duration `json:"pollInterval,omitempty"`
	// CallTimeout bounds one driver call; a call that takes longer counts as hung. Default: 5s.
	CallTimeout metav1.Duration `json:"callTimeout,omitempty"`
}

// PublishConfig says in which form devices are offered.
type PublishConfig struct {
	// NUMANode is the form of the attribute resource.kubernetes.io/numaNode:
	// "Scalar", or "List" (the device's node and its equidistant neighbours of the
	// same socket) where the API server has the feature DRAListTypeAttributes. Default: Scalar.
	NUMANode NUMANodeForm `json:"numaNode,omitempty"`
	// Partitions of GPUs in MIG mode: "All" offers every profile at every
	// placement and makes what is allocated, "Existing" only what the
	// administrator has made. Default: All.
	Partitions PartitionOffer `json:"partitions,omitempty"`
	// CompositeDevices offers each GPU together with its nearest NIC as one more
	// device of type "pair". It puts GPUs and NICs into one pool, so drain the
	// node before changing it. Default: false.
	CompositeDevices bool `json:"compositeDevices,omitempty"`
	// MultusResourceNames give NICs the resource names by which Multus finds them.
	// The first entry that a NIC is in holds. Default: none, and Multus finds a NIC by the name of its claim.
	MultusResourceNames []MultusResourceName `json:"multusResourceNames,omitempty"`
	// SharedNICs lets several claims have one NIC, each with the bandwidth that it asks for
	// and a macvlan or ipvlan child in its pod; who asks for no bandwidth gets the NIC
	// alone. Only Ethernet NICs whose speed is known, and where the API server has the feature
	// DRAConsumableCapacity. It takes effect for each NIC once no claim has it. Default: false.
	SharedNICs bool `json:"sharedNICs,omitempty"`
}

// MultusResourceName is a resource name and the NICs that have it. An entry that
// lists neither addresses nor interfaces is for all NICs.
type MultusResourceName struct {
	// ResourceName as in the annotation k8s.v1.cni.cncf.io/resourceName of
	// NetworkAttachmentDefinitions, "example.com/rail", at most 64 characters.
	ResourceName string `json:"resourceName"`
	// PCIAddresses of NICs, "0000:18:00.0".
	PCIAddresses []string `json:"pciAddresses,omitempty"`
	// Interfaces by their names on the node; a PF's name stands for its VFs, too.
	Interfaces []string `json:"interfaces,omitempty"`
}

// NUMANodeForm is a form of the attribute numaNode.
type NUMANodeForm string

const (
	NUMANodeScalar NUMANodeForm = "Scalar"
	NUMANodeList   NUMANodeForm = "List"
)

// PartitionOffer says which MIG partitions are offered.
type PartitionOffer string

const (
	PartitionsAll      PartitionOffer = "All"
	PartitionsExisting PartitionOffer = "Existing"
)

// MetricsConfig is the HTTP side: /metrics, /healthz (liveness), /readyz.
type MetricsConfig struct {
	// Address to listen on. Default: ":9484".
	Address string `json:"address,omitempty"`
	// Interval between samples. Default: 5s.
	Interval metav1.Duration `json:"interval,omitempty"`
}

// HealthConfig paces judgement and names its reactions.
type HealthConfig struct {
	// PollInterval between checks that no event announces. Default: 5s.
	PollInterval metav1.Duration `json:"pollInterval,omitempty"`
	// RecoveryHoldDown is how long a device must stay clean before a fault
	// that the driver itself reports as gone is lifted. Default: 10s.
	RecoveryHoldDown metav1.Duration `json:"recoveryHoldDown,omitempty"`
	// IgnoredXIDs are XID numbers that are counted and logged but never taint. Default: none.
	IgnoredXIDs []int32 `json:"ignoredXIDs,omitempty"`
	// NodeTaint puts the taint hostler.dev/accelerators-unavailable on the node
	// while a fault concerns the whole node. Default: true.
	NodeTaint *bool `json:"nodeTaint,omitempty"`
}

// LoggingConfig sets the log's detail.
type LoggingConfig struct {
	// Verbosity: 0 the node's story, 2 each claim, 4 each step. Default: 0.
	Verbosity int32 `json:"verbosity,omitempty"`
	// Format is text or json. Default: text.
	Format string `json:"format,omitempty"`
}
