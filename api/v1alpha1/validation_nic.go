package v1alpha1

// Validation of a NICConfig as a whole: what goes into a pod's network namespace for
// one NIC. What the kernel would refuse while the pod starts is refused here, where
// the words can name the field, and lists are bounded, so that an attach stays fast.

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

const (
	// maxInterfaceSettings bounds each list of a NICConfig. One netlink request takes
	// some ten microseconds, and the hook that makes them all has milliseconds.
	maxInterfaceSettings = 64
	// maxNetworks bounds the CNI chains, of which each takes tens of milliseconds.
	maxNetworks = 8
)

// ValidateNICConfig judges a NICConfig.
func ValidateNICConfig(config *NICConfig) field.ErrorList {
	faults := validateNICMode(config)
	faults = append(faults, validateInterfaceName(config.InterfaceName, field.NewPath("interfaceName"))...)
	faults = append(faults, validateHardwareAddress(config)...)
	addresses, wrong := validateAddresses(config.Addresses)
	faults = append(faults, wrong...)
	faults = append(faults, validateRoutes(config, addresses)...)
	faults = append(faults, validateRules(config.Rules)...)
	faults = append(faults, validateNeighbours(config.Neighbours)...)
	faults = append(faults, validateMTU(config.MTU, addresses)...)
	faults = append(faults, validateVRF(config)...)
	faults = append(faults, validateSysctls(config)...)
	faults = append(faults, validateEthtool(config.Ethtool)...)
	faults = append(faults, validateRDMA(config)...)
	faults = append(faults, validateVF(config.VF, field.NewPath("vf"))...)
	return append(faults, validateNetworks(config, field.NewPath("networks"))...)
}

func validateHardwareAddress(config *NICConfig) field.ErrorList {
	at := field.NewPath("hardwareAddress")
	if config.HardwareAddress == "" {
		return nil
	}
	if faults := validateMAC(config.HardwareAddress, at); len(faults) > 0 {
		return faults
	}
	if config.VF != nil && config.VF.MAC != nil && config.Mode == NICModeNetdev && !strings.EqualFold(*config.VF.MAC, config.HardwareAddress) {
		return field.ErrorList{field.Invalid(at, config.HardwareAddress, fmt.Sprintf("is another one than vf.mac, %s, which the netdev gets, too; leave out one of them", *config.VF.MAC))}
	}
	return nil
}

// validateAddresses returns those that are valid.
func validateAddresses(addresses []string) ([]netip.Prefix, field.ErrorList) {
	path := field.NewPath("addresses")
	faults := tooMany(path, len(addresses), maxInterfaceSettings)
	var valid []netip.Prefix
	seen := sets.New[netip.Addr]()
	for i, address := range addresses {
		prefix, wrong := parseAddress(address, path.Index(i))
		faults = append(faults, wrong...)
		if len(wrong) > 0 {
			continue
		}
		if seen.Has(prefix.Addr()) {
			faults = append(faults, again(path.Index(i), address, "an interface has an address once, with one length; leave one of them out"))
			continue
		}
		seen.Insert(prefix.Addr())
		valid = append(valid, prefix)
	}
	return valid, faults
}

// parseAddress takes an address of an interface, with its prefix length.
func parseAddress(value string, at *field.Path) (netip.Prefix, field.ErrorList) {
	prefix, err := netip.ParsePrefix(value)
	switch {
	case err != nil || prefix.Addr().Is4In6():
		return netip.Prefix{}, field.ErrorList{field.Invalid(at, value, `must be an address with prefix length, such as "10.1.0.5/24" or "2001:db8::5/64"`)}
	case !isUnicast(prefix.Addr()):
		return netip.Prefix{}, field.ErrorList{field.Invalid(at, value, "must be a unicast address that is not a loopback one")}
	}
	return prefix, nil
}

func isUnicast(a netip.Addr) bool {
	return !a.IsUnspecified() && !a.IsMulticast() && !a.IsLoopback() && a != netip.AddrFrom4([4]byte{255, 255, 255, 255})
}

