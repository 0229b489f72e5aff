package multus

// One run of one chain: in CNI's terms, what identifies it and what its plugins
// are told. CNI takes a network's name, a container and an interface for one
// attachment. Whose it is is told too, so that of two claims of one pod each takes
// back its own.

import (
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/version"
	apitypes "k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/hostler-dev/hostler/netattach"
)

// ownerArgument is the CNI argument that says whose attachment it is. Plugins skip
// what they do not know, because IgnoreUnknown comes first.
const ownerArgument = "HOSTLER_OWNER"

// Attachment is one run of one chain.
type Attachment struct {
	SandboxID string
	// NetNS is a path; empty on DEL if the namespace is gone.
	NetNS string
	Claim apitypes.UID
	Pod   netattach.PodReference
	// DeviceID is the device's PCI address, "" if plugins are not to know of it.
	DeviceID string
	// Interface, MAC and Addresses are the device as it is in the pod already; of one
	// that the chain brings, the interface is its name to be.
	Interface string
	MAC       string
	Addresses []netip.Prefix
	Network   netattach.NetworkIntent
	// Begun says that an earlier ADD was begun; where the cache does not know of it,
	// because it failed or was cut short, nobody knows how far it came.
	Begun bool
}

// InterfaceName is the CNI_IFNAME: what the chain makes, or else what it works upon.
func (a Attachment) InterfaceName() string {
	if a.Network.Interface != "" {
		return a.Network.Interface
	}
	return a.Interface
}

// worksOnDevice says that the device is there and is what the chain is about.
func (a Attachment) worksOnDevice() bool {
	return a.InterfaceName() == a.Interface && !Brings(a.Network)
}

func (a Attachment) String() string {
	return fmt.Sprintf("NetworkAttachmentDefinition %s/%s", a.Network.Namespace, a.Network.Name)
}

// owner is the claim, and the network of it.
func (a Attachment) owner() string {
	return fmt.Sprintf("%s/%s/%s", a.Claim, a.Network.Namespace, a.Network.Name)
}

// owns is true, too, of what an agent attached that did not say for whom.
func (a Attachment) owns(known *libcni.NetworkAttachment) bool {
	owner := ownerOf(known)
	return owner == "" || owner == a.owner()
}

func ownerOf(known *libcni.NetworkAttachment) string { return argument(known, ownerArgument) }

// isOurs says that the agent made it. Agents that did not say for whom always told the
// device's ID, which the cluster's own network never has.
func isOurs(known *libcni.NetworkAttachment) bool {
	_, hasDevice := known.CapabilityArgs["deviceID"]
	return ownerOf(known) != "" || hasDevice
}

// claimOf is "" for what an agent attached that did not say for whom.
func claimOf(known *libcni.NetworkAttachment) apitypes.UID {
	claim, _, _ := strings.Cut(ownerOf(known), "/")
	return apitypes.UID(claim)
}

// runtime tells plugins of the pod in the words of Multus.
func (a Attachment) runtime() *libcni.RuntimeConf {
	capabilities := map[string]any{}
	if a.DeviceID != "" {
		capabilities["deviceID"] = a.DeviceID
	}
	if len(a.Network.IPs) > 0 {
		var ips []string
		for _, prefix := range a.Network.IPs {
			ips = append(ips, prefix.String())
		}
		capabilities["ips"] = ips
	}
	if a.Network.MAC != "" {
		capabilities["mac"] = a.Network.MAC
	}
	return &libcni.RuntimeConf{
		ContainerID: a.SandboxID, NetNS: a.NetNS, IfName: a.InterfaceName(), CapabilityArgs: capabilities,
		Args: [][2]string{
			{"IgnoreUnknown", "1"},
			{"K8S_POD_NAMESPACE", a.Pod.Namespace}, {"K8S_POD_NAME", a.Pod.Name},
			{"K8S_POD_UID", string(a.Pod.UID)}, {"K8S_POD_INFRA_CONTAINER_ID", a.SandboxID},
			{ownerArgument, a.owner()},
		},
	}
}

// list is the chain. If it works upon the moved device, that is its first plugin's
// prevResult: from a chain's view, whoever moved the device was the plugin before
// it, and plugins such as tuning and sbr take the interface from there.
func (a Attachment) list() (*libcni.NetworkConfigList, error) {
	list, err := libcni.NetworkConfFromBytes(a.Network.Config)
	if err != nil {
		return nil, fmt.Errorf("CNI configuration of %s: %w", a, err)
	}
	// prevResult for every command came with 0.4.0, and Result's present form with 1.0.0.
	known, err := version.GreaterThanOrEqualTo(list.CNIVersion, "0.4.0")
	if err != nil {
		return nil, fmt.Errorf("CNI version %q of %s: %w", list.CNIVersion, a, err)
	}
	if !known || !a.worksOnDevice() {
		return list, nil
	}
	result, err := a.result().GetAsVersion(list.CNIVersion)
	if err != nil {
		return nil, fmt.Errorf("CNI version %s of %s: %w", list.CNIVersion, a, err)
	}
	raw, err := json.Marshal(result)
	if err != nil {
		return nil, err
	}
	var previous map[string]any
	if err := json.Unmarshal(raw, &previous); err != nil {
		return nil, err
	}
	list.Plugins[0], err = libcni.InjectConf(list.Plugins[0], map[string]any{"prevResult": previous})
	return list, err
}

func (a Attachment) result() types.Result {
	result := &current.Result{
		CNIVersion: current.ImplementedSpecVersion,
		Interfaces: []*current.Interface{{Name: a.Interface, Mac: a.MAC, Sandbox: a.NetNS}},
	}
	for _, prefix := range a.Addresses {
		address := net.IPNet{IP: prefix.Addr().AsSlice(), Mask: net.CIDRMask(prefix.Bits(), prefix.Addr().BitLen())}
		result.IPs = append(result.IPs, &current.IPConfig{Interface: ptr.To(0), Address: address})
	}
	return result
}
