// What only a DeviceClass can say in a NICConfig, besides what is set on a VF:
// classes are written by administrators, claims by anybody. It is what concerns others
// on the network, or on the NIC.
//
// A hardware address is who a NIC is to the fabric's switches. A claim chooses none,
// but for a macvlan child, where it takes no vendor's, and none over its class's; so
// with those that it asks a network for. Some private flags are the card's or its
// port's (firmware LLDP, source pruning). A pod that forwards, or answers for others,
// joins networks that are apart. And verbs on a NIC that is shared know neither the
// shares nor their bandwidth.
//
// NetworkAttachmentDefinitions are programs that run on the node. Those of another
// namespace are for its own pods, unless the administrator gives them to others.

package claim

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"

	"github.com/hostler-dev/hostler/api/v1alpha1"
)

// checkClassOnly refuses what the own configs of a claim of that namespace may not say.
// Whatever they repeat of their class is no fault.
func checkClassOnly(request, namespace string, merged *v1alpha1.NICConfig, configs []given) error {
	class, networks := map[string]string{}, map[string]bool{}
	var faults []error
	for _, from := range configs {
		nic, is := from.object.(*v1alpha1.NICConfig)
		if !is {
			continue
		}
		said := classSettings(nic, merged.Mode, namespace)
		if from.fromClass {
			for name, setting := range said {
				class[name] = setting.value
			}
			for _, network := range nic.Networks {
				networks[fullName(network, namespace)] = true
			}
			continue
		}
		for _, name := range slices.Sorted(maps.Keys(said)) {
			value := said[name].value
			pinned, isPinned := class[name]
			switch {
			case isPinned && pinned == value, !isPinned && said[name].free:
			case isPinned:
				faults = append(faults, fmt.Errorf("the config for request %q: %s is %s in the claim and %s in its DeviceClass, and no claim can change that; leave it out of the claim", request, name, value, pinned))
			default:
				faults = append(faults, fmt.Errorf("the config for request %q: %s is %s in the claim, but only a DeviceClass can set it, because it concerns others on the network; leave it out of the claim, and ask the administrator for a DeviceClass that has it in its config", request, name, value))
			}
		}
		for i, network := range nic.Networks {
			if other := cmp.Or(network.Namespace, namespace); other != namespace && !networks[fullName(network, namespace)] {
				faults = append(faults, fmt.Errorf("the config for request %q: networks[%d].namespace is %s in a claim of namespace %s, but only a DeviceClass can name a network of another namespace; ask the administrator for a DeviceClass that has network %s/%s in its config, or copy that NetworkAttachmentDefinition into namespace %s", request, i, other, namespace, other, network.Name, namespace))
			}
		}
	}
	return errors.Join(faults...)
}

// setting is what a config says in a field that its class may have the last word on.
// Free is what a claim can choose if its class says nothing.
type setting struct {
	value string
	free  bool
}

// classSettings are those fields that a class pins in that mode, as an error names
// them.
func classSettings(config *v1alpha1.NICConfig, mode v1alpha1.NICMode, namespace string) map[string]setting {
	settings := map[string]setting{}
	address := func(name, value string) {
		if value = strings.ToLower(value); value != "" {
			settings[name] = setting{value: value, free: mode == v1alpha1.NICModeMacvlan && isLocal(value)}
		}
	}
	address("hardwareAddress", config.HardwareAddress)
	for _, network := range config.Networks {
		name := fullName(network, namespace)
		if network.InterfaceName != "" {
			// A definition can be named twice, for two interfaces.
			name += " for " + network.InterfaceName
		}
		address("networks["+name+"].mac", network.MAC)
	}
	for name, value := range config.Sysctls {
		if v1alpha1.IsClassSysctl(name) {
			settings["sysctls["+name+"]"] = setting{value: value}
		}
	}
	if config.Ethtool != nil {
		for name, on := range config.Ethtool.PrivateFlags {
			settings["ethtool.privateFlags["+name+"]"] = setting{value: fmt.Sprint(on)}
		}
	}
	if mode.IsChild() && config.RDMA == v1alpha1.RDMAShared {
		settings["rdma"] = setting{value: string(config.RDMA)}
	}
	return settings
}

func fullName(network v1alpha1.NetworkReference, namespace string) string {
	return cmp.Or(network.Namespace, namespace) + "/" + network.Name
}

// isLocal says of a valid hardware address that it is a locally administered one (IEEE 802, the
// second-lowest bit of the first byte).
func isLocal(address string) bool {
	mac, err := net.ParseMAC(address)
	return err == nil && mac[0]&2 != 0
}
