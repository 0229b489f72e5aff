package nic

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/hostler-dev/hostler/topology"
	"github.com/hostler-dev/hostler/topology/pci"
)

// namespace is a kernel written down: links by name, in the order of their indexes.
type namespace struct {
	links     []LinkState
	routes    []Route
	addresses []Address
	routesErr error
}

func (n *namespace) Links() ([]LinkState, error)   { return n.links, nil }
func (n *namespace) Routes() ([]Route, error)      { return n.routes, n.routesErr }
func (n *namespace) Addresses() ([]Address, error) { return n.addresses, nil }

func (n *namespace) index(name string) int {
	for _, link := range n.links {
		if link.Name == name {
			return link.Index
		}
	}
	return 0
}

// link adds "name", "name kind", "name kind of master=x lower=y".
func (n *namespace) link(name, kind, master, lower string) *namespace {
	n.links = append(n.links, LinkState{
		Index: len(n.links) + 1, Name: name, Kind: kind, Type: "ethernet", Up: true, Master: n.index(master), Lower: n.index(lower),
	})
	return n
}

func (n *namespace) route(destination string, metric int, links ...string) *namespace {
	r := Route{Destination: netip.MustParsePrefix(destination), Metric: metric}
	for _, link := range links {
		r.Links = append(r.Links, n.index(link))
	}
	n.routes = append(n.routes, r)
	return n
}

func (n *namespace) address(link, prefix string) *namespace {
	n.addresses = append(n.addresses, Address{Link: n.index(link), Prefix: netip.MustParsePrefix(prefix)})
	return n
}

// hardware renders three PFs p0, p1, p2 (0000:10:00.0 …) and two VFs of p2.
func hardware(t *testing.T) (string, *pci.Tree) {
	t.Helper()
	root := t.TempDir()
	write := func(path, content string) {
		full := filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(full, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	link := func(path, target string) {
		full := filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(target, full); err != nil {
			t.Fatal(err)
		}
	}
	function := func(address, netdev string) string {
		folder := "devices/pci0000:00/" + address
		write(folder+"/class", "0x020000")
		write(folder+"/net/"+netdev+"/speed", "100000")
		link("bus/pci/devices/"+address, "../../../"+folder)
		link("class/net/"+netdev, "../../"+folder+"/net/"+netdev)
		link(folder+"/driver", "../../../bus/pci/drivers/mlx5_core")
		return folder
	}
	for i := range 3 {
		function(fmt.Sprintf("0000:1%d:00.0", i), fmt.Sprintf("p%d", i))
	}
	pf := "devices/pci0000:00/0000:12:00.0"
	write(pf+"/sriov_numvfs", "2")
	write(pf+"/sriov_totalvfs", "8")
	for i := range 2 {
		vf := fmt.Sprintf("0000:12:00.%d", i+1)
		folder := function(vf, fmt.Sprintf("p2v%d", i))
		link(folder+"/physfn", "../0000:12:00.0")
		link(pf+fmt.Sprintf("/virtfn%d", i), "../"+vf)
	}
	tree, err := pci.Read(root)
	if err != nil {
		t.Fatal(err)
	}
	return root, tree
}

func ports() *namespace {
	n := (&namespace{}).link("lo", "device", "", "")
	for _, name := range []string{"p0", "p1", "p2", "p2v0", "p2v1"} {
		n.link(name, "device", "", "")
	}
	return n
}

func TestUplinks(t *testing.T) {
	port := func(n *namespace, name, master string) { n.links[n.index(name)-1].Master = n.index(master) }
	cases := []struct {
		name    string
		network func() *namespace
		node    string
		want    []string // names of netdevs whose functions are uplinks
	}{
		{"a plain default route", func() *namespace { return ports().route("0.0.0.0/0", 100, "p0") }, "", []string{"p0"}},
		{"default routes of both families and another metric", func() *namespace {
			return ports().route("0.0.0.0/0", 100, "p0").route("::/0", 4096, "p1")
		}, "", []string{"p0", "p1"}},
		{"a route over two next hops", func() *namespace { return ports().route("0.0.0.0/0", 0, "p0", "p1") }, "", []string{"p0", "p1"}},
		{"a default route in halves, as VPN software makes it", func() *namespace {
			return ports().route("0.0.0.0/1", 0, "p0").route("128.0.0.0/1", 0, "p0")
		}, "", []string{"p0"}},
		{"other routes do not matter", func() *namespace {
			return ports().route("0.0.0.0/0", 0, "p0").route("10.0.0.0/8", 0, "p1")
		}, "", []string{"p0"}},
		{"the node's address on a NIC without default route", func() *namespace {
			return ports().route("0.0.0.0/0", 0, "p0").address("p1", "192.0.2.7/24")
		}, "192.0.2.7", []string{"p0", "p1"}},
		{"a VLAN", func() *namespace { return ports().link("p0.5", "vlan", "", "p0").route("0.0.0.0/0", 0, "p0.5") }, "", []string{"p0"}},
		{"a VLAN on a bond over two ports", func() *namespace {
			n := ports().link("bond0", "bond", "", "").link("bond0.5", "vlan", "", "bond0").route("0.0.0.0/0", 0, "bond0.5")
			port(n, "p0", "bond0")
			port(n, "p1", "bond0")
			return n
		}, "", []string{"p0", "p1"}},
		{"a bridge", func() *namespace {
			n := ports().link("br0", "bridge", "", "").route("0.0.0.0/0", 0, "br0")
			port(n, "p1", "br0")
			return n
		}, "", []string{"p1"}},
		{"a macvlan", func() *namespace { return ports().link("up0", "macvlan", "", "p0").route("0.0.0.0/0", 0, "up0") }, "", []string{"p0"}},
		{"an Open vSwitch bridge, whose ports netlink joins only at ovs-system", func() *namespace {
			n := ports().link("ovs-system", "openvswitch", "", "").link("br-ex", "openvswitch", "", "").route("0.0.0.0/0", 0, "br-ex")
			port(n, "p1", "ovs-system")
			return n
		}, "", []string{"p1"}},
		{"a VF makes its PF an uplink, not its sibling", func() *namespace { return ports().route("0.0.0.0/0", 0, "p2v0") }, "", []string{"p2", "p2v0"}},
		{"a PF makes its VFs uplinks", func() *namespace { return ports().route("0.0.0.0/0", 0, "p2") }, "", []string{"p2", "p2v0", "p2v1"}},
		{"routes that cannot be read", func() *namespace {
			n := ports()
			n.routesErr = errors.New("operation not permitted")
			return n
		}, "", []string{"p0", "p1", "p2", "p2v0", "p2v1"}},
		{"a loopback default route leads nowhere", func() *namespace { return ports().route("::/0", 0, "lo") }, "", nil},
	}
	root, tree := hardware(t)
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			cfg := Config{Sys: root, Dev: t.TempDir(), Kernel: c.network()}
			if c.node != "" {
				cfg.NodeAddresses = []netip.Addr{netip.MustParseAddr(c.node)}
			}
			nics, problems := New(cfg).Read(t.Context(), tree)
			if diff := cmp.Diff(c.want, uplinks(nics)); diff != "" {
				t.Error(diff)
			}
			if len(c.want) == 0 && (len(problems) != 1 || problems[0].Subject != "uplink") {
				t.Errorf("no uplink was found and no problem says so: %v", problems)
			}
		})
	}
}

