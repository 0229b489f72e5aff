package nic

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
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
	gateway := netip.MustParseAddr("192.0.2.1")
	if err := netlink.RouteAdd(&netlink.Route{LinkIndex: upper.Attrs().Index, Gw: gateway.AsSlice(), Priority: 7}); err != nil {
		t.Fatal(err)
	}

	n, err := observe(Netlink{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]LinkState{
		"port": {Kind: "veth", Type: "ethernet", Master: bridge.Attrs().Index},
		"br0":  {Kind: "bridge", Type: "ethernet"},
		"up0":  {Kind: "macvlan", Type: "ethernet", Lower: bridge.Attrs().Index},
	} {
		got := n.byName[name]
		if got.Kind != want.Kind || got.Type != want.Type || got.Master != want.Master || got.Lower != want.Lower {
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

// create sends a message that the library has no function for.
func create(t *testing.T, kind int, header []byte, attributes ...*nl.RtAttr) {
	t.Helper()
	request := nl.NewNetlinkRequest(kind, unix.NLM_F_CREATE|unix.NLM_F_ACK)
	request.AddData(body(header))
	for _, attribute := range attributes {
		request.AddData(attribute)
	}
	if _, err := request.Execute(unix.NETLINK_ROUTE, 0); err != nil {
		t.Fatal(err)
	}
}

// nexthopObject makes one with the attributes of linux/nexthop.h. A group has no family.
func nexthopObject(t *testing.T, family, id int, attributes ...*nl.RtAttr) {
	t.Helper()
	attributes = append(attributes, nl.NewRtAttr(unix.NHA_ID, nl.Uint32Attr(uint32(id))))
	create(t, unix.RTM_NEWNEXTHOP, []byte{byte(family), 0, 0, 0, 0, 0, 0, 0}, attributes...)
}

// routeToObject makes a default route over a next-hop object.
func routeToObject(t *testing.T, table, id int) {
	t.Helper()
	header := make([]byte, unix.SizeofRtMsg)
	header[0], header[5], header[7] = unix.AF_INET, unix.RTPROT_STATIC, unix.RTN_UNICAST
	create(t, unix.RTM_NEWROUTE, header, nl.NewRtAttr(unix.RTA_TABLE, nl.Uint32Attr(uint32(table))), nl.NewRtAttr(routeNexthopObject, nl.Uint32Attr(uint32(id))))
}

func gateway(t *testing.T, id int, link netlink.Link, via string) {
	t.Helper()
	nexthopObject(t, unix.AF_INET, id, nl.NewRtAttr(unix.NHA_OIF, nl.Uint32Attr(uint32(link.Attrs().Index))), nl.NewRtAttr(unix.NHA_GATEWAY, netip.MustParseAddr(via).AsSlice()))
}

// Next-hop objects, alone and in a group, shown with their links or by number only.
func TestTheKernelTellsWhereNextHopObjectsLead(t *testing.T) {
	for _, mode := range []string{"1", "0"} {
		t.Run("net.ipv4.nexthop_compat_mode="+mode, func(t *testing.T) {
			inNamespace(t)
			first, second := veth(t, "first"), veth(t, "second")
			address4(t, first, "192.0.2.7/24")
			address4(t, second, "198.51.100.7/24")
			gateway(t, 7, first, "192.0.2.1")
			gateway(t, 8, second, "198.51.100.1")
			// struct nexthop_grp: number, weight less one, padding.
			group := append(append(nl.Uint32Attr(7), 0, 0, 0, 0), append(nl.Uint32Attr(8), 0, 0, 0, 0)...)
			nexthopObject(t, unix.AF_UNSPEC, 9, nl.NewRtAttr(unix.NHA_GROUP, group))
			routeToObject(t, unix.RT_TABLE_MAIN, 9)
			routeToObject(t, 1000, 8) // more than the header's byte holds
			// The thread is in the namespace, so this is the namespace's own setting.
			if err := os.WriteFile("/proc/sys/net/ipv4/nexthop_compat_mode", []byte(mode), 0o644); err != nil {
				t.Skipf("cannot choose how next-hop objects are shown: %v", err)
			}
			routes, err := Netlink{}.Routes()
			if err != nil {
				t.Fatal(err)
			}
			var defaults []Route
			for _, r := range routes {
				if isDefault(r.Destination) {
					slices.Sort(r.Links)
					defaults = append(defaults, r)
				}
			}
			slices.SortFunc(defaults, func(a, b Route) int { return b.Table - a.Table })
			all := netip.MustParsePrefix("0.0.0.0/0")
			want := []Route{
				{Destination: all, Links: []int{second.Attrs().Index}, Gateways: addresses("198.51.100.1"), Table: 1000, Protocol: unix.RTPROT_STATIC},
				{Destination: all, Links: []int{first.Attrs().Index, second.Attrs().Index}, Gateways: addresses("192.0.2.1", "198.51.100.1"), Table: tableMain, Protocol: unix.RTPROT_STATIC},
			}
			slices.SortFunc(want[1].Links, func(a, b int) int { return a - b })
			if diff := cmp.Diff(want, defaults, cmp.Comparer(func(a, b netip.Addr) bool { return a == b }), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
				t.Error(diff)
			}
		})
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

// The last look before a NIC is given away, on a node with fifty links, in the real kernel.
func BenchmarkUplinks(b *testing.B) {
	if os.Geteuid() != 0 {
		b.Skip("needs root to make a network namespace")
	}
	runtime.LockOSThread()
	before, err := netns.Get()
	if err != nil {
		b.Fatal(err)
	}
	own, err := netns.New()
	if err != nil {
		b.Skip(err)
	}
	defer func() { _ = errors.Join(netns.Set(before), own.Close(), before.Close()) }()
	for i := range 25 {
		link := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: fmt.Sprintf("v%d", i)}, PeerName: fmt.Sprintf("w%d", i)}
		if err := netlink.LinkAdd(link); err != nil {
			b.Fatal(err)
		}
		if err := netlink.LinkSetUp(link); err != nil {
			b.Fatal(err)
		}
	}
	root, tree := hardware(b)
	reader := New(Config{Sys: root, Dev: b.TempDir(), NodeAddresses: addresses("192.0.2.7"), APIServerAddresses: addresses("10.1.2.3")})
	inventory, _ := reader.Read(b.Context(), tree)
	for b.Loop() {
		if _, err := reader.Uplinks(b.Context(), inventory.NICs[:2]); err != nil {
			b.Fatal(err)
		}
	}
}