func validateMTU(mtu *int32, addresses []netip.Prefix) field.ErrorList {
	at := field.NewPath("mtu")
	switch {
	case mtu == nil:
		return nil
	case *mtu < 68 || *mtu > 65535:
		return field.ErrorList{field.Invalid(at, *mtu, "must be 68 to 65535 bytes")}
	case *mtu < 1280 && slices.ContainsFunc(addresses, func(p netip.Prefix) bool { return p.Addr().Is6() }):
		// RFC 8200 section 5; Linux removes IPv6 from an interface with less.
		return field.ErrorList{field.Invalid(at, *mtu, "must be at least 1280 bytes on an interface with IPv6 addresses")}
	}
	return nil
}

func validateNetworks(config *NICConfig, at *field.Path) field.ErrorList {
	faults := tooMany(at, len(config.Networks), maxNetworks)
	names := map[string]int{}
	for i, network := range config.Networks {
		faults = append(faults, validateNetwork(network, at.Index(i))...)
		name := network.InterfaceName
		if name == config.InterfaceName {
			name = "" // the device's own
		}
		if first, taken := names[name]; taken && name != "" {
			faults = append(faults, field.Invalid(at.Index(i).Child("interfaceName"), network.InterfaceName, fmt.Sprintf("is that of networks[%d], too, and each of them would make an interface of that name; give each its own", first)))
			continue
		}
		names[name] = i
	}
	return faults
}

func validateNetwork(network NetworkReference, at *field.Path) field.ErrorList {
	var faults field.ErrorList
	for _, message := range validation.IsDNS1123Subdomain(network.Name) {
		faults = append(faults, field.Invalid(at.Child("name"), network.Name, message))
	}
	if network.Namespace != "" {
		for _, message := range validation.IsDNS1123Label(network.Namespace) {
			faults = append(faults, field.Invalid(at.Child("namespace"), network.Namespace, message))
		}
	}
	faults = append(faults, validateInterfaceName(network.InterfaceName, at.Child("interfaceName"))...)
	faults = append(faults, tooMany(at.Child("ips"), len(network.IPs), maxInterfaceSettings)...)
	for i, ip := range network.IPs {
		_, wrong := parseAddress(ip, at.Child("ips").Index(i))
		faults = append(faults, wrong...)
		if slices.Contains(network.IPs[:i], ip) {
			faults = append(faults, again(at.Child("ips").Index(i), ip, "leave one of them out"))
		}
	}
	if network.MAC != "" {
		faults = append(faults, validateMAC(network.MAC, at.Child("mac"))...)
	}
	faults = append(faults, tooMany(at.Child("defaultRoute"), len(network.DefaultRoute), maxInterfaceSettings)...)
	for i, gateway := range network.DefaultRoute {
		_, wrong := parseHost(gateway, at.Child("defaultRoute").Index(i))
		faults = append(faults, wrong...)
		sameFamily := func(other string) bool { return strings.Contains(other, ":") == strings.Contains(gateway, ":") }
		if slices.ContainsFunc(network.DefaultRoute[:i], sameFamily) {
			faults = append(faults, field.Invalid(at.Child("defaultRoute").Index(i), gateway, "is the second gateway of its address family; a pod has one default route for IPv4 and one for IPv6"))
		}
	}
	return faults
}

// parseHost takes the address of one host.
func parseHost(value string, at *field.Path) (netip.Addr, field.ErrorList) {
	address, err := netip.ParseAddr(value)
	switch {
	case err != nil || address.Zone() != "" || address.Is4In6():
		return netip.Addr{}, field.ErrorList{field.Invalid(at, value, "must be an IP address without a zone")}
	case !isUnicast(address):
		return netip.Addr{}, field.ErrorList{field.Invalid(at, value, "must be a unicast address that is not a loopback one")}
	}
	return address, nil
}

func tooMany(at *field.Path, count, most int) field.ErrorList {
	if count <= most {
		return nil
	}
	return field.ErrorList{field.TooMany(at, count, most)}
}
