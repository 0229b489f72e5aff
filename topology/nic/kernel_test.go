package nic

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// inNamespace gives the test a network namespace of its own, with the real kernel in it.
func inNamespace(t *testing.T) netns.NsHandle {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root to make a network namespace")
	}
	runtime.LockOSThread() // never unlocked: the thread goes away with the test's goroutine
	before, err := netns.Get()
	if err != nil {
		t.Fatal(err)
	}
	own, err := netns.New()
	if err != nil {
		t.Skipf("cannot make a network namespace: %v", err)
	}
	t.Cleanup(func() {
		if err := errors.Join(netns.Set(before), own.Close(), before.Close()); err != nil {
			t.Error(err)
		}
	})
	return own
}

func add(t *testing.T, link netlink.Link) netlink.Link {
	t.Helper()
	if err := netlink.LinkAdd(link); err != nil {
		t.Fatalf("add %s: %v", link.Attrs().Name, err)
	}
	made, err := netlink.LinkByName(link.Attrs().Name)
	if err != nil {
		t.Fatal(err)
	}
	return made
}

func veth(t *testing.T, name string) netlink.Link {
	return add(t, &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: name + "peer"})
}

func up(t *testing.T, link netlink.Link) {
	t.Helper()
	if err := netlink.LinkSetUp(link); err != nil {
		t.Fatal(err)
	}
}

