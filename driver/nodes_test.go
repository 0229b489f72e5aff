package driver

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"k8s.io/client-go/kubernetes/fake"

	"github.com/hostler-dev/hostler/driver/publish"
)

// A scope that denies the node's addresses waits until they are known.
func TestScopesDenyTheNodesAddresses(t *testing.T) {
	c := claimOn("a", publish.EgressPool(node), publish.EgressDevice)
	var known []netip.Addr
	d, _ := newDriver(t, fake.NewClientset(), pathsIn(t))
	d.cfg.NodeAddresses = func() []netip.Addr { return known }
	d.SetSnapshot(machineOf(1))
	if _, err := d.plan(c); err == nil || !strings.Contains(err.Error(), "claim team/a") {
		t.Errorf("%v; want a refusal that names the claim", err)
	}
	if _, err := d.plan(claimOn("b", publish.NICPool(node), "nic-0000-18-00-0")); err != nil {
		t.Errorf("a claim without scope: %v", err)
	}
	known = []netip.Addr{netip.MustParseAddr("192.0.2.10")}
	entry, err := d.plan(c)
	if err != nil {
		t.Fatal(err)
	}
	if intent := entry.Intent(); !slices.Equal(intent.Egress.NodeAddresses, known) {
		t.Errorf("the intent denies %v, want %v", intent.Egress.NodeAddresses, known)
	}
}
