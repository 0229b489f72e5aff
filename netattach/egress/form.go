package egress

// The form that a ruleset takes in the kernel: which tables, chains, sets and
// rules. It is computed in full, as plain values, before anything is written,
// so that Enforce and Verify cannot disagree about it.
//
// Two hooks work together. The inet output chain has conntrack and decides.
// AF_PACKET writes past it, so each interface has a netdev egress chain that
// drops what does not carry the mark that the output chain puts on what it
// allowed; netdev has no conntrack of its own. The mark is a random secret per
// pod, because CAP_NET_RAW, which containers have by default, suffices for
// SO_MARK since Linux 5.17. It also suffices to read marks, so the mark is taken
// off where a socket could see it: by the netdev chain before packet sockets get
// their copy, and by prerouting from the copies that come back when multicast
// leaves. An interface on top of another one of the pod (vlan, macvlan) has
// therefore no way out: its packets come to the lower one without the mark.
// And because 32 bits can be tried out within hours, or minutes by many
// processes, a marked packet must also have a route, which AF_PACKET gives none.
//
// AF_XDP, which CAP_NET_RAW opens too, passes neither hook: the kernel hands its
// frames to the driver (xsk_generic_xmit in net/xdp/xsk.c). Nothing in here
// stops a container that has the capability and whose seccomp profile lets it
// make such a socket.
//
// Replies pass only on flows whose first packet really came in from outside:
// prerouting puts a mark on their conntrack entry. Otherwise a pod could send
// itself a raw packet "from" any address through lo and then reply to it. That
// mark is another number, because /proc/net/nf_conntrack shows it to the pod.

