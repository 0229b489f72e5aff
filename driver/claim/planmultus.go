// NICs that Multus attaches: by which name it finds them. Newer releases of it look
// for the pod's claims in the pod's status and for the resource name of a device in
// its slice; but in the status are only claims that were made from templates. Those up
// to 4.3 ask the kubelet, and take the name of the claim for the resource name; but
// that of a claim from a template is not known before there is one. So each kind of
// claim has its way, and what no Multus could tell apart is refused.

package claim

import (
	"fmt"

	resourceapi "k8s.io/api/resource/v1"

	"github.com/hostler-dev/hostler/driver/publish"
	"github.com/hostler-dev/hostler/netattach"
	"github.com/hostler-dev/hostler/topology"
)

// planMultus gives an external device the name by which Multus is to find it.
func planMultus(in PlanInput, device *Device, nic *topology.NIC, network *netattach.DeviceIntent) error {
	name := nameOf(device, nic.Name)
	claim := in.Claim
	if claim.Annotations[resourceapi.PodResourceClaimAnnotation] != "" {
		network.ResourceName = publish.ResourceName(in.MultusResourceNames, in.Snapshot, nic)
		if network.ResourceName == "" {
			return fmt.Errorf("NIC %s: its NICConfig has attach: Multus, which finds the NIC of a claim that was made from a template by a resource name, and the agent on this node gives it none; list the NIC in publish.multusResourceNames of the agent's configuration, or have the pod use a ResourceClaim by its name (resourceClaimName), which is then the resource name", name)
		}
		return nil
	}
	network.ResourceName = claim.Name
	if all := len(claim.Status.Allocation.Devices.Results); all > 1 {
		return fmt.Errorf("NIC %s: its NICConfig has attach: Multus, which takes every device of a claim that is used by its name (resourceClaimName) for the network's, and this claim has %d; give the NIC a claim of its own, or have the claim made from a template (resourceClaimTemplateName)", name, all)
	}
	return nil
}

// byClaimName says that Multus reads in the device's CDI name what it is.
func (d *Device) byClaimName(entry *Entry) bool {
	return d.Network != nil && d.Network.External && entry.PodClaimName == ""
}
