package nic

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/hostler-dev/hostler/topology"
)

func TestUplinks(t *testing.T) {
	all := []string{"p0", "p1", "p2", "p2v0", "p2v1"}
	fromPods, fromNode := netip.MustParsePrefix("10.244.0.0/16"), netip.MustParsePrefix("192.0.2.7/32")
	cases := []struct {
		name    string
		network *namespace
		cfg     Config
		want    []string // names of netdevs whose functions are uplinks
	}{
		{"a plain default route", ports().route("0.0.0.0/0", 100, "p0"), Config{}, []string{"p0"}},
		{"a default route in IPv6 alone", ports().route("::/0", 1024, "p1"), Config{}, []string{"p1"}},
		{"default routes of both families and another metric", ports().route("0.0.0.0/0", 100, "p0").route("::/0", 4096, "p1"), Config{}, []string{"p0", "p1"}},
		{"a second default route with metric 4096", ports().route("0.0.0.0/0", 0, "p0").route("0.0.0.0/0", 4096, "p1"), Config{}, []string{"p0", "p1"}},
		{"a route over two next hops", ports().route("0.0.0.0/0", 0, "p0", "p1"), Config{}, []string{"p0", "p1"}},
		{"a default route in halves, as VPN software makes it", ports().route("0.0.0.0/1", 0, "p0").route("128.0.0.0/1", 0, "p0"), Config{}, []string{"p0"}},
		{"the public IPv6 space instead of a default route", ports().route("2000::/3", 0, "p1"), Config{}, []string{"p1"}},
		{"other routes do not matter", ports().route("0.0.0.0/0", 0, "p0").route("10.0.0.0/8", 0, "p1"), Config{}, []string{"p0"}},
		{"a loopback default route leads nowhere", ports().route("::/0", 0, "lo"), Config{}, nil},
		{"routes that cannot be read", func() *namespace {
			n := ports()
			n.routesErr = errors.New("operation not permitted")
			return n
		}(), Config{}, all},

		{"the node's address on a NIC without default route", ports().route("0.0.0.0/0", 0, "p0").address("p1", "192.0.2.7/24"),
			Config{NodeAddresses: addresses("192.0.2.7")}, []string{"p0", "p1"}},
		{"the node's address in the form of IPv6", ports().address("p1", "192.0.2.7/24"), Config{NodeAddresses: addresses("::ffff:192.0.2.7")}, []string{"p1"}},
		{"API servers behind a second NIC", ports().route("0.0.0.0/0", 0, "p0").route("10.0.0.0/8", 0, "p2").route("10.1.0.0/16", 0, "p1"),
			Config{APIServerAddresses: addresses("10.1.2.3")}, []string{"p0", "p1"}},
		{"API servers behind the default route", ports().route("0.0.0.0/0", 0, "p0").route("10.1.0.0/16", 0, "p1"),
			Config{APIServerAddresses: addresses("198.51.100.1")}, []string{"p0"}},
		{"API servers behind a VLAN of a second NIC, in IPv6", ports().route("0.0.0.0/0", 0, "p0").link("p1.7", "vlan", "", "p1").route("2001:db8::/64", 0, "p1.7"),
			Config{APIServerAddresses: addresses("2001:db8::1")}, []string{"p0", "p1"}},

		{"a VLAN", ports().link("p0.5", "vlan", "", "p0").route("0.0.0.0/0", 0, "p0.5"), Config{}, []string{"p0"}},
		{"a VLAN on a bond over two PFs", ports().link("bond0", "bond", "", "").link("bond0.5", "vlan", "", "bond0").port("p0", "bond0").port("p1", "bond0").
			route("0.0.0.0/0", 0, "bond0.5"), Config{}, []string{"p0", "p1"}},
		{"a macvlan", ports().link("up0", "macvlan", "", "p0").route("0.0.0.0/0", 0, "up0"), Config{}, []string{"p0"}},
		{"a macvlan that the node uses for nothing", ports().route("0.0.0.0/0", 0, "p0").link("up1", "macvlan", "", "p1"), Config{}, []string{"p0"}},
		{"a bridge", ports().link("br0", "bridge", "", "").route("0.0.0.0/0", 0, "br0").port("p1", "br0"), Config{}, []string{"p1"}},
		{"a bridge that carries no route", ports().route("0.0.0.0/0", 0, "p0").link("br0", "bridge", "", "").port("p1", "br0"), Config{}, []string{"p0", "p1"}},
		{"a VLAN as port of a bond that carries no route", ports().route("0.0.0.0/0", 0, "p0").link("bond0", "bond", "", "").link("p1.5", "vlan", "", "p1").port("p1.5", "bond0"),
			Config{}, []string{"p0", "p1"}},
		{"a port of a VRF", ports().route("0.0.0.0/0", 0, "p0").link("mgmt", "vrf", "", "").port("p1", "mgmt"), Config{}, []string{"p0", "p1"}},
		{"an Open vSwitch bridge, whose ports netlink joins only at ovs-system", ports().link("ovs-system", "openvswitch", "", "").link("br-ex", "openvswitch", "", "").
			port("p1", "ovs-system").route("0.0.0.0/0", 0, "br-ex"), Config{}, []string{"p1"}},
		{"an Open vSwitch bridge in user space, below which the kernel shows nothing", ports().link("br-ex", "tun", "", "").route("0.0.0.0/0", 0, "br-ex"), Config{}, all},
		{"a VPN's tun beside a NIC", ports().link("tun0", "tun", "", "").route("0.0.0.0/1", 0, "tun0").route("0.0.0.0/0", 0, "p0"), Config{}, []string{"p0"}},
		{"a virtual machine's tap that the node does not use", ports().link("tap0", "tun", "", "").link("br0", "bridge", "", "").port("tap0", "br0").route("0.0.0.0/0", 0, "p0"), Config{}, []string{"p0"}},
		{"a node that lives on a netdev without PCI function", ports().link("eth0", "device", "", "").route("0.0.0.0/0", 0, "eth0").link("tun0", "tun", "", "").route("::/0", 0, "tun0").
			link("br0", "bridge", "", "").port("p1", "br0"), Config{}, []string{"p1"}},
		{"a VF behind Hyper-V's synthetic netdev, which is its master", ports().link("eth0", "device", "", "").port("p2v0", "eth0").route("0.0.0.0/0", 0, "eth0"),
			Config{}, []string{"p2", "p2v0"}},

		{"a VF makes its PF an uplink, not its sibling", ports().route("0.0.0.0/0", 0, "p2v0"), Config{}, []string{"p2", "p2v0"}},
		{"a PF makes its VFs uplinks", ports().route("0.0.0.0/0", 0, "p2"), Config{}, []string{"p2", "p2v0", "p2v1"}},
		{"a VLAN over a VF", ports().link("v.5", "vlan", "", "p2v1").route("0.0.0.0/0", 0, "v.5"), Config{}, []string{"p2", "p2v1"}},

		{"a table that no rule names, as cloud CNIs prepare it for pods to come", ports().route("0.0.0.0/0", 0, "p0").route("0.0.0.0/0", 0, "p1").inTable(2), Config{}, []string{"p0", "p1"}},
		{"the same without a default route", ports().route("0.0.0.0/0", 0, "p0").route("10.1.0.0/16", 0, "p1").inTable(2), Config{}, []string{"p0"}},
		{"the same for a VLAN of a second NIC", ports().route("0.0.0.0/0", 0, "p0").link("p1.7", "vlan", "", "p1").route("::/0", 0, "p1.7").inTable(101), Config{}, []string{"p0", "p1"}},
		{"a table for everything", ports().route("0.0.0.0/0", 0, "p0").route("0.0.0.0/0", 0, "p1").inTable(100).rule(Rule{Table: 100}), Config{}, []string{"p0", "p1"}},
		{"a table for everything of the other family", ports().route("0.0.0.0/0", 0, "p0").route("0.0.0.0/0", 0, "p1").inTable(100).rule(Rule{Table: 100, IPv6: true}), Config{}, []string{"p0"}},
		{"the default table", ports().route("0.0.0.0/0", 0, "p1").inTable(253), Config{}, []string{"p1"}},
		{"a table for all but marked traffic, as wg-quick makes it", ports().route("0.0.0.0/0", 0, "p1").inTable(51820).rule(Rule{Table: 51820, Mark: 0xca6c, Mask: ^uint32(0), Invert: true}),
			Config{}, []string{"p1"}},
		{"a table for marked traffic", ports().route("0.0.0.0/0", 0, "p0").route("0.0.0.0/0", 0, "p1").inTable(100).rule(Rule{Table: 100, Mark: 1, Mask: ^uint32(0)}), Config{}, []string{"p0"}},
		{"a table for traffic without a mark", ports().route("0.0.0.0/0", 0, "p1").inTable(100).rule(Rule{Table: 100, Mark: 0, Mask: 0xff}), Config{}, []string{"p1"}},
		{"a table for sockets bound to the NIC", ports().route("0.0.0.0/0", 0, "p0").route("0.0.0.0/0", 0, "p1").inTable(100).rule(Rule{Table: 100, Out: "p1"}), Config{}, []string{"p0"}},
		{"a table for other users than root", ports().route("0.0.0.0/0", 0, "p0").route("0.0.0.0/0", 0, "p1").inTable(100).rule(Rule{Table: 100, NotRoot: true}), Config{}, []string{"p0"}},
		{"a table for traffic of the node's address", ports().address("p1", "192.0.2.7/24").route("0.0.0.0/0", 0, "p2").inTable(100).rule(Rule{Table: 100, From: fromNode}),
			Config{NodeAddresses: addresses("192.0.2.7")}, []string{"p1", "p2", "p2v0", "p2v1"}},
		{"a table for a subnet of the node's address and a NIC's", ports().address("p1", "192.0.2.7/24").address("p0", "192.0.2.9/24").route("0.0.0.0/0", 0, "p0").inTable(100).
			rule(Rule{Table: 100, From: netip.MustParsePrefix("192.0.2.0/24")}), Config{NodeAddresses: addresses("192.0.2.7")}, []string{"p0", "p1"}},
		{"a way out of its own for each NIC, as multi-rail nodes have it", ports().route("0.0.0.0/0", 0, "p0").address("p1", "10.1.0.7/24").route("0.0.0.0/0", 0, "p1").inTable(101).
			rule(Rule{Table: 101, From: netip.MustParsePrefix("10.1.0.7/32")}), Config{}, []string{"p0"}},
		{"the same for the NIC's subnet and for what comes in by it", ports().route("0.0.0.0/0", 0, "p0").address("p1", "10.1.0.7/24").route("0.0.0.0/0", 0, "p1").inTable(101).
			rule(Rule{Table: 101, From: netip.MustParsePrefix("10.1.0.0/24")}, Rule{Table: 101, In: "p1"}), Config{}, []string{"p0"}},
		{"a table for pods, as cloud CNIs make it for further NICs", ports().route("0.0.0.0/0", 0, "p0").address("p1", "192.0.2.8/24").route("0.0.0.0/0", 0, "p1").inTable(2).
			rule(Rule{Table: 2, From: fromPods}), Config{}, []string{"p0", "p1"}},
		{"a table for what pods send", ports().link("cni0", "bridge", "", "").route("0.0.0.0/0", 0, "p0").route("0.0.0.0/0", 0, "p1").inTable(2).rule(Rule{Table: 2, In: "cni0"}), Config{}, []string{"p0", "p1"}},
		{"a table for one destination is no default", ports().route("0.0.0.0/0", 0, "p0").route("0.0.0.0/0", 0, "p1").inTable(100).rule(Rule{Table: 100, To: netip.MustParsePrefix("10.1.0.0/16")}),
			Config{}, []string{"p0"}},
		{"a table for one destination, where the API server is", ports().route("0.0.0.0/0", 0, "p0").route("0.0.0.0/0", 0, "p1").inTable(100).rule(Rule{Table: 100, To: netip.MustParsePrefix("10.1.0.0/16")}),
			Config{APIServerAddresses: addresses("10.1.2.3")}, []string{"p0", "p1"}},
		{"a table for another destination", ports().route("0.0.0.0/0", 0, "p0").route("10.2.0.0/16", 0, "p1").inTable(100).rule(Rule{Table: 100, To: netip.MustParsePrefix("10.1.2.0/24")}),
			Config{APIServerAddresses: addresses("10.1.2.3")}, []string{"p0"}},

		{"flannel.1, bound to a second NIC", ports().route("0.0.0.0/0", 0, "p0").tunnel("flannel.1", "vxlan", "p1", "", ""), Config{}, []string{"p0", "p1"}},
		{"a vxlan with the address of a second NIC", ports().route("0.0.0.0/0", 0, "p0").address("p1", "10.1.0.7/24").tunnel("vxlan.calico", "vxlan", "", "10.1.0.7", ""), Config{}, []string{"p0", "p1"}},
		{"a geneve whose other end is behind a second NIC", ports().route("0.0.0.0/0", 0, "p0").route("10.1.0.0/16", 0, "p1").tunnel("g0", "geneve", "", "", "10.1.2.3"), Config{}, []string{"p0", "p1"}},
		{"a multicast vxlan says nothing by its group", ports().route("0.0.0.0/0", 0, "p0").route("224.0.0.0/4", 0, "p1").tunnel("v0", "vxlan", "", "", "239.1.1.1"), Config{}, []string{"p0"}},
		{"tunl0, bound to nothing, with its gateways behind a second NIC", ports().route("0.0.0.0/0", 0, "p0").route("10.1.0.0/16", 0, "p1").tunnel("tunl0", "ipip", "", "", "").
			route("10.244.2.0/26", 0, "tunl0").by(12).routed(func(r *Route) { r.Gateways = addresses("10.1.0.8") }), Config{}, []string{"p0", "p1"}},
		{"a tunnel over a VLAN of a second NIC", ports().route("0.0.0.0/0", 0, "p0").link("p1.9", "vlan", "", "p1").tunnel("flannel.1", "vxlan", "p1.9", "", ""), Config{}, []string{"p0", "p1"}},
		{"routes that BIRD learnt", ports().route("0.0.0.0/0", 0, "p0").route("10.244.2.0/26", 0, "p1").by(12), Config{}, []string{"p0", "p1"}},
		{"routes that kube-router learnt", ports().route("0.0.0.0/0", 0, "p0").route("10.244.2.0/24", 0, "p1").by(17), Config{}, []string{"p0", "p1"}},
		{"routes that Calico makes without BIRD", ports().route("0.0.0.0/0", 0, "p0").route("10.244.2.0/26", 0, "p1").by(80), Config{}, []string{"p0", "p1"}},
		{"routes that Cilium makes to other nodes' pods", ports().route("0.0.0.0/0", 0, "p0").route("10.244.2.0/24", 0, "p1").by(2).routed(func(r *Route) { r.Gateways = addresses("10.1.0.8") }),
			Config{}, []string{"p0", "p1"}},
		{"routes that the kernel makes for a NIC's own subnet", ports().route("0.0.0.0/0", 0, "p0").route("10.1.0.0/24", 0, "p1").by(2), Config{}, []string{"p0"}},
		{"routes that the administrator wrote", ports().route("0.0.0.0/0", 0, "p0").route("10.244.2.0/26", 0, "p1").by(4), Config{}, []string{"p0"}},
	}
	root, tree := hardware(t)
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			c.cfg.Sys, c.cfg.Dev, c.cfg.Kernel = root, t.TempDir(), c.network
			reader := New(c.cfg)
			inventory, problems := reader.Read(t.Context(), tree)
			if diff := cmp.Diff(c.want, uplinks(inventory.NICs)); diff != "" {
				t.Error(diff)
			}
			if len(c.want) == 0 && (len(problems) != 1 || problems[0].Subject != "uplink") {
				t.Errorf("no uplink was found and no problem says so: %v", problems)
			}
			agree(t, reader, inventory.NICs)
		})
	}
}

