// What CNI chains made for a NIC in its pod, in the words of attributes: the files that
// containers read have no other place for it.

package publish

import (
	"maps"
	"slices"

	resourceapi "k8s.io/api/resource/v1"
)

const (
	networkInterfaces  = "networkInterfaces"
	networkAddresses   = "networkAddresses"
	networkNameServers = "networkNameServers"
)

// WithNetworks says which interfaces there are beside the device's own, their addresses
// as "interface=address/length", and the name servers of the networks. What was said of
// them before goes. Values that an attribute cannot have are left out.
func (a Attributes) WithNetworks(interfaces, addresses, nameServers []string) Attributes {
	lists := map[string][]string{networkInterfaces: interfaces, networkAddresses: addresses, networkNameServers: nameServers}
	a = maps.Clone(a)
	for name := range lists {
		delete(a, own(name))
	}
	for _, name := range slices.Sorted(maps.Keys(lists)) {
		list := slices.DeleteFunc(slices.Clone(lists[name]), func(value string) bool {
			return value == "" || len(value) > resourceapi.DeviceAttributeMaxValueLength
		})
		if len(list) == 0 || len(a) >= resourceapi.ResourceSliceMaxAttributesAndCapacitiesPerDevice {
			continue
		}
		if a == nil {
			a = Attributes{}
		}
		a[own(name)] = resourceapi.DeviceAttribute{StringValues: list}
	}
	return a
}
