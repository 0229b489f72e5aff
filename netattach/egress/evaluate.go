package egress

// What a Ruleset means, in Go. It is the specification that the kernel's state
// is tested against, and the answer to "would this pod reach that address?".

import (
	"net/netip"
	"slices"
)

// Packet is one packet about to leave a pod.
type Packet struct {
	// Loopback: it leaves through lo and stays in the pod.
	Loopback bool
	// Raw: it was written to a packet socket (AF_PACKET) and has passed neither
	// the IP stack nor its filters. ARP of the kernel's own is not meant.
	Raw bool
	// Forwarded: it came in from outside and the pod routes it on.
	Forwarded bool
	// Reply: it answers, or reports an error on, a flow that came in from outside.
	Reply bool
	// FromUser: a process sent it, not the kernel by itself.
	FromUser bool

	Destination netip.Addr
	Protocol    Protocol
	// Port is the destination port of TCP, UDP and SCTP.
	Port uint16
	// ICMPv6Type and HopLimit tell neighbour discovery.
	ICMPv6Type, HopLimit uint8
}

// Verdict is what happens to a packet.
type Verdict struct {
	Allowed bool
	// Rule is the name of the allow rule that matched, or one of the fixed names.
	Rule string
}

// The names of what decides beside allow rules.
const (
	RuleLoopback           = "loopback"
	RuleReply              = "reply"
	RuleNeighbourDiscovery = "neighbour-discovery"
	RuleNever              = "never"
	RuleResolver           = "resolver"
	RuleBuiltInNever       = "built-in-never"
	RuleDefault            = "default"
	RuleRaw                = "raw-socket"
	RuleForward            = "forward"
)

// ICMPv6 types: neighbour discovery (RFC 4861) without router advertisements
// and redirects, which a pod has no business sending, and the multicast
// listener reports (RFC 2710, RFC 3810) without which a snooping switch does
// not deliver neighbour solicitations. All of them are the kernel's to send.
func neighbourDiscoveryTypes() []uint8 { return []uint8{133, 135, 136} }
func listenerReportTypes() []uint8     { return []uint8{131, 132, 143} }

// neighbourDiscoveryHopLimit is what receivers demand (RFC 4861, section 6.1).
const neighbourDiscoveryHopLimit = 255

// linkScopeMulticast never crosses a router.
func linkScopeMulticast() netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom16([16]byte{0xff, 0x02}), 16)
}

// Evaluate says what the kernel does with a packet once rules are enforced.
func Evaluate(rules Ruleset, packet Packet) Verdict {
	switch {
	case packet.Loopback:
		return Verdict{true, RuleLoopback}
	case packet.Raw:
		return Verdict{false, RuleRaw}
	case packet.Forwarded:
		return Verdict{false, RuleForward}
	case packet.Reply:
		return Verdict{true, RuleReply}
	case isNeighbourDiscovery(packet):
		return Verdict{true, RuleNeighbourDiscovery}
	case contains(rules.Never, packet.Destination):
		return Verdict{false, RuleNever}
	case (packet.Protocol == TCP || packet.Protocol == UDP) && packet.Port == dnsPort && slices.Contains(rules.Resolvers, packet.Destination):
		return Verdict{true, RuleResolver}
	case contains(rules.BuiltInNever, packet.Destination):
		return Verdict{false, RuleBuiltInNever}
	}
	for _, rule := range rules.Allow {
		if contains(rule.To, packet.Destination) && slices.ContainsFunc(rule.Ports, func(ports PortRange) bool {
			return ports.Protocol == packet.Protocol && ports.First <= packet.Port && packet.Port <= ports.Last
		}) {
			return Verdict{true, rule.Name}
		}
	}
	return Verdict{false, RuleDefault}
}

func isNeighbourDiscovery(packet Packet) bool {
	if packet.FromUser || packet.Protocol != ICMPv6 || !packet.Destination.Is6() {
		return false
	}
	return slices.Contains(neighbourDiscoveryTypes(), packet.ICMPv6Type) && packet.HopLimit == neighbourDiscoveryHopLimit ||
		slices.Contains(listenerReportTypes(), packet.ICMPv6Type) && linkScopeMulticast().Contains(packet.Destination)
}
