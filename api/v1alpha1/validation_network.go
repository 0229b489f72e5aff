package v1alpha1

// Validation of what goes into a pod's network namespace. Prefixes are taken
// only in their canonical form: "10.1.2.3/8" in a scope is more likely a slip of
// the pen than a wish for all of 10.0.0.0/8, and a mapped address
// ("::ffff:10.0.0.1") would pass as one family and be meant as the other.

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// maxEgressRules keeps a scope readable and its counters few.
const maxEgressRules = 64

// ValidateNICConfig judges a NICConfig.
func ValidateNICConfig(config *NICConfig) field.ErrorList {
	faults := validateNICMode(config)
	faults = append(faults, validateInterfaceName(config.InterfaceName, field.NewPath("interfaceName"))...)
	wantsIPv6 := false
	seen := sets.New[string]()
	for i, address := range config.Addresses {
		at := field.NewPath("addresses").Index(i)
		prefix, err := netip.ParsePrefix(address)
		switch {
		case err != nil || prefix.Addr().Is4In6():
			faults = append(faults, field.Invalid(at, address, `must be an address with prefix length, such as "10.1.0.5/24" or "2001:db8::5/64"`))
		case prefix.Addr().IsUnspecified() || prefix.Addr().IsMulticast() || prefix.Addr().IsLoopback():
			faults = append(faults, field.Invalid(at, address, "must be a unicast address that is not a loopback one"))
		case seen.Has(prefix.Addr().String()):
			faults = append(faults, field.Duplicate(at, address))
		default:
			seen.Insert(prefix.Addr().String())
			wantsIPv6 = wantsIPv6 || prefix.Addr().Is6()
		}
	}
	for i, route := range config.Routes {
		faults = append(faults, validateRoute(route, field.NewPath("routes").Index(i))...)
	}
	if config.MTU != nil {
		if *config.MTU < 68 || *config.MTU > 65535 {
			faults = append(faults, field.Invalid(field.NewPath("mtu"), *config.MTU, "must be 68 to 65535 bytes"))
		} else if wantsIPv6 && *config.MTU < 1280 {
			// RFC 8200 section 5; Linux removes IPv6 from an interface with less.
			faults = append(faults, field.Invalid(field.NewPath("mtu"), *config.MTU, "must be at least 1280 bytes on an interface with IPv6 addresses"))
		}
	}
	if modes := []RDMAMode{RDMAAuto, RDMANone}; !slices.Contains(modes, config.RDMA) {
		faults = append(faults, field.NotSupported(field.NewPath("rdma"), config.RDMA, modes))
	}
	faults = append(faults, validateVF(config.VF, field.NewPath("vf"))...)
	return append(faults, validateNetworks(config.Networks, field.NewPath("networks"))...)
}

// validateInterfaceName follows dev_valid_name in the kernel's net/core/dev.c,
// and refuses "%", which the kernel takes as a request to choose a number.
func validateInterfaceName(name string, at *field.Path) field.ErrorList {
	switch {
	case name == "":
		return nil
	case len(name) > 15:
		return field.ErrorList{field.TooLong(at, name, 15)}
	case name == "." || name == ".." || name == "lo" || name == "all" || name == "default":
		return field.ErrorList{field.Invalid(at, name, "is reserved by the kernel; choose another name")}
	case strings.IndexFunc(name, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune("/:%", r) }) >= 0:
		return field.ErrorList{field.Invalid(at, name, "must consist of printable ASCII characters other than space, '/', ':' and '%'")}
	}
	return nil
}

func validateRoute(route Route, at *field.Path) field.ErrorList {
	destination, faults := parseCIDR(route.Destination, at.Child("destination"))
	if route.Gateway == "" {
		return faults
	}
	gateway, err := netip.ParseAddr(route.Gateway)
	switch {
	case err != nil || gateway.Zone() != "" || gateway.Is4In6():
		faults = append(faults, field.Invalid(at.Child("gateway"), route.Gateway, "must be an IP address without a zone"))
	case destination.IsValid() && destination.Addr().Is4() != gateway.Is4():
		faults = append(faults, field.Invalid(at.Child("gateway"), route.Gateway, "must be of the destination's address family"))
	}
	return faults
}

func validateNetworks(networks []NetworkReference, at *field.Path) field.ErrorList {
	var faults field.ErrorList
	if len(networks) > 1 {
		faults = append(faults, field.TooMany(at, len(networks), 1))
	}
	for i, network := range networks {
		for _, message := range validation.IsDNS1123Subdomain(network.Name) {
			faults = append(faults, field.Invalid(at.Index(i).Child("name"), network.Name, message))
		}
		if network.Namespace == "" {
			continue
		}
		for _, message := range validation.IsDNS1123Label(network.Namespace) {
			faults = append(faults, field.Invalid(at.Index(i).Child("namespace"), network.Namespace, message))
		}
	}
	return faults
}