// agree checks that the last look before a NIC is given away judges as the snapshot did.
func agree(t *testing.T, reader *Reader, nics []topology.NIC) {
	t.Helper()
	want := map[string]string{}
	for _, nic := range nics {
		if nic.Uplink != "" {
			want[nic.Name] = nic.Uplink
		}
	}
	got, err := reader.Uplinks(t.Context(), nics)
	if err != nil {
		if got != nil || len(want) != len(nics) {
			t.Errorf("the last look fails and the snapshot does not: %v", err)
		}
		return
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the last look judges otherwise: %s", diff)
	}
}

func addresses(texts ...string) []netip.Addr {
	var list []netip.Addr
	for _, text := range texts {
		list = append(list, netip.MustParseAddr(text))
	}
	return list
}

func TestTheReasonSaysWhatItIs(t *testing.T) {
	root, tree := hardware(t)
	for _, c := range []struct {
		network *namespace
		cfg     Config
		want    string // of p1
	}{
		{ports().route("0.0.0.0/0", 0, "p1"), Config{}, "carries the default route 0.0.0.0/0 via p1"},
		{ports().route("::/0", 0, "p1").by(protocolRA), Config{}, "carries the default route ::/0 via p1, learnt from a router advertisement"},
		{ports().route("0.0.0.0/0", 0, "p1").inTable(2).rule(Rule{Table: 2, From: netip.MustParsePrefix("10.244.0.0/16")}), Config{},
			`carries the default route 0.0.0.0/0 via p1 in table 2, which the rule "from 10.244.0.0/16" sends traffic to`},
		{ports().route("0.0.0.0/0", 0, "p1").inTable(2), Config{},
			"carries the default route 0.0.0.0/0 via p1 in table 2, which no rule names yet: a pod network may have prepared it"},
		{ports().address("p1", "192.0.2.7/24"), Config{NodeAddresses: addresses("192.0.2.7")}, "carries the node's address 192.0.2.7 on p1"},
		{ports().route("10.0.0.0/8", 0, "p1"), Config{APIServerAddresses: addresses("10.1.2.3")}, "carries the route 10.0.0.0/8 to the API server 10.1.2.3 via p1"},
		{ports().link("br0", "bridge", "", "").port("p1", "br0"), Config{}, "is a port of br0 on the node"},
		{ports().route("0.0.0.0/0", 0, "p1").inTable(2).route("::/0", 0, "p1"), Config{}, "carries the default route ::/0 via p1"},
		{ports().link("mgmt", "vrf", "", "").port("p1", "mgmt").route("0.0.0.0/0", 0, "p1").inTable(10), Config{}, "is a port of mgmt on the node"},
		{ports().tunnel("flannel.1", "vxlan", "p1", "", ""), Config{}, "carries the tunnel flannel.1 (vxlan)"},
		{ports().route("10.244.2.0/26", 0, "p1").by(186), Config{}, "carries the route 10.244.2.0/26 via p1, which the routing daemon bgp learnt: the pod network runs over it"},
		{ports().link("bond0", "bond", "", "").link("bond0.5", "vlan", "", "bond0").port("p1", "bond0").route("0.0.0.0/0", 0, "bond0.5"), Config{},
			"is stacked with bond0.5 and through it carries the default route 0.0.0.0/0 via bond0.5"},
	} {
		c.cfg.Sys, c.cfg.Dev, c.cfg.Kernel = root, t.TempDir(), c.network
		if got := read(t.Context(), New(c.cfg), tree)[1].Uplink; got != c.want {
			t.Errorf("p1 %s, want %s", got, c.want)
		}
	}
}

