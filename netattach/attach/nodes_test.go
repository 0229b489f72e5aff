package attach

import (
	"context"
	"net/netip"
	"testing"

	"github.com/hostler-dev/hostler/netattach"
	"github.com/hostler-dev/hostler/netattach/egress"
)

// Claims of one pod may have been prepared while the node had other addresses.
func TestThePodsScopeDeniesTheNodeAddressesOfAllItsScopes(t *testing.T) {
	n := newNode(t)
	before, after := netip.MustParseAddr("192.0.2.10"), netip.MustParseAddr("192.0.2.11")
	n.claim("claim-1", scope("192.0.2.0/24", 80))
	n.claim("claim-2", scope("192.0.2.0/24", 80))
	n.intents["claim-1"].Egress.NodeAddresses = []netip.Addr{before}
	n.intents["claim-2"].Egress.NodeAddresses = []netip.Addr{before, after}
	n.attach(t)
	rules, _, err := scopeOf([]netattach.Intent{n.intents["claim-1"], n.intents["claim-2"]})
	if err != nil {
		t.Fatal(err)
	}
	if err := egress.Verify(context.Background(), n.pod.FD, rules); err != nil {
		t.Fatal(err)
	}
	for addr, want := range map[netip.Addr]bool{before: false, after: false, after.Next(): true} {
		if got := egress.Evaluate(rules, egress.Packet{Destination: addr, Protocol: egress.TCP, Port: 80}); got.Allowed != want {
			t.Errorf("%s: %+v, want allowed %v", addr, got, want)
		}
	}
}
