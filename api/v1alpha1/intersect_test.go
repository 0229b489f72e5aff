package v1alpha1

import (
	"fmt"
	"net/netip"
	"testing"

	"pgregory.net/rapid"
)

// allows is the plain meaning of a scope's rules, written without any of the
// code under test.
func allows(config EgressConfig, to netip.Addr, protocol EgressProtocol, port int32) bool {
	for _, never := range config.Never {
		if netip.MustParsePrefix(never).Contains(to) {
			return false
		}
	}
	for _, rule := range config.Allow {
		if inPeers(rule.To, to) && inPorts(rule.Ports, protocol, port) {
			return true
		}
	}
	return false
}

func inPeers(peers []EgressPeer, to netip.Addr) bool {
	for _, peer := range peers {
		inside := netip.MustParsePrefix(peer.CIDR.CIDR).Contains(to)
		for _, except := range peer.CIDR.Except {
			inside = inside && !netip.MustParsePrefix(except).Contains(to)
		}
		if inside {
			return true
		}
	}
	return false
}

func inPorts(ports []EgressPort, protocol EgressProtocol, port int32) bool {
	for _, p := range ports {
		if p.Protocol == protocol && port >= p.Port && port <= max(p.Port, p.EndPort) {
			return true
		}
	}
	return false
}

// Addresses are drawn from a small corner of both families so that scopes meet.
func anyAddr(t *rapid.T) netip.Addr {
	low := byte(rapid.IntRange(0, 15).Draw(t, "low"))
	if rapid.Bool().Draw(t, "IPv6") {
		return netip.AddrFrom16([16]byte{0x20, 0x01, 0x0d, 0xb8, 15: low})
	}
	return netip.AddrFrom4([4]byte{10, 0, 0, low})
}

func anyPrefix(t *rapid.T) netip.Prefix {
	addr := anyAddr(t)
	return netip.PrefixFrom(addr, addr.BitLen()-rapid.IntRange(0, 5).Draw(t, "host bits")).Masked()
}

func anyProtocol(t *rapid.T) EgressProtocol {
	return rapid.SampledFrom([]EgressProtocol{ProtocolTCP, ProtocolUDP, ProtocolSCTP}).Draw(t, "protocol")
}

func anyScope(t *rapid.T, side string) EgressConfig {
	config := EgressConfig{
		DNS:          rapid.SampledFrom([]DNSMode{DNSClusterResolver, DNSNone}).Draw(t, "dns"),
		KernelBypass: rapid.SampledFrom([]KernelBypass{KernelBypassAllow, KernelBypassDeny}).Draw(t, "bypass"),
	}
	for i := range rapid.IntRange(0, 3).Draw(t, "rules") {
		rule := EgressRule{Name: fmt.Sprintf("%s-%d", side, i)}
		for range rapid.IntRange(1, 2).Draw(t, "peers") {
			outer := anyPrefix(t)
			peer := &CIDRPeer{CIDR: outer.String()}
			if hole := anyPrefix(t); hole.Bits() >= outer.Bits() && outer.Contains(hole.Addr()) {
				peer.Except = []string{hole.String()}
			}
			rule.To = append(rule.To, EgressPeer{CIDR: peer})
		}
		for range rapid.IntRange(1, 2).Draw(t, "ports") {
			first := int32(rapid.IntRange(1, 6).Draw(t, "port"))
			port := EgressPort{Protocol: anyProtocol(t), Port: first}
			if rapid.Bool().Draw(t, "range") {
				port.EndPort = first + int32(rapid.IntRange(0, 3).Draw(t, "length"))
			}
			rule.Ports = append(rule.Ports, port)
		}
		config.Allow = append(config.Allow, rule)
	}
	if rapid.Bool().Draw(t, "never") {
		config.Never = []string{anyPrefix(t).String()}
	}
	return config
}

func TestIntersectAllowsExactlyWhatBothAllow(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		class, claim := anyScope(t, "class"), anyScope(t, "claim")
		both := Intersect(class, claim)
		for range 20 {
			to, protocol, port := anyAddr(t), anyProtocol(t), int32(rapid.IntRange(1, 10).Draw(t, "destination port"))
			want := allows(class, to, protocol, port) && allows(claim, to, protocol, port)
			if got := allows(both, to, protocol, port); got != want {
				t.Fatalf("%s %s port %d: allowed is %v, want %v\nclass %+v\nclaim %+v\nboth %+v", protocol, to, port, got, want, class, claim, both)
			}
		}
		if both.DNS == DNSClusterResolver && (class.DNS == DNSNone || claim.DNS == DNSNone) {
			t.Fatal("name resolution was widened")
		}
		if both.KernelBypass == KernelBypassAllow && (class.KernelBypass == KernelBypassDeny || claim.KernelBypass == KernelBypassDeny) {
			t.Fatal("kernel bypass was widened")
		}
		if faults := ValidateEgressConfig(&both); len(faults) > 0 {
			t.Fatalf("the result is not a valid scope: %v", faults)
		}
	})
}

func TestIntersectOfAScopeWithItselfChangesNoVerdict(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		scope := anyScope(t, "r")
		same := Intersect(scope, scope)
		to, protocol, port := anyAddr(t), anyProtocol(t), int32(rapid.IntRange(1, 10).Draw(t, "destination port"))
		if allows(scope, to, protocol, port) != allows(same, to, protocol, port) {
			t.Fatalf("%s %s %d: verdict differs\n%+v\n%+v", protocol, to, port, scope, same)
		}
	})
}

func TestIntersectNamesAreUniqueLabels(t *testing.T) {
	long := "a-name-that-is-as-long-as-a-label-may-be-which-is-63-characters"
	wide := func(name string) EgressRule {
		return EgressRule{Name: name, To: []EgressPeer{{CIDR: &CIDRPeer{CIDR: "0.0.0.0/0"}}}, Ports: []EgressPort{{Port: 1, EndPort: 65535}}}
	}
	class := EgressConfig{Allow: []EgressRule{wide("x"), wide("y"), wide(long)}}
	claim := EgressConfig{Allow: []EgressRule{wide(long), wide("x")}}
	both := Intersect(class, claim)
	if len(both.Allow) != 6 {
		t.Fatalf("%d rules, want every pair", len(both.Allow))
	}
	if faults := ValidateEgressConfig(&both); len(faults) > 0 {
		t.Fatal(faults)
	}
}
