// What only a DeviceClass can say in a NICConfig, besides what is set on a VF:
// classes are written by administrators, claims by anybody. It is what concerns others
// on the network, or on the NIC.
//
// A hardware address is who a NIC is to the fabric's switches. A claim chooses none,
// but for a macvlan child, where it takes no vendor's. Some private flags are the card's or its
// port's (firmware LLDP, source pruning). A pod that forwards, or answers for others,
// joins networks that are apart. And verbs on a NIC that is shared know neither the
// shares nor their bandwidth.

package claim

import (
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"

	"github.com/hostler-dev/hostler/api/v1alpha1"
)

// checkClassOnly refuses what the claim's own configs may not say. Whatever they
// repeat of their class is no fault.
func checkClassOnly(request string, merged *v1alpha1.NICConfig, configs []given) error {
	class := map[string]string{}
	for _, from := range configs {
		nic, is := from.object.(*v1alpha1.NICConfig)
		if !is {
			continue
		}
		said := classSettings(nic, merged.Mode)
		if from.fromClass {
			maps.Copy(class, said)
			continue
		}
		for _, name := range slices.Sorted(maps.Keys(said)) {
			pinned, isPinned := class[name]
			switch {
			case isPinned && pinned == said[name]:
			case isPinned:
				return fmt.Errorf("the config for request %q: %s is %s in the claim and %s in its DeviceClass, and no claim can change that; leave it out of the claim", request, name, said[name], pinned)
			default:
				return fmt.Errorf("the config for request %q: %s is %s in the claim, but only a DeviceClass can set it, because it concerns others on the network; leave it out of the claim, and ask the administrator for a DeviceClass that has it in its config", request, name, said[name])
			}
		}
	}
	return nil
}

// classSettings are those fields that only a class can set in that mode, as an error names
// them, and what the config says there.
func classSettings(config *v1alpha1.NICConfig, mode v1alpha1.NICMode) map[string]string {
	settings := map[string]string{}
	if address := strings.ToLower(config.HardwareAddress); address != "" && (mode != v1alpha1.NICModeMacvlan || !isLocal(address)) {
		settings["hardwareAddress"] = address
	}
	for name, value := range config.Sysctls {
		if v1alpha1.IsClassSysctl(name) {
			settings["sysctls["+name+"]"] = value
		}
	}
	if config.Ethtool != nil {
		for name, on := range config.Ethtool.PrivateFlags {
			settings["ethtool.privateFlags["+name+"]"] = fmt.Sprint(on)
		}
	}
	if mode.IsChild() && config.RDMA == v1alpha1.RDMAShared {
		settings["rdma"] = string(config.RDMA)
	}
	return settings
}

// isLocal says of a valid hardware address that it is a locally administered one (IEEE 802, the
// second-lowest bit of the first byte).
func isLocal(address string) bool {
	mac, err := net.ParseMAC(address)
	return err == nil && mac[0]&2 != 0
}