func TestTheKernelTellsStacksRoutesAndAddresses(t *testing.T) {
	inNamespace(t)
	port, bridge := veth(t, "port"), add(t, &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br0"}})
	upper := add(t, &netlink.Macvlan{LinkAttrs: netlink.LinkAttrs{Name: "up0", ParentIndex: bridge.Attrs().Index}, Mode: netlink.MACVLAN_MODE_BRIDGE})
	peer, err := netlink.LinkByName("portpeer")
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkSetMaster(port, bridge); err != nil {
		t.Fatal(err)
	}
	for _, link := range []netlink.Link{port, peer, bridge, upper} {
		up(t, link)
	}
	address, _ := netlink.ParseAddr("192.0.2.7/24")
	if err := netlink.AddrAdd(upper, address); err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkAddAltName(port, "enp17s0np0"); err != nil {
		t.Fatal(err)
	}
	gateway := netip.MustParseAddr("192.0.2.1")
	if err := netlink.RouteAdd(&netlink.Route{LinkIndex: upper.Attrs().Index, Gw: gateway.AsSlice(), Priority: 7}); err != nil {
		t.Fatal(err)
	}

	n, err := observe(Netlink{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]LinkState{
		"port": {Kind: "veth", Type: "ethernet", Master: bridge.Attrs().Index, AlternativeNames: []string{"enp17s0np0"}},
		"br0":  {Kind: "bridge", Type: "ethernet"},
		"up0":  {Kind: "macvlan", Type: "ethernet", Lower: bridge.Attrs().Index},
	} {
		got := n.byName[name]
		if got.Kind != want.Kind || got.Type != want.Type || got.Master != want.Master || got.Lower != want.Lower || !slices.Equal(got.AlternativeNames, want.AlternativeNames) {
			t.Errorf("%s is %+v, want %+v", name, got, want)
		}
	}
	route := Route{Destination: netip.MustParsePrefix("0.0.0.0/0"), Links: []int{upper.Attrs().Index}, Metric: 7}
	if !slices.ContainsFunc(n.routes, func(r chosenRoute) bool {
		return cmp.Equal(r.Links, route.Links) && r.Destination == route.Destination && r.Metric == 7 && slices.Equal(r.Gateways, []netip.Addr{gateway})
	}) {
		t.Errorf("the default route is not among %+v", n.routes)
	}
	if want := []netip.Prefix{netip.MustParsePrefix("192.0.2.7/24")}; !slices.Equal(n.addresses[upper.Attrs().Index], want) {
		t.Errorf("up0 has the addresses %v", n.addresses[upper.Attrs().Index])
	}
	reasons := judge(n, New(Config{Sys: "/nonexistent"}).stackOf(n), interests{}).reasons
	if reasons[port.Attrs().Index] == "" || reasons[peer.Attrs().Index] != "" {
		t.Errorf("below a macvlan on a bridge, the bridge's port carries the default route and the port's peer does not: %v", reasons)
	}
}

func address4(t *testing.T, link netlink.Link, text string) {
	t.Helper()
	address, err := netlink.ParseAddr(text)
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.AddrAdd(link, address); err != nil {
		t.Fatal(err)
	}
	up(t, link)
	if peer, err := netlink.LinkByName(link.Attrs().Name + "peer"); err == nil {
		up(t, peer) // else the link has no carrier
	}
}

func TestTheKernelTellsRulesAndTunnels(t *testing.T) {
	inNamespace(t)
	port := veth(t, "port")
	address4(t, port, "192.0.2.7/24")
	vxlan := add(t, &netlink.Vxlan{LinkAttrs: netlink.LinkAttrs{Name: "flannel.1"}, VxlanId: 1, VtepDevIndex: port.Attrs().Index, SrcAddr: net.ParseIP("192.0.2.7"), Port: 8472})
	open := add(t, &netlink.Vxlan{LinkAttrs: netlink.LinkAttrs{Name: "open"}, VxlanId: 2, Group: net.ParseIP("2001:db8::1"), Port: 8473})
	addRule(t, netlink.FAMILY_V4, func(r *netlink.Rule) {
		r.Table, r.Src, r.Dst, r.IifName = 101, cidr("192.0.2.0/24"), cidr("10.0.0.0/8"), "port"
	})
	addRule(t, netlink.FAMILY_V6, func(r *netlink.Rule) {
		mask := uint32(0xff)
		r.Table, r.Mark, r.Mask, r.Invert = 102, 0x10, &mask, true
	})
	rules, err := Netlink{}.Rules()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []Rule{
		{Table: 101, From: netip.MustParsePrefix("192.0.2.0/24"), To: netip.MustParsePrefix("10.0.0.0/8"), In: "port", Mask: ^uint32(0)},
		{Table: 102, IPv6: true, Mark: 0x10, Mask: 0xff, Invert: true},
		{Table: tableMain, Mask: ^uint32(0)}, {Table: tableMain, IPv6: true, Mask: ^uint32(0)},
	} {
		if !slices.Contains(rules, want) {
			t.Errorf("the rule %+v is not among %+v", want, rules)
		}
	}
	if firmware, err := (Netlink{}).Firmware("port"); firmware != "" || err != nil {
		t.Errorf("a veth has the firmware %q, %v", firmware, err)
	}
	if firmware, err := (Netlink{}).Firmware("nowhere"); firmware != "" || err != nil {
		t.Errorf("a netdev that has just left has the firmware %q, %v", firmware, err)
	}
	n, err := observe(Netlink{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := n.byIndex[vxlan.Attrs().Index]; got.Kind != "vxlan" || got.Underlay != port.Attrs().Index || got.Local != netip.MustParseAddr("192.0.2.7") {
		t.Errorf("the vxlan is %+v", got)
	}
	if got := n.byIndex[open.Attrs().Index]; got.Underlay != 0 || got.Remote != netip.MustParseAddr("2001:db8::1") {
		t.Errorf("the vxlan to an address is %+v", got)
	}
	if reason := judge(n, New(Config{Sys: "/nonexistent"}).stackOf(n), interests{}).reasons[port.Attrs().Index]; reason != "carries the tunnel flannel.1 (vxlan)" {
		t.Errorf("the netdev below the tunnel %s", reason)
	}
}

func addRule(t *testing.T, family int, change func(*netlink.Rule)) {
	t.Helper()
	rule := netlink.NewRule()
	rule.Family = family
	change(rule)
	if err := netlink.RuleAdd(rule); err != nil {
		t.Fatal(err)
	}
}

func cidr(text string) *net.IPNet {
	_, n, err := net.ParseCIDR(text)
	if err != nil {
		panic(err)
	}
	return n
}
