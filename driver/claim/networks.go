// What is wrong with CNI chains of one claim taken together, which is known once
// their definitions are.

package claim

import (
	"cmp"
	"fmt"

	"github.com/hostler-dev/hostler/netattach/multus"
)

// checkNetworks refuses chains that their plugins could not tell apart: to them an
// attachment is a network's name, a container and an interface. It also refuses what
// takes a device into the pod that is there already, or that is to stay on the node.
func checkNetworks(entry *Entry) error {
	type attachment struct{ network, iface string }
	taken := map[attachment]string{}
	for i := range entry.Devices {
		device := entry.Devices[i].Network
		if device == nil {
			continue
		}
		brings := ""
		for _, network := range device.Networks {
			name := network.Namespace + "/" + network.Name
			key := attachment{multus.NetworkName(network), cmp.Or(network.Interface, device.PodName)}
			if other, is := taken[key]; is {
				return fmt.Errorf("networks %s and %s of NIC %s are both called %s in their spec.config and both are for interface %s, so that their plugins could not tell them apart; give one of them an interfaceName, or another name in its spec.config", other, name, device.Device, key.network, key.iface)
			}
			taken[key] = name
			if plugin := multus.Takes(network); plugin != "" && device.Child != nil {
				return fmt.Errorf("network %s has plugin %s, which takes NIC %s or its RDMA device into the pod, and with mode %s both stay on the node; use mode netdev, or a network without that plugin", name, plugin, device.Device, device.Child.Kind)
			}
			if !multus.Brings(network) {
				continue
			}
			if brings != "" {
				return fmt.Errorf("networks %s and %s both take NIC %s into the pod; name one of them", brings, name, device.Device)
			}
			brings = name
		}
	}
	return nil
}
