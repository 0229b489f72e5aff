// Resource names, by which Multus finds the device of a network: it looks for the
// devices of a pod's claims in slices and compares this attribute with an annotation
// of the NetworkAttachmentDefinition.

package publish

import (
	"slices"

	resourceapi "k8s.io/api/resource/v1"

	"github.com/hostler-dev/hostler/api/v1alpha1"
	"github.com/hostler-dev/hostler/topology"
)

// ResourceNameAttribute is where Multus looks for the name that a network asks by.
const ResourceNameAttribute resourceapi.QualifiedName = "k8s.cni.cncf.io/resourceName"

// ResourceName is the NIC's by the first entry that it is in, "" if it is in none.
// It is looked up in the snapshot by which name a VF's PF goes on the node.
func ResourceName(names []v1alpha1.MultusResourceName, snapshot *topology.Snapshot, nic *topology.NIC) string {
	if len(names) == 0 {
		return ""
	}
	var interfaces []string
	if nic.Link != nil {
		interfaces = append(interfaces, nic.Link.Name)
	}
	if pf := snapshot.NIC(nic.Parent); nic.Kind == topology.VF && pf != nil && pf.Link != nil {
		interfaces = append(interfaces, pf.Link.Name)
	}
	for _, entry := range names {
		every := len(entry.PCIAddresses)+len(entry.Interfaces) == 0
		named := slices.ContainsFunc(interfaces, func(name string) bool { return slices.Contains(entry.Interfaces, name) })
		if every || named || slices.Contains(entry.PCIAddresses, nic.Placement.PCI) {
			return entry.ResourceName
		}
	}
	return ""
}