// ValidateEgressConfig judges an EgressConfig.
func ValidateEgressConfig(config *EgressConfig) field.ErrorList {
	var faults field.ErrorList
	path := field.NewPath("allow")
	if len(config.Allow) > maxEgressRules {
		faults = append(faults, field.TooMany(path, len(config.Allow), maxEgressRules))
	}
	names := sets.New[string]()
	for i, rule := range config.Allow {
		if names.Has(rule.Name) {
			faults = append(faults, field.Duplicate(path.Index(i).Child("name"), rule.Name))
		}
		names.Insert(rule.Name)
		faults = append(faults, validateEgressRule(rule, path.Index(i))...)
	}
	if modes := []DNSMode{DNSClusterResolver, DNSNone}; !slices.Contains(modes, config.DNS) {
		faults = append(faults, field.NotSupported(field.NewPath("dns"), config.DNS, modes))
	}
	for i, never := range config.Never {
		_, fault := parseCIDR(never, field.NewPath("never").Index(i))
		faults = append(faults, fault...)
	}
	if modes := []KernelBypass{KernelBypassAllow, KernelBypassDeny}; !slices.Contains(modes, config.KernelBypass) {
		faults = append(faults, field.NotSupported(field.NewPath("kernelBypass"), config.KernelBypass, modes))
	}
	return faults
}

func validateEgressRule(rule EgressRule, at *field.Path) field.ErrorList {
	var faults field.ErrorList
	for _, message := range validation.IsDNS1123Label(rule.Name) {
		faults = append(faults, field.Invalid(at.Child("name"), rule.Name, message))
	}
	if len(rule.To) == 0 {
		faults = append(faults, field.Required(at.Child("to"), "name at least one destination; a rule without any allows nothing"))
	}
	for i, peer := range rule.To {
		if peer.CIDR == nil {
			faults = append(faults, field.Required(at.Child("to").Index(i).Child("cidr"), "a destination is a cidr"))
			continue
		}
		faults = append(faults, validateCIDRPeer(*peer.CIDR, at.Child("to").Index(i).Child("cidr"))...)
	}
	if len(rule.Ports) == 0 {
		faults = append(faults, field.Required(at.Child("ports"), "name at least one port; a rule without any allows nothing"))
	}
	for i, port := range rule.Ports {
		faults = append(faults, validateEgressPort(port, at.Child("ports").Index(i))...)
	}
	return faults
}

func validateCIDRPeer(peer CIDRPeer, at *field.Path) field.ErrorList {
	outer, faults := parseCIDR(peer.CIDR, at.Child("cidr"))
	for i, except := range peer.Except {
		inner, fault := parseCIDR(except, at.Child("except").Index(i))
		faults = append(faults, fault...)
		if outer.IsValid() && inner.IsValid() && (inner.Bits() < outer.Bits() || !outer.Contains(inner.Addr())) {
			faults = append(faults, field.Invalid(at.Child("except").Index(i), except, "must lie inside "+peer.CIDR))
		}
	}
	return faults
}

func validateEgressPort(port EgressPort, at *field.Path) field.ErrorList {
	var faults field.ErrorList
	if known := []EgressProtocol{ProtocolSCTP, ProtocolTCP, ProtocolUDP}; !slices.Contains(known, port.Protocol) {
		faults = append(faults, field.NotSupported(at.Child("protocol"), port.Protocol, known))
	}
	if port.Port < 1 || port.Port > 65535 {
		faults = append(faults, field.Invalid(at.Child("port"), port.Port, "must be 1 to 65535"))
	}
	if port.EndPort != 0 && (port.EndPort < port.Port || port.EndPort > 65535) {
		faults = append(faults, field.Invalid(at.Child("endPort"), port.EndPort, "must be port to 65535"))
	}
	return faults
}

func parseCIDR(value string, at *field.Path) (netip.Prefix, field.ErrorList) {
	prefix, err := netip.ParsePrefix(value)
	if err != nil || prefix.Addr().Is4In6() {
		return netip.Prefix{}, field.ErrorList{field.Invalid(at, value, `must be a prefix, such as "10.0.0.0/8" or "2001:db8::/32"`)}
	}
	if prefix != prefix.Masked() {
		return netip.Prefix{}, field.ErrorList{field.Invalid(at, value, fmt.Sprintf("has address bits beyond its length; write %q", prefix.Masked()))}
	}
	return prefix, nil
}