func uplinks(nics []topology.NIC) []string {
	var names []string
	for _, nic := range nics {
		if nic.Uplink != "" {
			names = append(names, nic.Link.Name)
		}
	}
	return names
}

func TestTheReasonIsASentenceForTheAdministrator(t *testing.T) {
	root, tree := hardware(t)
	n := ports().link("p2.5", "vlan", "", "p2").route("0.0.0.0/0", 0, "p2.5")
	nics, _ := New(Config{Sys: root, Dev: t.TempDir(), Kernel: n}).Read(t.Context(), tree)
	want := []string{
		"is stacked with p2.5 and through it carries the default route 0.0.0.0/0 via p2.5",
		"is a VF of nic-0000-12-00-0, which is stacked with p2.5 and through it carries the default route 0.0.0.0/0 via p2.5",
	}
	if got := []string{nics[2].Uplink, nics[3].Uplink}; !cmp.Equal(want, got) {
		t.Error(cmp.Diff(want, got))
	}
	n.routesErr = errors.New("operation not permitted")
	nics, problems := New(Config{Sys: root, Dev: t.TempDir(), Kernel: n}).Read(t.Context(), tree)
	if !strings.Contains(nics[0].Uplink, "operation not permitted") || len(problems) != 1 {
		t.Errorf("the reason is %q, the problems %v", nics[0].Uplink, problems)
	}
}

// A netdev in a pod's namespace is gone from netlink; the NIC keeps its identity.
func TestANetdevInAPodLeavesTheNICWithoutLink(t *testing.T) {
	root, tree := hardware(t)
	n := ports().route("0.0.0.0/0", 0, "p0")
	n.links[2].Name = "elsewhere"
	nics, _ := New(Config{Sys: root, Dev: t.TempDir(), Kernel: n}).Read(t.Context(), tree)
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
			nics, _ := New(Config{Sys: root, Dev: dev, Kernel: n}).Read(context.Background(), tree)
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
