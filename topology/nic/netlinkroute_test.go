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

func TestTheKernelTellsEveryNextHopOfARoute(t *testing.T) {
	inNamespace(t)
	a, b, c := veth(t, "a"), veth(t, "b"), veth(t, "c")
	for link, texts := range map[netlink.Link][]string{a: {"10.1.0.2/24", "2001:db8:1::2/64"}, b: {"10.2.0.2/24", "2001:db8:2::2/64"}, c: {"10.3.0.2/31"}} {
		for _, text := range texts {
			address4(t, link, text)
		}
	}
	hop := func(link netlink.Link, gateway string) *netlink.NexthopInfo {
		return &netlink.NexthopInfo{LinkIndex: link.Attrs().Index, Gw: net.ParseIP(gateway)}
	}
	everything := func(zero string) *net.IPNet { _, n, _ := net.ParseCIDR(zero); return n }
	for _, route := range []*netlink.Route{
		{Dst: everything("0.0.0.0/0"), MultiPath: []*netlink.NexthopInfo{hop(a, "10.1.0.1"), hop(b, "10.2.0.1")}},
		{Dst: everything("::/0"), MultiPath: []*netlink.NexthopInfo{hop(a, "2001:db8:1::1"), hop(b, "2001:db8:2::1")}},
		{Dst: everything("0.0.0.0/0"), Priority: 7, LinkIndex: c.Attrs().Index, Via: &netlink.Via{AddrFamily: netlink.FAMILY_V6, Addr: net.ParseIP("fe80::1")}, Flags: int(netlink.FLAG_ONLINK)},
		{Dst: everything("0.0.0.0/0"), Priority: 8, Type: unix.RTN_BLACKHOLE},
	} {
		if err := netlink.RouteAdd(route); err != nil {
			t.Fatalf("add %v: %v", route, err)
		}
	}
	n, err := observe(Netlink{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range n.routes {
		if isDefault(r.Destination) {
			var names []string
			for _, link := range r.Links {
				names = append(names, n.byIndex[link].Name)
			}
			got = append(got, fmt.Sprint(r.Destination, names, r.Gateways))
		}
	}
	want := []string{
		"0.0.0.0/0 [a b] [10.1.0.1 10.2.0.1]", "0.0.0.0/0 [c] [fe80::1]", "::/0 [a b] [2001:db8:1::1 2001:db8:2::1]",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// A table's number has 32 bits.
func TestTablesBeyondTwoBillion(t *testing.T) {
	inNamespace(t)
	const table = 0xf0000001
	port := veth(t, "port")
	address4(t, port, "192.0.2.7/24")
	if err := netlink.RouteAdd(&netlink.Route{LinkIndex: port.Attrs().Index, Gw: net.IPv4(192, 0, 2, 1), Table: table}); err != nil {
		t.Fatal(err)
	}
	rule := netlink.NewRule()
	rule.Table, rule.Src = table, &net.IPNet{IP: net.IPv4(192, 0, 2, 7).To4(), Mask: net.CIDRMask(32, 32)}
	if err := netlink.RuleAdd(rule); err != nil {
		t.Fatal(err)
	}
	n, err := observe(Netlink{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if reasons := judge(n, New(Config{Sys: "/nonexistent"}).stackOf(n), interests{}).reasons; len(reasons) > 0 {
		t.Errorf("a NIC's way out of its own makes it the node's: %v", reasons)
	}
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
