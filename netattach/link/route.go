package link

// Routes through an interface: a pod's as the claim wants them, and the host's,
// which the kernel forgets when the interface leaves or goes down.

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/hostler-dev/hostler/netattach"
)

// protocol marks routes and rules as the agent's (rtm_protocol; /etc/iproute2/rt_protos
// leaves it free): what has another was made by somebody else.
const protocol = 72

// defaultMetric is what the kernel gives IPv6 routes without one (IP6_RT_PRIO_USER).
const defaultMetric = 1024

// completed is the route with what it leaves to be understood: table, protocol,
// metric and scope as the kernel will have them.
func completed(route netattach.Route, vrf *netattach.VRF) netattach.Route {
	if route.Table == 0 {
		route.Table = unix.RT_TABLE_MAIN
		if vrf != nil {
			route.Table = vrf.Table
		}
	}
	if route.Protocol == 0 {
		route.Protocol = protocol
	}
	if route.Destination.Addr().Is6() { // which has no scopes
		route.Link, route.Global = false, false
		if route.Metric == 0 {
			route.Metric = defaultMetric
		}
		return route
	}
	route.Link = route.Link || !route.Gateway.IsValid() && !route.Global
	route.Global = !route.Link
	return route
}

// addRoute is idempotent, and leaves routes of other interfaces to the same
// destination in the same table as they are: an IPv4 one is preferred to those of its
// metric, and they are there again when it goes. IPv6 would make one route of both
// (fib6_add_rt2node), so there a metric must tell them apart.
func (s *space) addRoute(index int, route netattach.Route) error {
	request := nl.NewNetlinkRequest(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_ACK)
	if route.Destination.Addr().Is6() {
		request.Flags |= unix.NLM_F_EXCL
	}
	message := nl.NewRtMsg()
	message.Family = uint8(familyOf(route.Destination.Addr()))
	message.Dst_len = uint8(route.Destination.Bits())
	message.Protocol, message.Table = uint8(route.Protocol), unix.RT_TABLE_UNSPEC
	if route.Link {
		message.Scope = unix.RT_SCOPE_LINK
	}
	if route.OnLink {
		message.Flags |= unix.RTNH_F_ONLINK
	}
	request.AddData(message)
	if route.Destination.Bits() > 0 {
		request.AddData(nl.NewRtAttr(unix.RTA_DST, route.Destination.Addr().AsSlice()))
	}
	if gateway := route.Gateway; gateway.IsValid() {
		if gateway.Is6() == route.Destination.Addr().Is6() {
			request.AddData(nl.NewRtAttr(unix.RTA_GATEWAY, gateway.AsSlice()))
		} else { // IPv4 over an IPv6 neighbour (RFC 5549)
			request.AddData(nl.NewRtAttr(unix.RTA_VIA, append(binary.NativeEndian.AppendUint16(nil, uint16(familyOf(gateway))), gateway.AsSlice()...)))
		}
	}
	if route.Source.IsValid() {
		request.AddData(nl.NewRtAttr(unix.RTA_PREFSRC, route.Source.AsSlice()))
	}
	if route.Metric != 0 {
		request.AddData(nl.NewRtAttr(unix.RTA_PRIORITY, nl.Uint32Attr(route.Metric)))
	}
	request.AddData(nl.NewRtAttr(unix.RTA_TABLE, nl.Uint32Attr(route.Table)))
	request.AddData(nl.NewRtAttr(unix.RTA_OIF, nl.Uint32Attr(uint32(index))))
	_, err := s.ask(request, 0)
	if errors.Is(err, unix.EEXIST) {
		return s.sameRoute(index, route)
	}
	return err
}

// sameRoute returns nil if the route that is in the way is the very one.
func (s *space) sameRoute(index int, route netattach.Route) error {
	routes, err := s.routes(index)
	if err != nil || slices.Contains(routes, route) {
		return err
	}
	return fmt.Errorf("table %d has another route to %s with metric %d already; give this one another metric", route.Table, route.Destination, route.Metric)
}

