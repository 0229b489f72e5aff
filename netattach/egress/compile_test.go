package egress

import (
	"flag"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/hostler-dev/hostler/api/v1alpha1"
	"github.com/hostler-dev/hostler/netattach/internal/nettest"
)

var update = flag.Bool("update", false, "rewrite golden files")

func TestCompiledFormIsTheGoldenOne(t *testing.T) {
	rules := compiled(t, v1alpha1.EgressConfig{
		Allow: []v1alpha1.EgressRule{
			{Name: "web", To: []v1alpha1.EgressPeer{{CIDR: &v1alpha1.CIDRPeer{CIDR: "10.0.0.0/8", Except: []string{"10.1.0.0/16", "10.255.255.255/32"}}},
				{CIDR: &v1alpha1.CIDRPeer{CIDR: "11.0.0.0/8"}}, {CIDR: &v1alpha1.CIDRPeer{CIDR: "2001:db8::/32"}}},
				Ports: []v1alpha1.EgressPort{{Port: 443}, {Port: 80, EndPort: 90}, {Port: 91}, {Protocol: v1alpha1.ProtocolUDP, Port: 443}}},
			allow("everything", "0.0.0.0/0", v1alpha1.EgressPort{Protocol: v1alpha1.ProtocolSCTP, Port: 1, EndPort: 65535}),
		},
		Never: []string{"10.9.0.0/16", "10.8.0.0/16", "fd00::/8"},
	}, "169.254.20.10", "10.96.0.10", "10.96.0.10")
	const golden = "testdata/scope.golden"
	if *update {
		if err := os.WriteFile(golden, []byte(rules.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), rules.String()); diff != "" {
		t.Errorf("compiled form (-golden +got), run with -update if that is meant:\n%s", diff)
	}
}

// Scopes that mean the same have the same hash; the order of prefixes and ports
// means nothing.
func TestHashIsOfTheMeaning(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		config := anyScope(r)
		hash := compiled(t, config).Hash()
		for i := range config.Allow {
			slices.Reverse(config.Allow[i].To)
			slices.Reverse(config.Allow[i].Ports)
			config.Allow[i].To = append(config.Allow[i].To, config.Allow[i].To[0])
		}
		if got := compiled(t, config).Hash(); got != hash {
			r.Fatalf("hash changed with the order: %+v", config)
		}
		config.Never = append(config.Never, "172.16.0.0/12")
		if got := compiled(t, config).Hash(); got == hash {
			r.Fatal("hash does not cover the never list")
		}
	})
}

// Ranges hold exactly the addresses of the prefixes that they were made of.
func TestPeerRangesAreThePrefixLessItsHoles(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		outer := anyPrefix(r)
		var holes []netip.Prefix
		peer := v1alpha1.CIDRPeer{CIDR: outer.String()}
		for range rapid.IntRange(0, 3).Draw(r, "holes") {
			hole := anyPrefix(r)
			holes = append(holes, hole)
			peer.Except = append(peer.Except, hole.String())
		}
		ranges, err := peerRanges(peer)
		if err != nil {
			r.Fatal(err)
		}
		for range 20 {
			addr := anyAddr(r)
			want := outer.Contains(addr) && !slices.ContainsFunc(holes, func(h netip.Prefix) bool { return h.Contains(addr) })
			if contains(ranges, addr) != want {
				r.Fatalf("%s in %s less %s: want %v, ranges %v", addr, outer, holes, want, ranges)
			}
		}
	})
}

