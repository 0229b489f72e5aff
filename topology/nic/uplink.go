// Which NICs does the node itself live on? Giving one of them to a pod cuts the
// node off, so the answer is drawn wide: every default route of either family, any
// metric and any table that the node's traffic may use (rule.go); every address that
// the cluster knows the node by; the routes to the API servers; what the pod network
// runs over; and every port of a bond, bridge, Open vSwitch or VRF. From the links that
// these name it goes down through everything that they are stacked on (stack.go) to
// the PCI function, its PF and its VFs. A reason once found is kept, the weightiest first.
// Where the kernel's answer is incomplete, or ends at a program's tap, every NIC is an
// uplink, and says why.
//
// Drawn wide means that a fabric whose routers advertise themselves puts a default
// route on every RDMA NIC, and none is offered. The reason then names the
// advertisement; `accept_ra=0` on those netdevs, or a router lifetime of 0, frees them.

package nic

import (
	"fmt"
	"net/netip"
	"slices"
)

// Interests are what the node must be able to reach, besides its default routes.
type interests struct {
	nodeAddresses, servers []netip.Addr
	podNetworks            []podNetwork
}

// verdicts are the reasons why the node lives on links, by index.
type verdicts struct {
	n       *network
	stack   *stack
	reasons map[int]string
	// functions are reasons by PCI function, of hardware netdevs. It knows those of
	// subfunctions too, which are not among their function's own.
	functions map[string]string
	// reachable: something shows how the node is reached at all.
	reachable bool
}

// judge is the one judgement, of the snapshot and of the last look before a NIC is given away.
func judge(n *network, s *stack, in interests) *verdicts {
	v := &verdicts{n: n, stack: s, reasons: map[int]string{}, functions: map[string]string{}}
	v.defaultRoutes()
	v.nodeAddresses(in.nodeAddresses)
	v.servers(in.servers)
	v.reachable = len(v.reasons) > 0
	v.hidden()
	v.podNetworks(in.podNetworks)
	v.routingDaemons()
	v.tunnels()
	v.ports()
	for _, link := range n.links {
		if reason := v.reasons[link.Index]; reason != "" && link.Kind == "device" {
			if pci := s.functionOf(link.Name); pci != "" && v.functions[pci] == "" {
				v.functions[pci] = reason
			}
		}
	}
	return v
}

// mark gives a link its reason, and everything below it.
func (v *verdicts) mark(link int, reason string) {
	if link == v.n.loopback || v.n.byIndex[link].Name == "" || v.reasons[link] != "" {
		return
	}
	v.reasons[link] = reason
	if len(v.stack.below[link]) == 0 {
		return // as with thousands of pods' veths
	}
	below := fmt.Sprintf("is stacked with %s and through it %s", v.n.byIndex[link].Name, reason)
	queue := slices.Clone(v.stack.below[link])
	for len(queue) > 0 {
		next := queue[0]
		queue = queue[1:]
		if next == v.n.loopback || v.reasons[next] != "" {
			continue
		}
		v.reasons[next] = below
		queue = append(queue, v.stack.below[next]...)
	}
}

func (v *verdicts) name(link int) string { return v.n.byIndex[link].Name }

// defaultRoutes: those that every packet may take first.
func (v *verdicts) defaultRoutes() {
	for _, ofEverything := range []bool{true, false} {
		for _, route := range v.n.routes {
			if !isDefault(route.Destination) || route.isInFixedTable() != ofEverything {
				continue
			}
			for _, link := range route.Links {
				v.mark(link, fmt.Sprintf("carries the default route %s via %s%s", route.Destination, v.name(link), route.origin()))
			}
		}
	}
}

// isDefault also takes the halves 0.0.0.0/1 and 128.0.0.0/1, by which VPN
// software overrides a default route without replacing it, and 2000::/3, which is
// all of the public IPv6 space.
func isDefault(destination netip.Prefix) bool {
	return destination.IsValid() && (destination.Bits() <= 1 || destination.Addr().Is6() && destination.Bits() <= 3)
}

// origin says what is special about where a route is from.
func (r *chosenRoute) origin() string {
	origin := ""
	switch {
	case r.rule != "":
		origin = fmt.Sprintf(" in table %d, which the rule \"%s\" sends traffic to", r.table(), r.rule)
	case !r.isInFixedTable():
		origin = fmt.Sprintf(" in table %d, which no rule names yet: a pod network may have prepared it", r.table())
	}
	if r.Protocol == protocolRA {
		origin += ", learnt from a router advertisement"
	}
	return origin
}

func (v *verdicts) nodeAddresses(addresses []netip.Addr) {
	for _, address := range v.n.all {
		if slices.Contains(addresses, address.Prefix.Addr()) {
			v.mark(address.Link, fmt.Sprintf("carries the node's address %s on %s", address.Prefix.Addr(), v.name(address.Link)))
		}
	}
}

func (v *verdicts) servers(servers []netip.Addr) {
	for _, server := range servers {
		for _, route := range v.n.towards(server) {
			for _, link := range route.Links {
				v.mark(link, fmt.Sprintf("carries the route %s to the API server %s via %s%s", route.Destination, server, v.name(link), route.origin()))
			}
		}
	}
}

// hidden: a tun or tap is as far as the kernel shows the way of a packet that a
// program takes from it, such as Open vSwitch with its datapath in user space (DPDK on
// NICs that keep their netdev, AF_XDP). Where the node is known to live on nothing
// else, it may be any NIC that the packet leaves by.
func (v *verdicts) hidden() {
	tap := ""
	var hardware []int
	for _, link := range v.n.links {
		isHardware := link.Kind == "device" || link.Kind == "ipoib"
		switch isReached := v.reasons[link.Index] != ""; {
		case isHardware && isReached:
			return
		case isHardware:
			hardware = append(hardware, link.Index)
		case link.Kind == "tun" && isReached && tap == "":
			tap = link.Name
		}
	}
	if tap == "" {
		return
	}
	for _, link := range hardware {
		v.mark(link, fmt.Sprintf("may be what the node lives on: its way out is %s, a tun or tap, and the kernel does not show where the program behind it sends packets", tap))
	}
}

// ports: whoever made a netdev a port of a bond, team, bridge, switch or VRF of
// the node did so for the node's sake.
func (v *verdicts) ports() {
	for _, link := range v.n.links {
		if master := v.name(link.Master); link.Master != 0 && master != "" && v.reasons[link.Index] == "" {
			v.mark(link.Index, "is a port of "+master+" on the node")
		}
	}
}