// routes through the interface in all tables that the kernel did not make itself
// for an address and that no router has advertised: those come again by themselves.
// One over several interfaces is not among them.
func (s *space) routes(index int) ([]netattach.Route, error) {
	list, err := consistent(func() ([]netlink.Route, error) {
		return s.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{LinkIndex: index, Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_OIF|netlink.RT_FILTER_TABLE)
	})
	if err != nil {
		return nil, fmt.Errorf("cannot list routes: %w", err)
	}
	var routes []netattach.Route
	for _, r := range list {
		if r.Type != unix.RTN_UNICAST || slices.Contains([]int{unix.RTPROT_KERNEL, unix.RTPROT_REDIRECT, unix.RTPROT_RA}, int(r.Protocol)) {
			continue
		}
		routes = append(routes, routeOf(r))
	}
	return routes, nil
}

// routeOf is complete, see completed.
func routeOf(r netlink.Route) netattach.Route {
	route := netattach.Route{Destination: prefixOf(r.Dst), Gateway: addressOf(r.Gw), Source: addressOf(r.Src),
		OnLink: r.Flags&unix.RTNH_F_ONLINK != 0, Table: uint32(r.Table), Metric: uint32(r.Priority), Protocol: int(r.Protocol)}
	if !route.Destination.IsValid() {
		route.Destination = netip.PrefixFrom(netip.IPv4Unspecified(), 0)
		if r.Family == unix.AF_INET6 {
			route.Destination = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
		}
	}
	if via, ok := r.Via.(*netlink.Via); ok {
		route.Gateway = addressOf(via.Addr)
	}
	if route.Destination.Addr().Is4() {
		route.Link = r.Scope == netlink.SCOPE_LINK
		route.Global = !route.Link
	}
	return route
}

func addressOf(ip net.IP) netip.Addr {
	address, _ := netip.AddrFromSlice(ip)
	return address.Unmap()
}

// addRoutes adds those without a gateway first, over which gateways are reached.
// Each of them is tried.
func (s *space) addRoutes(index int, routes []netattach.Route) error {
	var faults []error
	for _, direct := range []bool{true, false} {
		for _, route := range routes {
			if direct == route.Gateway.IsValid() {
				continue
			}
			if err := s.addRoute(index, route); err != nil {
				faults = append(faults, fmt.Errorf("route %s: %w%s", describe(route), err, hint(route, err)))
			}
		}
	}
	return errors.Join(faults...)
}

// haveRoutes says which of the routes is not there.
func (s *space) haveRoutes(index int, want []netattach.Route) error {
	routes, err := s.routes(index)
	if err != nil {
		return err
	}
	for _, route := range want {
		if !slices.Contains(routes, route) {
			return fmt.Errorf("route %s is not there after it was added; those there are: %s", describe(route), describeAll(routes))
		}
	}
	return nil
}

// hint says what helps against the kernel's answer, as far as that is known.
func hint(route netattach.Route, answer error) string {
	switch {
	case route.Gateway.IsValid() && !route.OnLink && (errors.Is(answer, unix.ENETUNREACH) || errors.Is(answer, unix.EHOSTUNREACH)):
		return "; a gateway must be inside an address's or direct route's prefix, or the route onLink"
	case route.Source.IsValid() && errors.Is(answer, unix.EINVAL):
		return "; its source must be an address of the interface"
	}
	return ""
}

func describeAll(routes []netattach.Route) string {
	text := "none"
	for i, route := range routes {
		if i == 0 {
			text = describe(route)
		} else {
			text += ", " + describe(route)
		}
	}
	return text
}

// describe writes a route as `ip route` would.
func describe(r netattach.Route) string {
	text := r.Destination.String()
	if r.Gateway.IsValid() {
		text += " via " + r.Gateway.String()
	}
	if r.OnLink {
		text += " onlink"
	}
	if r.Source.IsValid() {
		text += " src " + r.Source.String()
	}
	if r.Metric != 0 {
		text += fmt.Sprintf(" metric %d", r.Metric)
	}
	return fmt.Sprintf("%s table %d", text, r.Table)
}