func TestTheReasonIsASentenceForTheAdministrator(t *testing.T) {
	root, tree := hardware(t)
	n := ports().link("p2.5", "vlan", "", "p2").route("0.0.0.0/0", 0, "p2.5")
	nics := read(t.Context(), New(Config{Sys: root, Dev: t.TempDir(), Kernel: n}), tree)
	want := []string{
		"is stacked with p2.5 and through it carries the default route 0.0.0.0/0 via p2.5",
		"is a VF of nic-0000-12-00-0, which is stacked with p2.5 and through it carries the default route 0.0.0.0/0 via p2.5",
	}
	if got := []string{nics[2].Uplink, nics[3].Uplink}; !cmp.Equal(want, got) {
		t.Error(cmp.Diff(want, got))
	}
	n.routesErr = errors.New("operation not permitted")
	inventory, problems := New(Config{Sys: root, Dev: t.TempDir(), Kernel: n}).Read(t.Context(), tree)
	nics = inventory.NICs
	if !strings.Contains(nics[0].Uplink, "operation not permitted") || len(problems) != 1 {
		t.Errorf("the reason is %q, the problems %v", nics[0].Uplink, problems)
	}
}

// A netdev in a pod's namespace is gone from netlink; the NIC keeps its identity.
func TestANetdevInAPodLeavesTheNICWithoutLink(t *testing.T) {
	root, tree := hardware(t)
	n := ports().route("0.0.0.0/0", 0, "p0")
	n.links[2].Name = "elsewhere"
	nics := read(t.Context(), New(Config{Sys: root, Dev: t.TempDir(), Kernel: n}), tree)
	if len(nics) != 5 || nics[1].Name != "nic-0000-11-00-0" || nics[1].Link != nil {
		t.Errorf("the NIC is %+v", nics[1])
	}
	if vf := nics[4]; vf.Kind != topology.VF || vf.Parent != "nic-0000-12-00-0" || vf.VFID != 1 || vf.Link == nil || vf.Link.SpeedMbps != 100000 {
		t.Errorf("the VF is %+v", vf)
	}
}