import (
	"fmt"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

const (
	// tableName is the name of both tables, inet and netdev.
	tableName      = "hostler"
	prerouting     = "prerouting"
	output         = "output"
	forward        = "forward"
	refuse         = "refuse"
	discovery      = "discovery"
	netdevChain    = "egress-" // + interface name
	afterConntrack = -150      // NF_IP_PRI_CONNTRACK is -200, NF_IP_PRI_NAT_DST -100
)

// form is what should be in the kernel.
type form struct {
	tables []*nftables.Table
	chains []chainForm
	sets   []setForm
}

type chainForm struct {
	chain *nftables.Chain
	rules []ruleForm
}

type ruleForm struct {
	comment     string
	expressions []expr.Any
}

type setForm struct {
	set *nftables.Set
	// elements are in the order of their keys.
	elements []element
}

// element of an interval set: where an interval starts, or the first address
// behind it.
type element struct {
	key netip.Addr
	end bool
}

// marks are the two random numbers of a pod. Neither is 0, which is what
// unmarked packets and flows carry, and neither tells anything of the other.
type marks struct {
	// packet is on what the output chain allowed, until it leaves. It is a secret.
	packet uint32
	// flow is on the conntrack entry of what came in from outside.
	flow uint32
}

// inetForm is pure. The hash is that of the rules.
func inetForm(rules Ruleset, hash string, marks marks) form {
	inet := &nftables.Table{Name: tableName, Family: nftables.TableFamilyINet}
	f := form{tables: []*nftables.Table{inet}}
	f.chains = []chainForm{
		{chain: &nftables.Chain{Table: inet, Name: refuse}, rules: refusal()},
		{chain: &nftables.Chain{Table: inet, Name: discovery}, rules: discoveryRules(marks)},
		{
			chain: baseChain(inet, prerouting, nftables.ChainHookPrerouting, afterConntrack, nftables.ChainPolicyAccept),
			rules: []ruleForm{
				{"came back", join(marked(marks.packet), setMark(0))},
				{"came in from outside", join(notLoopbackIn(), original(), setConntrackMark(marks.flow))},
			},
		},
		{
			chain: baseChain(inet, forward, nftables.ChainHookForward, 0, nftables.ChainPolicyDrop),
			rules: []ruleForm{{RuleForward, join(count(), drop())}},
		},
		{
			chain: baseChain(inet, output, nftables.ChainHookOutput, 0, nftables.ChainPolicyDrop),
			rules: f.outputRules(inet, rules, hash, marks),
		},
	}
	return f
}

// netdevForm is pure, and has a chain for each interface.
func netdevForm(marks marks, interfaces []string) form {
	netdev := &nftables.Table{Name: tableName, Family: nftables.TableFamilyNetdev}
	f := form{tables: []*nftables.Table{netdev}}
	for _, name := range interfaces {
		chain := baseChain(netdev, netdevChain+name, nftables.ChainHookEgress, 0, nftables.ChainPolicyDrop)
		chain.Device = name
		f.chains = append(f.chains, chainForm{chain: chain, rules: []ruleForm{
			{"decided by " + output, join(marked(marks.packet), routed(), setMark(0), accept())},
			// The protocol below is what the sender says it is, whatever the frame
			// is, so ARP is the kernel's own alone. The EtherType itself is not at
			// the same place in all frames: think of VLAN tags and InfiniBand.
			{RuleRaw, join(fromUser(), count(), drop())},
			{"arp", join(frameProtocol(unix.ETH_P_ARP), accept())},
			{RuleRaw, join(count(), drop())},
		}})
	}
	return f
}

func baseChain(table *nftables.Table, name string, hook *nftables.ChainHook, priority nftables.ChainPriority, policy nftables.ChainPolicy) *nftables.Chain {
	return &nftables.Chain{Table: table, Name: name, Type: nftables.ChainTypeFilter, Hooknum: hook, Priority: &priority, Policy: &policy}
}

// outputRules are the members of a Ruleset in their order, see there.
func (f *form) outputRules(table *nftables.Table, rules Ruleset, hash string, marks marks) []ruleForm {
	allowed := join(count(), setMark(marks.packet), accept())
	refused := join(count(), goTo(refuse))
	list := []ruleForm{
		{identity(hash, marks), join(loopbackOut(), accept())},
		{RuleReply, join(reply(), conntrackMarked(marks.flow), allowed)},
		{RuleNeighbourDiscovery, join(family(false), protocolIs(ICMPv6), jumpTo(discovery))},
	}
	for _, match := range f.destinations(table, "never", rules.Never) {
		list = append(list, ruleForm{RuleNever, join(match, refused)})
	}
	var resolvers []AddressRange
	for _, addr := range rules.Resolvers {
		resolvers = append(resolvers, AddressRange{addr, addr})
	}
	for _, match := range f.destinations(table, "resolver", resolvers) {
		for _, protocol := range []Protocol{TCP, UDP} {
			list = append(list, ruleForm{RuleResolver, join(ports(PortRange{protocol, dnsPort, dnsPort}), match, allowed)})
		}
	}
	for _, match := range f.destinations(table, "built-in-never", rules.BuiltInNever) {
		list = append(list, ruleForm{RuleBuiltInNever, join(match, refused)})
	}
	for i, rule := range rules.Allow {
		for _, match := range f.destinations(table, fmt.Sprintf("allow-%d", i), rule.To) {
			for _, portRange := range rule.Ports {
				list = append(list, ruleForm{allowPrefix + rule.Name, join(ports(portRange), match, allowed)})
			}
		}
	}
	return append(list, ruleForm{RuleDefault, refused})
}

// discoveryRules accept what the kernel itself sends; it knows to whom. With a
// hop limit of 255 a process could reach every address. What they do not accept
// goes on in the output chain.
func discoveryRules(marks marks) []ruleForm {
	allowed := join(count(), setMark(marks.packet), accept())
	list := []ruleForm{{"of a process", join(fromUser(), goBack())}}
	for _, kind := range neighbourDiscoveryTypes() {
		list = append(list, ruleForm{RuleNeighbourDiscovery, join(icmpv6Type(kind), hopLimit(neighbourDiscoveryHopLimit), allowed)})
	}
	for _, kind := range listenerReportTypes() {
		list = append(list, ruleForm{RuleNeighbourDiscovery, join(icmpv6Type(kind), toLinkScopeMulticast(), allowed)})
	}
	return list
}

// allowPrefix keeps a user's rule called "default" apart from ours.
const allowPrefix = "allow "

// identity is the comment by which a ruleset in the kernel is recognised. Reading
// it takes CAP_NET_ADMIN.
func identity(hash string, marks marks) string {
	return fmt.Sprintf("scope %s %08x %08x", hash, marks.packet, marks.flow)
}

func parseIdentity(comment string) (hash string, found marks, ok bool) {
	n, err := fmt.Sscanf(comment, "scope %s %x %x", &hash, &found.packet, &found.flow)
	return hash, found, err == nil && n == 3 && found.packet != 0 && found.flow != 0
}

// refusal answers at once instead of letting the caller wait for a timeout.
func refusal() []ruleForm {
	return []ruleForm{
		{"tcp", join(protocolIs(TCP), rejectTCP())},
		{"other", rejectOther()},
	}
}

// destinations adds a set per address family that ranges has members of, and
// returns the match on each.
func (f *form) destinations(table *nftables.Table, name string, ranges []AddressRange) [][]expr.Any {
	var matches [][]expr.Any
	for _, ipv4 := range []bool{true, false} {
		members := ofFamily(ranges, ipv4)
		if len(members) == 0 {
			continue
		}
		keyType, suffix := nftables.TypeIPAddr, "-ip"
		if !ipv4 {
			keyType, suffix = nftables.TypeIP6Addr, "-ip6"
		}
		// The library draws IDs from an unguarded global unless they are given.
		set := &nftables.Set{Table: table, Name: name + suffix, ID: uint32(len(f.sets) + 1), KeyType: keyType, Interval: true}
		f.sets = append(f.sets, setForm{set, intervals(members)})
		matches = append(matches, join(family(ipv4), destinationIn(set, ipv4)))
	}
	return matches
}

// intervals are a set's elements. Behind the end of the address space there is
// no address, and the interval stays open.
func intervals(ranges []AddressRange) []element {
	elements := make([]element, 0, 2*len(ranges))
	for _, r := range ranges {
		elements = append(elements, element{key: r.First})
		if behind := r.Last.Next(); behind.IsValid() {
			elements = append(elements, element{key: behind, end: true})
		}
	}
	return elements
}