func TestEvaluateInOrderOfPrecedence(t *testing.T) {
	rules := compiled(t, v1alpha1.EgressConfig{
		Never: []string{"10.1.0.0/16"},
		Allow: []v1alpha1.EgressRule{allow("all", "0.0.0.0/0", v1alpha1.EgressPort{Port: 1, EndPort: 65535})},
	}, "169.254.20.10", "10.1.0.53")
	to := func(addr string, protocol Protocol, port uint16) Packet {
		return Packet{Destination: netip.MustParseAddr(addr), Protocol: protocol, Port: port}
	}
	raw := to("10.2.0.1", TCP, 80)
	raw.Raw = true
	forwarded := to("10.2.0.1", TCP, 80)
	forwarded.Forwarded = true
	reply := to("10.1.0.1", TCP, 40000)
	reply.Reply = true
	loopback := to("127.0.0.1", UDP, 53)
	loopback.Loopback = true
	for name, test := range map[string]struct {
		packet Packet
		want   Verdict
	}{
		"an allowed destination":              {to("10.2.0.1", TCP, 80), Verdict{true, "all"}},
		"another protocol":                    {to("10.2.0.1", UDP, 80), Verdict{false, RuleDefault}},
		"never beats an allow rule":           {to("10.1.0.1", TCP, 80), Verdict{false, RuleNever}},
		"never beats a resolver":              {to("10.1.0.53", UDP, 53), Verdict{false, RuleNever}},
		"a link-local resolver":               {to("169.254.20.10", UDP, 53), Verdict{true, RuleResolver}},
		"another port of that resolver":       {to("169.254.20.10", TCP, 80), Verdict{false, RuleBuiltInNever}},
		"metadata":                            {to("169.254.169.254", TCP, 80), Verdict{false, RuleBuiltInNever}},
		"IPv6 without a rule":                 {to("2001:db8::1", TCP, 80), Verdict{false, RuleDefault}},
		"a raw frame to an allowed address":   {raw, Verdict{false, RuleRaw}},
		"a routed packet to an allowed one":   {forwarded, Verdict{false, RuleForward}},
		"a reply to what came in":             {reply, Verdict{true, RuleReply}},
		"loopback":                            {loopback, Verdict{true, RuleLoopback}},
		"a neighbour solicitation":            {Packet{Destination: netip.MustParseAddr("ff02::1:ff00:1"), Protocol: ICMPv6, ICMPv6Type: 135, HopLimit: 255}, Verdict{true, RuleNeighbourDiscovery}},
		"a solicitation that came from afar":  {Packet{Destination: netip.MustParseAddr("2001:db8::1"), Protocol: ICMPv6, ICMPv6Type: 135, HopLimit: 64}, Verdict{false, RuleDefault}},
		"a solicitation that a process sent":  {Packet{FromUser: true, Destination: netip.MustParseAddr("2001:db8::1"), Protocol: ICMPv6, ICMPv6Type: 135, HopLimit: 255}, Verdict{false, RuleDefault}},
		"a report that a process sent":        {Packet{FromUser: true, Destination: netip.MustParseAddr("ff02::16"), Protocol: ICMPv6, ICMPv6Type: 143, HopLimit: 1}, Verdict{false, RuleDefault}},
		"a router advertisement":              {Packet{Destination: netip.MustParseAddr("ff02::1"), Protocol: ICMPv6, ICMPv6Type: 134, HopLimit: 255}, Verdict{false, RuleDefault}},
		"an echo request":                     {Packet{Destination: netip.MustParseAddr("2001:db8::1"), Protocol: ICMPv6, ICMPv6Type: 128, HopLimit: 255}, Verdict{false, RuleDefault}},
		"a listener report":                   {Packet{Destination: netip.MustParseAddr("ff02::16"), Protocol: ICMPv6, ICMPv6Type: 143, HopLimit: 1}, Verdict{true, RuleNeighbourDiscovery}},
		"a listener report to global address": {Packet{Destination: netip.MustParseAddr("2001:db8::1"), Protocol: ICMPv6, ICMPv6Type: 143, HopLimit: 1}, Verdict{false, RuleDefault}},
	} {
		t.Run(name, func(t *testing.T) {
			if got := Evaluate(rules, test.packet); got != test.want {
				t.Errorf("%+v, want %+v", got, test.want)
			}
		})
	}
}

func TestCompileRefusesAnUnreadableDenial(t *testing.T) {
	if _, err := Compile(v1alpha1.EgressConfig{Never: []string{"10.0.0.0/99"}}, nil, nil); err == nil {
		t.Fatal("a never entry that cannot be read was dropped")
	}
}

// BenchmarkEnforce1000Prefixes is compile and enforce of a 1,000-prefix scope,
// each time from nothing. Budget: 5 ms.
func BenchmarkEnforce1000Prefixes(b *testing.B) {
	pod := nettest.New(b)
	for n := 0; b.Loop(); n++ {
		config := v1alpha1.EgressConfig{DNS: v1alpha1.DNSNone, Never: []string{fmt.Sprintf("192.0.%d.%d/32", n/256%256, n%256)}, Allow: []v1alpha1.EgressRule{thousandPrefixes()}}
		rules, err := Compile(config, nil, nil)
		if err != nil {
			b.Fatal(err)
		}
		enforce(b, pod, rules)
	}
}

func thousandPrefixes() v1alpha1.EgressRule {
	rule := v1alpha1.EgressRule{Name: "many", Ports: []v1alpha1.EgressPort{{Port: 443, Protocol: v1alpha1.ProtocolTCP}}}
	for i := range 1000 {
		rule.To = append(rule.To, v1alpha1.EgressPeer{CIDR: &v1alpha1.CIDRPeer{CIDR: fmt.Sprintf("10.%d.%d.0/24", i/100, 2*(i%100))}})
	}
	return rule
}
