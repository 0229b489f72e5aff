package v1alpha1

// A DeviceClass's egress scope is the administrator's ceiling. What a pod gets
// is the intersection of the ceiling and the claim, so that a tenant can narrow
// a scope and never widen it; what either never allows is never allowed.

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Intersect returns the scope that allows exactly what both allow. Both must be
// valid; defaults need not be set. It is used only where a class has a scope:
// a class without one is no ceiling. Rules keep the claim's names; where one
// meets several rules of the class, the class's names are appended.
func Intersect(class, claim EgressConfig) EgressConfig {
	class, claim = *class.DeepCopy(), *claim.DeepCopy()
	SetDefaults_EgressConfig(&class)
	SetDefaults_EgressConfig(&claim)
	both := EgressConfig{TypeMeta: claim.TypeMeta, DNS: DNSNone, KernelBypass: KernelBypassDeny}
	if class.DNS == DNSClusterResolver && claim.DNS == DNSClusterResolver {
		both.DNS = DNSClusterResolver
	}
	if class.KernelBypass == KernelBypassAllow && claim.KernelBypass == KernelBypassAllow {
		both.KernelBypass = KernelBypassAllow
	}
	both.Never = append(class.Never, claim.Never...)
	slices.Sort(both.Never)
	both.Never = slices.Compact(both.Never)

	taken := map[string]bool{}
	for _, wanted := range claim.Allow {
		for _, ceiling := range class.Allow {
			rule := EgressRule{To: intersectPeers(ceiling.To, wanted.To), Ports: intersectPorts(ceiling.Ports, wanted.Ports)}
			if len(rule.To) == 0 || len(rule.Ports) == 0 {
				continue
			}
			rule.Name = freeName(taken, wanted.Name, ceiling.Name)
			both.Allow = append(both.Allow, rule)
		}
	}
	return both
}

// freeName makes a DNS label that no other rule of the result has.
func freeName(taken map[string]bool, claim, class string) string {
	const longest = 63
	name := claim
	for n := 1; taken[name]; n++ {
		suffix := "-" + class
		if n > 1 {
			suffix = fmt.Sprintf("-%d", n)
		}
		room := max(1, longest-len(suffix))
		name = claim[:min(len(claim), room)] + suffix
		name = strings.TrimRight(name[:min(len(name), longest)], "-")
	}
	taken[name] = true
	return name
}

func intersectPeers(class, claim []EgressPeer) []EgressPeer {
	var both []EgressPeer
	for _, a := range class {
		for _, b := range claim {
			if a.CIDR == nil || b.CIDR == nil {
				continue // a member that is not known matches nothing
			}
			if peer, ok := intersectCIDR(*a.CIDR, *b.CIDR); ok {
				both = append(both, EgressPeer{CIDR: &peer})
			}
		}
	}
	return both
}

func intersectCIDR(a, b CIDRPeer) (CIDRPeer, bool) {
	pa, errA := netip.ParsePrefix(a.CIDR)
	pb, errB := netip.ParsePrefix(b.CIDR)
	if errA != nil || errB != nil || !pa.Overlaps(pb) {
		return CIDRPeer{}, false
	}
	inner := pa
	if pb.Bits() > pa.Bits() {
		inner = pb
	}
	both := CIDRPeer{CIDR: inner.String()}
	for _, text := range append(slices.Clone(a.Except), b.Except...) {
		hole, err := netip.ParsePrefix(text)
		switch {
		case err != nil:
			return CIDRPeer{}, false // a hole that cannot be read may be anywhere
		case !hole.Overlaps(inner):
		case hole.Bits() <= inner.Bits():
			return CIDRPeer{}, false // the hole swallows what is left
		default:
			both.Except = append(both.Except, hole.String())
		}
	}
	slices.Sort(both.Except)
	both.Except = slices.Compact(both.Except)
	return both, true
}

func intersectPorts(class, claim []EgressPort) []EgressPort {
	var both []EgressPort
	for _, a := range class {
		for _, b := range claim {
			first, last := max(a.Port, b.Port), min(a.last(), b.last())
			if a.Protocol != b.Protocol || first > last {
				continue
			}
			port := EgressPort{Protocol: a.Protocol, Port: first}
			if last > first {
				port.EndPort = last
			}
			both = append(both, port)
		}
	}
	return both
}

// last is the range's upper end.
func (p EgressPort) last() int32 { return max(p.Port, p.EndPort) }
