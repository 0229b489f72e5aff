// Package egress turns an egress scope into rules that the kernel enforces in a
// pod's network namespace, and shows that it does.
//
// Compile is pure: scope and resolvers in, a Ruleset in canonical form out,
// whose hash is the identity of the kernel's state. Evaluate is pure too and
// says what the Ruleset means for one packet; tests hold it against the kernel.
// Enforce writes a Ruleset into a namespace in one transaction, Verify reads it
// back. The package knows nothing of claims, pods or where a scope came from.
package egress

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"

	"github.com/hostler-dev/hostler/api/v1alpha1"
)

// Ruleset is a scope in canonical form: address and port ranges are disjoint,
// sorted and merged, so that scopes that mean the same read the same. A packet
// meets the members in the order of the fields, and the first that matches
// decides; what none matches is refused. Ahead of all of them stand loopback,
// replies to what came in, and the kernel's IPv6 neighbour discovery.
type Ruleset struct {
	// Never is refused whatever follows: the scope's own never list.
	Never []AddressRange
	// Resolvers may be reached on port 53, TCP and UDP. They stand before
	// BuiltInNever because a node-local resolver has a link-local address.
	Resolvers []netip.Addr
	// BuiltInNever is refused whatever a rule allows: link-local and metadata
	// addresses, and those of the pod's node.
	BuiltInNever []AddressRange
	// Allow, in the scope's order.
	Allow []Rule
}

// Rule allows ports at destinations.
type Rule struct {
	Name  string
	To    []AddressRange
	Ports []PortRange
}

// AddressRange is First to Last, both included and of one family.
type AddressRange struct{ First, Last netip.Addr }

// PortRange is First to Last of one protocol.
type PortRange struct {
	Protocol    Protocol
	First, Last uint16
}

// Protocol is an IP protocol number.
type Protocol uint8

// The protocols that rules can name, and the one of neighbour discovery.
const (
	TCP    Protocol = 6
	UDP    Protocol = 17
	ICMPv6 Protocol = 58
	SCTP   Protocol = 132
)

// dnsPort is where resolvers listen.
const dnsPort = 53

// builtInNever are link-local addresses, where clouds keep instance credentials,
// and the metadata services that live elsewhere.
func builtInNever() []string {
	return []string{
		"169.254.0.0/16",     // IPv4 link-local (RFC 3927); 169.254.169.254 on AWS, Google, Azure, OpenStack
		"fe80::/10",          // IPv6 link-local; neighbour discovery is accepted before
		"fd00:ec2::254/128",  // AWS instance metadata over IPv6
		"fd20:ce::254/128",   // Google metadata server over IPv6
		"100.100.100.200/32", // Alibaba Cloud metadata
		"168.63.129.16/32",   // Azure WireServer
		"192.0.0.192/32",     // Oracle Cloud metadata
	}
}

// Compile brings a valid, defaulted scope into canonical form. The addresses of
// the node join the built-in never list. What is denied is the address that the
// pod itself writes on a packet: an API server behind a service's address can be
// allowed by that address, whichever node it runs on. Members that
// cannot be read match nothing where they allow and are an error where they deny.
func Compile(config v1alpha1.EgressConfig, resolvers, nodes []netip.Addr) (Ruleset, error) {
	never, err := prefixRanges(config.Never)
	if err != nil {
		return Ruleset{}, fmt.Errorf("egress scope: never: %w", err)
	}
	builtIn, err := prefixRanges(builtInNever())
	if err != nil {
		return Ruleset{}, fmt.Errorf("egress scope: built-in never list: %w", err)
	}
	for _, node := range nodes {
		addr := node.Unmap().WithZone("")
		builtIn = append(builtIn, AddressRange{addr, addr})
	}
	rules := Ruleset{Never: never, BuiltInNever: merge(builtIn)}
	if config.DNS == v1alpha1.DNSClusterResolver {
		for _, resolver := range resolvers {
			rules.Resolvers = append(rules.Resolvers, resolver.Unmap().WithZone(""))
		}
		slices.SortFunc(rules.Resolvers, netip.Addr.Compare)
		rules.Resolvers = slices.Compact(rules.Resolvers)
	}
	for _, allow := range config.Allow {
		rule := Rule{Name: allow.Name, Ports: portRanges(allow.Ports)}
		for _, peer := range allow.To {
			if peer.CIDR == nil {
				continue
			}
			ranges, err := peerRanges(*peer.CIDR)
			if err != nil {
				return Ruleset{}, fmt.Errorf("egress scope: allow %q: %w", allow.Name, err)
			}
			rule.To = append(rule.To, ranges...)
		}
		rule.To = merge(rule.To)
		rules.Allow = append(rules.Allow, rule)
	}
	return rules, nil
}

func portRanges(ports []v1alpha1.EgressPort) []PortRange {
	numbers := map[v1alpha1.EgressProtocol]Protocol{v1alpha1.ProtocolTCP: TCP, v1alpha1.ProtocolUDP: UDP, v1alpha1.ProtocolSCTP: SCTP}
	var ranges []PortRange
	for _, port := range ports {
		if number, known := numbers[port.Protocol]; known {
			ranges = append(ranges, PortRange{number, uint16(port.Port), uint16(max(port.Port, port.EndPort))})
		}
	}
	slices.SortFunc(ranges, func(a, b PortRange) int {
		return cmp.Or(cmp.Compare(a.Protocol, b.Protocol), cmp.Compare(a.First, b.First))
	})
	var merged []PortRange
	for _, next := range ranges {
		if n := len(merged); n > 0 && merged[n-1].Protocol == next.Protocol && int(next.First) <= int(merged[n-1].Last)+1 {
			merged[n-1].Last = max(merged[n-1].Last, next.Last)
			continue
		}
		merged = append(merged, next)
	}
	return merged
}

// Hash identifies the ruleset; equal rulesets have equal hashes. The version in
// it stands for the form that Enforce gives a ruleset in the kernel.
func (r Ruleset) Hash() string {
	sum := sha256.Sum256(r.appendText([]byte("hostler egress form 5\n")))
	return hex.EncodeToString(sum[:16])
}

// String is the canonical form, for golden files and people.
func (r Ruleset) String() string { return string(r.appendText(nil)) }

// appendText is written without package fmt because a scope is hashed at each
// enforcement, and 1,000 prefixes would take a tenth of the time that has.
func (r Ruleset) appendText(text []byte) []byte {
	for _, never := range r.Never {
		text = never.appendTo(append(text, "never "...))
	}
	for _, resolver := range r.Resolvers {
		text = append(resolver.AppendTo(append(text, "resolver "...)), '\n')
	}
	for _, never := range r.BuiltInNever {
		text = never.appendTo(append(text, "built-in never "...))
	}
	for _, rule := range r.Allow {
		text = append(append(append(text, "allow "...), rule.Name...), '\n')
		for _, to := range rule.To {
			text = to.appendTo(append(text, "  to "...))
		}
		for _, ports := range rule.Ports {
			text = fmt.Appendf(text, "  port %s %d-%d\n", ports.Protocol, ports.First, ports.Last)
		}
	}
	return append(text, "refuse the rest\n"...)
}

func (r AddressRange) appendTo(line []byte) []byte {
	line = append(r.First.AppendTo(line), '-')
	return append(r.Last.AppendTo(line), '\n')
}

func (p Protocol) String() string {
	switch p {
	case TCP:
		return "tcp"
	case UDP:
		return "udp"
	case SCTP:
		return "sctp"
	case ICMPv6:
		return "icmpv6"
	}
	return fmt.Sprintf("protocol-%d", uint8(p))
}
