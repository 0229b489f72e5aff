// What the kernel says about the host's network namespace, as plain values
// that a test can write down, and the whole of it with indexes to look things up.

package nic

import (
	"cmp"
	"errors"
	"net/netip"
	"slices"
)

// LinkState is one netdev of the namespace.
type LinkState struct {
	Index int
	Name  string
	// AlternativeNames are further names, which udev and administrators give.
	AlternativeNames []string
	// Kind is the rtnl link kind: "bond", "vlan", "veth", "bridge", "openvswitch", "device" for hardware.
	Kind string
	MAC  string
	MTU  int
	// Type is "ethernet", "infiniband" or the kernel's word for anything else.
	Type string
	// Up: administratively up and running (carrier).
	Up bool
	// Master is the index of the bridge, bond, VRF or switch that the netdev is a port of (IFLA_MASTER), 0 if none.
	Master int
	// Lower is the index of the netdev that this one is stacked on (IFLA_LINK) in
	// the same namespace, 0 if none.
	Lower int
	// Underlay is the index of the netdev that a tunnel is bound to (IFLA_VXLAN_LINK
	// and its kin), 0 if none.
	Underlay int
	// Local and Remote are the outer addresses of a tunnel, invalid where it leaves them open.
	Local, Remote netip.Addr
}

// Route is one route. A route over several next hops has several links.
type Route struct {
	Destination netip.Prefix
	Links       []int
	Gateways    []netip.Addr
	Metric      int
	// Table is the routing table, 0 is main as 254 is.
	Table int
	// Protocol is who made the route, RTPROT_* in linux/rtnetlink.h.
	Protocol int
}

// Address is one address of a netdev.
type Address struct {
	Link   int
	Prefix netip.Prefix
}

// Kernel answers for one network namespace. One that is also a RuleLister, a
// FirmwareReader or an RDMANamespacer is asked for more; Netlink is all of them.
type Kernel interface {
	Links() ([]LinkState, error)
	Routes() ([]Route, error)
	Addresses() ([]Address, error)
}

// RuleLister tells which routing tables are asked. Without it all of them count.
type RuleLister interface {
	Rules() ([]Rule, error)
}

// FirmwareReader tells a netdev's firmware version, "" if its driver names none.
type FirmwareReader interface {
	Firmware(netdev string) (string, error)
}

// network is the namespace, indexed.
type network struct {
	links    []LinkState
	byName   map[string]LinkState
	byIndex  map[int]LinkState
	loopback int
	routes   []chosenRoute
	// byDestination are indexes of routes by table and destination.
	byDestination map[int]map[netip.Prefix][]int
	ownWays       []ownWay
	all           []Address
	owner         map[netip.Addr]int     // links by their addresses
	addresses     map[int][]netip.Prefix // by link, without link-local ones, sorted
}

// observe reads everything that can be read; the error joins what could not.
// nodeAddresses tell the node's own traffic from that of its NICs' addresses.
func observe(kernel Kernel, nodeAddresses []netip.Addr) (*network, error) {
	n := &network{addresses: map[int][]netip.Prefix{}}
	var linksErr, routesErr, addressesErr, rulesErr error
	n.links, linksErr = kernel.Links()
	routes, routesErr := kernel.Routes()
	n.all, addressesErr = kernel.Addresses()
	var rules []Rule
	if lister, ok := kernel.(RuleLister); ok {
		rules, rulesErr = lister.Rules()
	}
	// The order of a dump means nothing, and the first reason that is found stays.
	n.links = sorted(n.links, func(a, b LinkState) int { return cmp.Compare(a.Index, b.Index) })
	n.all = sorted(n.all, func(a, b Address) int { return cmp.Or(cmp.Compare(a.Link, b.Link), a.Prefix.Compare(b.Prefix)) })
	routes = sorted(routes, func(a, b Route) int {
		return cmp.Or(a.Destination.Compare(b.Destination), cmp.Compare(a.Metric, b.Metric), cmp.Compare(a.Table, b.Table), slices.Compare(a.Links, b.Links))
	})
	n.byName, n.byIndex = make(map[string]LinkState, len(n.links)), make(map[int]LinkState, len(n.links))
	for _, link := range n.links {
		n.byName[link.Name], n.byIndex[link.Index] = link, link
		if link.Name == "lo" {
			n.loopback = link.Index
		}
	}
	n.owner = make(map[netip.Addr]int, len(n.all))
	for _, a := range n.all {
		if !a.Prefix.Addr().IsLinkLocalUnicast() {
			n.addresses[a.Link] = append(n.addresses[a.Link], a.Prefix)
			n.owner[a.Prefix.Addr()] = a.Link
		}
	}
	for _, prefixes := range n.addresses {
		slices.SortFunc(prefixes, func(a, b netip.Prefix) int { return a.Compare(b) })
	}
	n.routes = n.choose(routes, rules, nodeAddresses)
	n.index()
	return n, errors.Join(linksErr, routesErr, addressesErr, rulesErr)
}

func sorted[T any](list []T, compare func(a, b T) int) []T {
	return slices.SortedStableFunc(slices.Values(list), compare)
}

// index has the routes found by table and destination: a node of a large cluster has
// tens of thousands of them, and as many gateways to look up.
func (n *network) index() {
	n.byDestination = map[int]map[netip.Prefix][]int{}
	for at := range n.routes {
		table := n.routes[at].table()
		if n.byDestination[table] == nil {
			n.byDestination[table] = map[netip.Prefix][]int{}
		}
		destination := n.routes[at].Destination.Masked()
		n.byDestination[table][destination] = append(n.byDestination[table][destination], at)
	}
}

// towards returns the routes that lead to an address: in every table the
// ones with the longest prefix that holds it, whatever their metric.
func (n *network) towards(address netip.Addr) []chosenRoute {
	var found []int
	for _, table := range n.byDestination {
		for bits := address.BitLen(); bits >= 0; bits-- {
			prefix, _ := address.Prefix(bits) // fails for no address, which no route leads to
			if longest := table[prefix]; len(longest) > 0 {
				found = append(found, longest...)
				break
			}
		}
	}
	slices.Sort(found) // tables are in no order
	best := make([]chosenRoute, len(found))
	for i, at := range found {
		best[i] = n.routes[at]
	}
	return best
}

func (r *Route) table() int { return cmp.Or(r.Table, tableMain) }
