package topology

// GPU is one physical GPU.
type GPU struct {
	// Name is the device's name in slices, logs and metrics, "gpu-0000-17-00-0".
	Name string `json:"name"`
	// Index is NVML's enumeration index. It is for display beside nvidia-smi only.
	Index int `json:"index"`
	// Minor is the number in /dev/nvidia<minor>, -1 if unknown.
	Minor int `json:"minor"`
	// UUID as NVML reports it, "GPU-…".
	UUID              string `json:"uuid,omitempty"`
	ProductName       string `json:"productName,omitempty"`
	Architecture      string `json:"architecture,omitempty"`
	ComputeCapability string `json:"computeCapability,omitempty"`
	Serial            string `json:"serial,omitempty"`
	VBIOSVersion      string `json:"vbiosVersion,omitempty"`
	MemoryBytes       uint64 `json:"memoryBytes,omitempty"`
	// MIGEnabled is the current MIG mode.
	MIGEnabled bool `json:"migEnabled,omitempty"`
	// MIG is what a GPU in MIG mode can be and is cut into; nil in any other mode.
	MIG *MIG `json:"mig,omitempty"`
	// NVLinks by link number; only links that the GPU has.
	NVLinks []NVLink `json:"nvlinks,omitempty"`
	// Fabric is set on GPUs that NVSwitches or an NVLink network connect.
	Fabric    *Fabric   `json:"fabric,omitempty"`
	Placement Placement `json:"placement"`
	// Lost: the driver knows of the GPU but answers "GPU is lost" for it.
	Lost     bool      `json:"lost,omitempty"`
	Problems []Problem `json:"problems,omitempty"`
}

// NVLinkPeer is what sits at the far end of a link.
type NVLinkPeer string

const (
	NVLinkPeerGPU     NVLinkPeer = "GPU"
	NVLinkPeerSwitch  NVLinkPeer = "Switch"
	NVLinkPeerCPU     NVLinkPeer = "CPU"
	NVLinkPeerUnknown NVLinkPeer = "Unknown"
)

// NVLink is one NVLink port of a GPU.
type NVLink struct {
	Link   int  `json:"link"`
	Active bool `json:"active"`
	// Version is the NVLink generation as NVML numbers it, 0 if unknown.
	Version int `json:"version,omitempty"`
	// Peer kind and PCI address of the far end ("" where NVML does not say).
	Peer    NVLinkPeer `json:"peer"`
	PeerPCI string     `json:"peerPCI,omitempty"`
}

// Fabric is a GPU's membership of an NVLink fabric (nvmlDeviceGetGpuFabricInfoV).
type Fabric struct {
	ClusterUUID string `json:"clusterUUID,omitempty"`
	CliqueID    uint32 `json:"cliqueID"`
	// State is NVML's own word, "NotSupported", "NotStarted", "InProgress" or "Completed", or FabricFailed.
	State string `json:"state"`
}

// FabricFailed is the state of a GPU whose attempt to join its fabric is over and did not succeed.
const FabricFailed = "Failed"

// NVSwitch is an NVLink switch on the node's PCIe tree.
type NVSwitch struct {
	Placement Placement `json:"placement"`
}
