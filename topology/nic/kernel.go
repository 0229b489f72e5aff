// What the kernel says about the host's network namespace, through netlink, as
// plain values that a test can write down.

package nic

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// LinkState is one netdev of the namespace.
type LinkState struct {
	Index int
	Name  string
	// Kind is the rtnl link kind: "bond", "vlan", "veth", "bridge", "openvswitch", "device" for hardware.
	Kind string
	MAC  string
	MTU  int
	// Type is "ethernet", "infiniband" or the kernel's word for anything else.
	Type string
	// Up: administratively up and running (carrier).
	Up bool
	// Master is the index of the bridge, bond or switch that the netdev is a port of (IFLA_MASTER), 0 if none.
	Master int
	// Lower is the index of the netdev that this one is stacked on (IFLA_LINK) in
	// the same namespace, 0 if none.
	Lower int
}

// Route is one route of the main table. A route over several next hops has several links.
type Route struct {
	Destination netip.Prefix
	Links       []int
	Metric      int
}

// Address is one address of a netdev.
type Address struct {
	Link   int
	Prefix netip.Prefix
}

// Kernel answers for one network namespace.
type Kernel interface {
	Links() ([]LinkState, error)
	Routes() ([]Route, error)
	Addresses() ([]Address, error)
}

// Netlink asks the kernel in the calling process's network namespace.
type Netlink struct{}

// retried repeats a dump that the kernel interrupted because the table changed
// under it (NLM_F_DUMP_INTR): its result may lack entries.
func retried[T any](dump func() ([]T, error)) ([]T, error) {
	var entries []T
	var err error
	for range 5 {
		if entries, err = dump(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	return entries, err
}

// Links implements Kernel.
func (Netlink) Links() ([]LinkState, error) {
	links, err := retried(netlink.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list the node's links: %w", err)
	}
	states := make([]LinkState, len(links))
	for i, link := range links {
		states[i] = linkState(link)
	}
	return states, nil
}

func linkState(link netlink.Link) LinkState {
	a := link.Attrs()
	state := LinkState{
		Index: a.Index, Name: a.Name, Kind: link.Type(), MAC: a.HardwareAddr.String(), MTU: a.MTU, Type: a.EncapType,
		Up:     a.Flags&net.FlagUp != 0 && a.RawFlags&unix.IFF_RUNNING != 0,
		Master: a.MasterIndex,
	}
	if state.Type == "ether" {
		state.Type = "ethernet"
	}
	// Of a veth IFLA_LINK is the peer, not something below; with a namespace ID
	// (IFLA_LINK_NETNSID) the index counts in another namespace.
	if state.Kind != "veth" && a.NetNsID < 0 && a.ParentIndex != a.Index {
		state.Lower = a.ParentIndex
	}
	return state
}

// Routes implements Kernel.
func (Netlink) Routes() ([]Route, error) {
	var routes []Route
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		list, err := retried(func() ([]netlink.Route, error) { return netlink.RouteList(nil, family) })
		if errors.Is(err, unix.EAFNOSUPPORT) {
			continue // a kernel booted with ipv6.disable=1
		}
		if err != nil {
			return nil, fmt.Errorf("list the node's routes: %w", err)
		}
		for _, r := range list {
			routes = append(routes, route(r, family))
		}
	}
	return routes, nil
}

func route(r netlink.Route, family int) Route {
	out := Route{Metric: r.Priority, Destination: netip.PrefixFrom(netip.IPv4Unspecified(), 0)}
	if family == netlink.FAMILY_V6 {
		out.Destination = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	}
	if r.Dst != nil {
		out.Destination = prefix(r.Dst)
	}
	if r.LinkIndex != 0 {
		out.Links = append(out.Links, r.LinkIndex)
	}
	for _, hop := range r.MultiPath {
		out.Links = append(out.Links, hop.LinkIndex)
	}
	return out
}

// Addresses implements Kernel.
func (Netlink) Addresses() ([]Address, error) {
	list, err := retried(func() ([]netlink.Addr, error) { return netlink.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, fmt.Errorf("list the node's addresses: %w", err)
	}
	addresses := make([]Address, 0, len(list))
	for _, a := range list {
		if p := prefix(a.IPNet); p.IsValid() {
			addresses = append(addresses, Address{Link: a.LinkIndex, Prefix: p})
		}
	}
	return addresses, nil
}

func prefix(n *net.IPNet) netip.Prefix {
	if n == nil {
		return netip.Prefix{}
	}
	address, ok := netip.AddrFromSlice(n.IP)
	if !ok {
		return netip.Prefix{}
	}
	ones, bits := n.Mask.Size()
	address = address.Unmap()
	if bits == 128 && address.Is4() {
		ones -= 96
	}
	return netip.PrefixFrom(address, ones)
}

// network is the namespace, indexed.
type network struct {
	links     []LinkState
	byName    map[string]LinkState
	routes    []Route
	all       []Address
	addresses map[int][]netip.Prefix // by link, without link-local ones, sorted
}

// observe reads everything that can be read; the error joins what could not.
func observe(kernel Kernel) (*network, error) {
	n := &network{byName: map[string]LinkState{}, addresses: map[int][]netip.Prefix{}}
	var linksErr, routesErr, addressesErr error
	n.links, linksErr = kernel.Links()
	n.routes, routesErr = kernel.Routes()
	n.all, addressesErr = kernel.Addresses()
	for _, link := range n.links {
		n.byName[link.Name] = link
	}
	for _, a := range n.all {
		if !a.Prefix.Addr().IsLinkLocalUnicast() {
			n.addresses[a.Link] = append(n.addresses[a.Link], a.Prefix)
		}
	}
	for _, prefixes := range n.addresses {
		slices.SortFunc(prefixes, func(a, b netip.Prefix) int { return a.Compare(b) })
	}
	return n, errors.Join(linksErr, routesErr, addressesErr)
}
