package v1alpha1

// Validation of egress scopes, and of prefixes in general. These are taken only
// in their canonical form: "10.1.2.3/8" in a scope is more likely a slip of
// the pen than a wish for all of 10.0.0.0/8, and a mapped address
// ("::ffff:10.0.0.1") would pass as one family and be meant as the other.

import (
	"fmt"
	"net/netip"
	"slices"

	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// maxEgressRules keeps a scope readable and its counters few.
const maxEgressRules = 64

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
			faults = append(faults, again(path.Index(i).Child("name"), rule.Name, "give each rule a name of its own"))
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
		faults = append(faults, field.Invalid(at.Child("endPort"), port.EndPort, fmt.Sprintf("must be %d (port) to 65535; correct it, or leave it out for one port", port.Port)))
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