// Whatever is stacked on whatever: the link of a default route's own function
// is always an uplink, and reading is the same for every order of links.
func TestNoStackHidesTheUplink(t *testing.T) {
	root, tree := hardware(t)
	dev := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		n := ports()
		top := "p1"
		for i := range rapid.IntRange(0, 6).Draw(t, "depth") {
			name := fmt.Sprintf("s%d", i)
			if rapid.Bool().Draw(t, "asPort") {
				n.link(name, rapid.SampledFrom([]string{"bridge", "bond", "team"}).Draw(t, "kind"), "", "")
				n.links[n.index(top)-1].Master = n.index(name)
			} else {
				n.link(name, rapid.SampledFrom([]string{"vlan", "macvlan", "ipvlan"}).Draw(t, "kind"), "", top)
			}
			top = name
		}
		n.route("0.0.0.0/0", 0, top)
		read := func() []topology.NIC {
			nics := read(context.Background(), New(Config{Sys: root, Dev: dev, Kernel: n}), tree)
			return nics
		}
		before := read()
		if got := uplinks(before); !cmp.Equal(got, []string{"p1"}) {
			t.Fatalf("uplinks are %v", got)
		}
		n.links = rapid.Permutation(n.links).Draw(t, "order")
		if diff := cmp.Diff(uplinks(before), uplinks(read())); diff != "" {
			t.Fatal(diff)
		}
	})
}
