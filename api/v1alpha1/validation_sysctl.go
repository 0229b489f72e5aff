package v1alpha1

// Validation of what the kernel keeps of an interface by name: sysctls, and what
// ethtool switches. Only those of the claim's own interface can be set, so none
// reaches beyond the pod; which of them reach others on the network, and are for a
// DeviceClass therefore, is listed here, too.

import (
	"fmt"
	"maps"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation/field"
)

var interfaceSysctl = regexp.MustCompile(`^net\.ipv[46]\.(conf|neigh)\.IFNAME\.[a-z0-9_]+$`)

// anyInterfaceSysctl is one of an interface by name, of all or of those to come.
var anyInterfaceSysctl = regexp.MustCompile(`^(net\.ipv[46]\.(?:conf|neigh)\.)[A-Za-z0-9_-]+(\.[a-z0-9_]+)$`)

const (
	maxSysctlValue = 128
	// maxFeatureName is ETH_GSTRING_LEN of linux/ethtool.h, less the zero at the end.
	maxFeatureName = 31
)

// refusedSysctls are those that do nothing or take away what the config says
// elsewhere, by their last word, with the remedy.
func refusedSysctls() map[string]string {
	return map[string]string{
		"mc_forwarding": "can only be read; the kernel sets it for multicast routing daemons",
		"mtu":           "is the MTU of IPv6 alone; set mtu, which is that of both",
	}
}

// IsClassSysctl reports whether only a DeviceClass can set the sysctl: with it the pod
// passes on what is not for it, or answers in the name of others.
func IsClassSysctl(name string) bool {
	return slices.Contains([]string{
		"forwarding", "force_forwarding", "bc_forwarding", "bootp_relay", "proxy_arp", "proxy_arp_pvlan", "proxy_ndp", "seg6_enabled", "rpl_seg_enabled",
	}, lastWord(name))
}

func lastWord(sysctl string) string { return sysctl[strings.LastIndexByte(sysctl, '.')+1:] }

func validateSysctls(config *NICConfig) field.ErrorList {
	path := field.NewPath("sysctls")
	faults := tooMany(path, len(config.Sysctls), maxInterfaceSettings)
	for _, name := range slices.Sorted(maps.Keys(config.Sysctls)) {
		at, value := path.Key(name), config.Sysctls[name]
		if !interfaceSysctl.MatchString(name) {
			if of := anyInterfaceSysctl.FindStringSubmatch(name); of != nil {
				faults = append(faults, field.Invalid(at, name, fmt.Sprintf("must not name an interface, because the claim's own is meant; write %q", of[1]+"IFNAME"+of[2])))
				continue
			}
			faults = append(faults, field.Invalid(at, name, `must be one of the interface's: "net.ipv4.conf.IFNAME.", "net.ipv6.conf.IFNAME.", "net.ipv4.neigh.IFNAME." or "net.ipv6.neigh.IFNAME." and a name, IFNAME as it stands here; for others use the pod's securityContext`))
			continue
		}
		if why := refusedSysctls()[lastWord(name)]; why != "" {
			faults = append(faults, field.Invalid(at, value, why))
		}
		switch {
		case value == "" || len(value) > maxSysctlValue || strings.ContainsFunc(value, unprintable):
			faults = append(faults, field.Invalid(at, value, "must be 1 to 128 printable ASCII characters"))
		case name == "net.ipv6.conf.IFNAME.disable_ipv6" && strings.TrimLeft(value, "0 ") != "" && config.usesIPv6():
			faults = append(faults, field.Invalid(at, value, "takes IPv6 from an interface for which IPv6 is configured; leave out one of the two"))
		}
	}
	return faults
}

func unprintable(r rune) bool { return r < ' ' || r > '~' }

// usesIPv6 reports whether something in the config needs IPv6 on the interface.
func (c *NICConfig) usesIPv6() bool {
	var texts []string
	texts = append(texts, c.Addresses...)
	for _, route := range c.Routes {
		texts = append(texts, route.Destination)
	}
	for _, neighbour := range c.Neighbours {
		texts = append(texts, neighbour.Address)
	}
	for _, network := range c.Networks {
		texts = append(append(texts, network.IPs...), network.DefaultRoute...)
	}
	return slices.ContainsFunc(texts, func(text string) bool {
		address, _, _ := strings.Cut(text, "/")
		parsed, err := netip.ParseAddr(address)
		return err == nil && parsed.Is6()
	})
}

func validateEthtool(config *EthtoolConfig) field.ErrorList {
	if config == nil {
		return nil
	}
	at := field.NewPath("ethtool")
	return append(validateSwitches(config.Features, at.Child("features")), validateSwitches(config.PrivateFlags, at.Child("privateFlags"))...)
}

func validateSwitches(switches map[string]bool, at *field.Path) field.ErrorList {
	faults := tooMany(at, len(switches), maxInterfaceSettings)
	for _, name := range slices.Sorted(maps.Keys(switches)) {
		if name == "" || len(name) > maxFeatureName || strings.ContainsFunc(name, unprintable) || strings.Contains(name, " [") {
			faults = append(faults, field.Invalid(at.Key(name), name, `must be a name of 1 to 31 printable characters, as ethtool prints it before the colon`))
		}
	}
	return faults
}
