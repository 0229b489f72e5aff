package nic

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/hostler-dev/hostler/topology"
)

func TestStackedLinks(t *testing.T) {
	root, tree := hardware(t)
	n := ports().
		link("bond0", "bond", "", "").port("p0", "bond0").port("p1", "bond0").link("bond0.5", "vlan", "", "bond0").
		link("cni0", "bridge", "", "").link("veth1", "veth", "cni0", "").link("veth2", "veth", "cni0", ""). // pods only
		link("br1", "bridge", "", "").link("veth3", "veth", "br1", "").link("p2.9", "vlan", "", "p2").port("p2.9", "br1").
		link("lost", "vlan", "", "nowhere").
		link("ovs-system", "openvswitch", "", "").link("br-ex", "openvswitch", "", "").port("p2v0", "ovs-system").
		tunnel("flannel.1", "vxlan", "bond0.5", "", "").tunnel("gre1", "gre", "", "192.0.2.7", "").
		tunnel("gre2", "gre", "", "", "10.9.0.1").route("10.9.0.0/16", 0, "bond0.5").route("10.9.0.0/16", 1, "gre2").
		route("0.0.0.0/0", 0, "bond0.5").address("bond0.5", "192.0.2.7/24")
	inventory, _ := New(Config{Sys: root, Dev: t.TempDir(), Kernel: n}).Read(t.Context(), tree)
	type stacked struct {
		Kind  string
		Lower []string
		Mine  bool
	}
	got := map[string]stacked{}
	for _, link := range inventory.StackedLinks {
		got[link.Name] = stacked{Kind: link.Kind, Lower: link.Lower, Mine: link.Uplink != ""}
	}
	want := map[string]stacked{
		"bond0": {"bond", []string{"p0", "p1"}, true}, "bond0.5": {"vlan", []string{"bond0"}, true},
		"p2.9": {"vlan", []string{"p2"}, true}, "br1": {"bridge", []string{"p2.9"}, false},
		"ovs-system": {"openvswitch", []string{"p2v0"}, false}, "br-ex": {"openvswitch", []string{"p2v0"}, false},
		"flannel.1": {"vxlan", []string{"bond0.5"}, false}, "gre1": {"gre", []string{"bond0.5"}, false},
		"gre2": {"gre", []string{"bond0.5"}, false}, // its other end is not reached through itself
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	for _, link := range inventory.StackedLinks {
		if link.Name == "bond0.5" {
			if diff := cmp.Diff(topology.StackedLink{
				Name: "bond0.5", Kind: "vlan", Lower: []string{"bond0"}, Up: true, Uplink: "carries the default route 0.0.0.0/0 via bond0.5",
				Addresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.7/24")},
			}, link, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
				t.Error(diff)
			}
		}
	}
}

// A kind that lies over several netdevs without being their master: netlink
// names none or one of them, sysfs all.
func TestAKindThatOnlySysfsTakesApart(t *testing.T) {
	root, tree := hardware(t)
	files(t, root, map[string]string{"class/net/hsr0/lower_p0/x": "", "class/net/hsr0/lower_p1/x": ""})
	n := ports().link("hsr0", "hsr", "", "").route("0.0.0.0/0", 0, "hsr0")
	if got := uplinks(read(t.Context(), New(Config{Sys: root, Dev: t.TempDir(), Kernel: n}), tree)); !cmp.Equal(got, []string{"p0", "p1"}) {
		t.Errorf("uplinks are %v", got)
	}
}

// Kinds of links that a test's kernel need not have, as messages.
func TestLinksAreReadFromTheirMessages(t *testing.T) {
	number := func(n uint32) []byte { return nl.Uint32Attr(n) }
	four := []byte{192, 0, 2, 7}
	six := netip.MustParseAddr("2001:db8::7")
	for _, c := range []struct {
		name       string
		attributes []*nl.RtAttr
		want       LinkState
	}{
		{"a VLAN", []*nl.RtAttr{nl.NewRtAttr(unix.IFLA_LINK, number(4)), info("vlan")}, LinkState{Kind: "vlan", Lower: 4}},
		{"a VLAN over a netdev of another namespace", []*nl.RtAttr{nl.NewRtAttr(unix.IFLA_LINK, number(4)), nl.NewRtAttr(unix.IFLA_LINK_NETNSID, number(0)), info("vlan")}, LinkState{Kind: "vlan"}},
		{"a port of a bond", []*nl.RtAttr{nl.NewRtAttr(unix.IFLA_MASTER, number(5))}, LinkState{Kind: "device", Master: 5}},
		{"a netdev that is its own lower one", []*nl.RtAttr{nl.NewRtAttr(unix.IFLA_LINK, number(9))}, LinkState{Kind: "device"}},
		{"a veth, whose link is its peer", []*nl.RtAttr{nl.NewRtAttr(unix.IFLA_LINK, number(4)), info("veth")}, LinkState{Kind: "veth"}},
		{"an ipip tunnel", []*nl.RtAttr{info("ipip", nl.NewRtAttr(1, number(4)), nl.NewRtAttr(2, four), nl.NewRtAttr(3, []byte{0, 0, 0, 0}))},
			LinkState{Kind: "ipip", Underlay: 4, Local: netip.MustParseAddr("192.0.2.7")}},
		{"a GRE tunnel in IPv6", []*nl.RtAttr{info("ip6gre", nl.NewRtAttr(6, make([]byte, 16)), nl.NewRtAttr(7, six.AsSlice()))}, LinkState{Kind: "ip6gre", Remote: six}},
		{"a vti tunnel", []*nl.RtAttr{info("vti", nl.NewRtAttr(4, four))}, LinkState{Kind: "vti", Local: netip.MustParseAddr("192.0.2.7")}},
		{"a geneve tunnel", []*nl.RtAttr{info("geneve", nl.NewRtAttr(unix.IFLA_GENEVE_REMOTE6, six.AsSlice()))}, LinkState{Kind: "geneve", Remote: six}},
		{"a tunnel from another namespace", []*nl.RtAttr{info("vxlan", nl.NewRtAttr(unix.IFLA_VXLAN_LINK, number(4))), nl.NewRtAttr(unix.IFLA_LINK_NETNSID, number(0))}, LinkState{Kind: "vxlan"}},
	} {
		message := linkMessage(9, c.attributes...)
		c.want.Index, c.want.Type = 9, "ethernet"
		if diff := cmp.Diff(c.want, linkState(message), cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
			t.Errorf("%s: %s", c.name, diff)
		}
	}
}

func info(kind string, data ...*nl.RtAttr) *nl.RtAttr {
	nested := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	nested.AddRtAttr(unix.IFLA_INFO_KIND, nl.ZeroTerminated(kind))
	inner := nested.AddRtAttr(unix.IFLA_INFO_DATA, nil)
	for _, attribute := range data {
		inner.AddChild(attribute)
	}
	return nested
}

func linkMessage(index uint32, attributes ...*nl.RtAttr) []byte {
	header := make([]byte, unix.SizeofIfInfomsg)
	binary.NativeEndian.PutUint16(header[2:], unix.ARPHRD_ETHER)
	binary.NativeEndian.PutUint32(header[4:], index)
	parts := [][]byte{header}
	for _, attribute := range attributes {
		parts = append(parts, attribute.Serialize())
	}
	return slices.Concat(parts...)
}

func FuzzNetlinkMessages(f *testing.F) {
	f.Add(linkMessage(9, info("ipip", nl.NewRtAttr(1, nl.Uint32Attr(4)))))
	f.Add(slices.Concat(make([]byte, unix.SizeofRtMsg), nl.NewRtAttr(unix.RTA_MULTIPATH, make([]byte, 16)).Serialize()))
	f.Fuzz(func(t *testing.T, message []byte) {
		if len(message) >= unix.SizeofIfInfomsg {
			if link := linkState(message); link.Kind == "veth" && link.Lower != 0 {
				t.Errorf("%+v is a veth that lies on something", link)
			}
		}
		if r, _, ok := route(message); ok && !r.Destination.IsValid() {
			t.Errorf("%+v leads nowhere", r)
		}
	})
}
