// Routes, next-hop objects and rules from netlink. All tables are read in one
// dump of both families; which of them matter is decided in rule.go.

package nic

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// body is a message of which only the size matters: a dump without filter.
type body []byte

func (b body) Len() int          { return len(b) }
func (b body) Serialize() []byte { return b }

const (
	// sizeofNexthopMessage is struct nhmsg of linux/nexthop.h.
	sizeofNexthopMessage = 8
	// routeNexthopObject is RTA_NH_ID of linux/rtnetlink.h.
	routeNexthopObject = 30
)

// Routes implements Kernel. Routes to next-hop objects show the objects' links.
func (Netlink) Routes() ([]Route, error) {
	routes, err := retried(routesAndObjects)
	if err != nil {
		return nil, fmt.Errorf("list the node's routes: %w", err)
	}
	return routes, nil
}

func routesAndObjects() ([]Route, error) {
	messages, err := dump(unix.RTM_GETROUTE, unix.RTM_NEWROUTE, body(make([]byte, unix.SizeofRtMsg)))
	if err != nil {
		return nil, err
	}
	var routes []Route
	var objects map[int]nexthop
	for _, message := range messages {
		r, object, ok := route(message)
		if !ok {
			continue
		}
		// With net.ipv4.nexthop_compat_mode=0 such a route shows only the object's number.
		if object != 0 && len(r.Links) == 0 {
			if objects == nil {
				if objects, err = nexthops(); err != nil {
					return nil, err
				}
			}
			if _, ok := objects[object]; !ok {
				return nil, fmt.Errorf("the next-hop object %d of %s went between two looks: %w", object, r.Destination, netlink.ErrDumpInterrupted)
			}
			r.hop(objects[object])
			for _, member := range objects[object].group {
				r.hop(objects[member])
			}
		}
		routes = append(routes, r)
	}
	return routes, nil
}

// route reads a message; object is the route's next-hop object, 0 if it has none.
// Routes that lead nowhere (blackhole, multicast and the like) are not ok.
func route(message []byte) (r Route, object int, ok bool) {
	if len(message) < unix.SizeofRtMsg {
		return Route{}, 0, false
	}
	header := nl.DeserializeRtMsg(message)
	destination := netip.IPv4Unspecified()
	switch {
	case header.Family == unix.AF_INET6:
		destination = netip.IPv6Unspecified()
	case header.Family != unix.AF_INET:
		return Route{}, 0, false
	}
	if header.Type != unix.RTN_UNICAST && header.Type != unix.RTN_LOCAL || header.Flags&unix.RTM_F_CLONED != 0 {
		return Route{}, 0, false
	}
	r = Route{Table: int(header.Table), Protocol: int(header.Protocol)}
	for kind, value := range attributes(message[unix.SizeofRtMsg:]) {
		switch kind {
		case unix.RTA_DST:
			if a, ok := netip.AddrFromSlice(value); ok {
				destination = a
			}
		case unix.RTA_TABLE:
			r.Table = number(value)
		case unix.RTA_PRIORITY:
			r.Metric = number(value)
		case routeNexthopObject:
			object = number(value)
		case unix.RTA_MULTIPATH:
			r.multipath(value)
		}
	}
	r.hop(hopOf(message[unix.SizeofRtMsg:]))
	r.Destination = netip.PrefixFrom(destination, int(header.Dst_len))
	return r, object, r.Destination.IsValid()
}

// nexthop is where a route leads, or a next-hop object, which may be a group of others.
type nexthop struct {
	link    int
	gateway netip.Addr
	group   []int
}

func (r *Route) hop(h nexthop) {
	if h.link != 0 {
		r.Links = append(r.Links, h.link)
	}
	if h.gateway.IsValid() {
		r.Gateways = append(r.Gateways, h.gateway)
	}
}

func hopOf(attrs []byte) nexthop {
	var h nexthop
	for kind, value := range attributes(attrs) {
		switch kind {
		case unix.RTA_OIF:
			h.link = number(value)
		case unix.RTA_GATEWAY:
			h.gateway = address(value)
		case unix.RTA_VIA: // a gateway of the other family, struct rtvia
			if len(value) > 2 {
				h.gateway = address(value[2:])
			}
		}
	}
	return h
}

// multipath reads a row of struct rtnexthop, each with attributes of its own.
func (r *Route) multipath(b []byte) {
	for len(b) >= unix.SizeofRtNexthop {
		size := int(binary.NativeEndian.Uint16(b))
		if size < unix.SizeofRtNexthop || size > len(b) {
			return
		}
		h := hopOf(b[unix.SizeofRtNexthop:size])
		h.link = number(b[4:])
		r.hop(h)
		b = b[min((size+3)&^3, len(b)):]
	}
}

func nexthops() (map[int]nexthop, error) {
	messages, err := dump(unix.RTM_GETNEXTHOP, unix.RTM_NEWNEXTHOP, body(make([]byte, sizeofNexthopMessage)))
	if err != nil {
		return nil, fmt.Errorf("list the node's next-hop objects: %w", err)
	}
	objects := make(map[int]nexthop, len(messages))
	for _, message := range messages {
		if len(message) < sizeofNexthopMessage {
			continue
		}
		id, h := 0, nexthop{}
		for kind, value := range attributes(message[sizeofNexthopMessage:]) {
			switch kind {
			case unix.NHA_ID:
				id = number(value)
			case unix.NHA_OIF:
				h.link = number(value)
			case unix.NHA_GATEWAY:
				h.gateway = address(value)
			case unix.NHA_GROUP:
				for ; len(value) >= unix.SizeofNexthopGrp; value = value[unix.SizeofNexthopGrp:] {
					h.group = append(h.group, number(value))
				}
			}
		}
		objects[id] = h
	}
	return objects, nil
}

// Rules implements RuleLister.
func (Netlink) Rules() ([]Rule, error) {
	var rules []Rule
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		list, err := retried(func() ([]netlink.Rule, error) { return netlink.RuleList(family) })
		if errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EOPNOTSUPP) {
			continue // a kernel without this family, or without policy routing
		}
		if err != nil {
			return nil, fmt.Errorf("list the node's routing rules: %w", err)
		}
		for _, r := range list {
			rule := Rule{
				Table: r.Table, IPv6: family == netlink.FAMILY_V6, From: selector(r.Src), To: selector(r.Dst),
				In: r.IifName, Out: r.OifName, Mark: r.Mark, Mask: ^uint32(0), Invert: r.Invert,
				NotRoot: r.UIDRange != nil && r.UIDRange.Start > 0,
			}
			if r.Mask != nil {
				rule.Mask = *r.Mask
			}
			rules = append(rules, rule)
		}
	}
	return rules, nil
}

// selector is a rule's prefix; the library gives the addresses of "all" none at all.
func selector(n *net.IPNet) netip.Prefix {
	p := prefix(n)
	if !p.IsValid() {
		return netip.Prefix{}
	}
	return p.Masked()
}
