package nic

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/hostler-dev/hostler/topology"
	"github.com/hostler-dev/hostler/topology/pci"
)

// namespace is a kernel written down: links by name, in the order of their indexes.
type namespace struct {
	links     []LinkState
	routes    []Route
	addresses []Address
	rules     []Rule
	firmwares map[string]string
	routesErr error
	// rdma is shared or exclusive, or broken.
	rdma string
}

func (n *namespace) RDMANamespaces() (string, error) {
	if n.rdma == "broken" {
		return "", errors.New("input/output error")
	}
	return n.rdma, nil
}

func (n *namespace) Links() ([]LinkState, error)   { return n.links, nil }
func (n *namespace) Routes() ([]Route, error)      { return n.routes, n.routesErr }
func (n *namespace) Addresses() ([]Address, error) { return n.addresses, nil }
func (n *namespace) Rules() ([]Rule, error)        { return n.rules, nil }
func (n *namespace) Firmware(netdev string) (string, error) {
	if n.firmwares[netdev] == "broken" {
		return "", errors.New("input/output error")
	}
	return n.firmwares[netdev], nil
}

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

// routed changes the route that was added last.
func (n *namespace) routed(change func(*Route)) *namespace {
	change(&n.routes[len(n.routes)-1])
	return n
}

func (n *namespace) inTable(table int) *namespace {
	return n.routed(func(r *Route) { r.Table = table })
}

func (n *namespace) by(protocol int) *namespace {
	return n.routed(func(r *Route) { r.Protocol = protocol })
}

func (n *namespace) rule(rules ...Rule) *namespace {
	n.rules = append(n.rules, rules...)
	return n
}

// port makes a netdev a port of another.
func (n *namespace) port(name, master string) *namespace {
	n.links[n.index(name)-1].Master = n.index(master)
	return n
}

// tunnel adds a tunnel with what it is bound to.
func (n *namespace) tunnel(name, kind, underlay, local, remote string) *namespace {
	n.link(name, kind, "", "")
	link := &n.links[len(n.links)-1]
	link.Underlay = n.index(underlay)
	if local != "" {
		link.Local = netip.MustParseAddr(local)
	}
	if remote != "" {
		link.Remote = netip.MustParseAddr(remote)
	}
	return n
}

func (n *namespace) address(link, prefix string) *namespace {
	n.addresses = append(n.addresses, Address{Link: n.index(link), Prefix: netip.MustParsePrefix(prefix)})
	return n
}

// hardware renders three PFs p0, p1, p2 (0000:10:00.0 …) and two VFs of p2.
func hardware(t testing.TB) (string, *pci.Tree) {
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

func uplinks(nics []topology.NIC) []string {
	var names []string
	for _, nic := range nics {
		if nic.Uplink != "" {
			names = append(names, nic.Link.Name)
		}
	}
	return names
}

func read(ctx context.Context, r *Reader, tree *pci.Tree) []topology.NIC {
	inventory, _ := r.Read(ctx, tree)
	return inventory.NICs
}
