package link

// The pod's way out: a network that is asked to be its default takes that from the
// interface that the cluster's own network made, as Multus does, and gives it back
// should the pod outlive the claim. Routes are kept as the kernel tells them, as
// `ip route save` does, so that nothing of them is lost: other networks give theirs
// an MTU, several next hops, or what else there is.

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
	"k8s.io/klog/v2"
)

// OtherDefaultRoutes are those that SetDefaultRoute would remove and that do not come
// again by themselves, in a form for RestoreDefaultRoutes.
func OtherDefaultRoutes(pod int, interfaceName string, gateways []netip.Addr) (others [][]byte, err error) {
	err = eachDefault(pod, interfaceName, gateways, func(_ *space, _ netip.Addr, _ netlink.Link, present []defaultRoute) error {
		for _, route := range present {
			if !slices.Contains([]uint8{unix.RTPROT_REDIRECT, unix.RTPROT_RA}, route.protocol) {
				others = append(others, route.message)
			}
		}
		return nil
	})
	return others, err
}

// SetDefaultRoute has the pod's traffic of the gateways' address families leave by
// the named interface, and removes every other default route of theirs from the
// main table. It takes at most one gateway of each family. What it does is done
// once: to repeat it changes nothing.
func SetDefaultRoute(pod int, interfaceName string, gateways []netip.Addr) error {
	return eachDefault(pod, interfaceName, gateways, func(s *space, gateway netip.Addr, link netlink.Link, _ []defaultRoute) error {
		// The kernel replaces a route of the same metric, so that there is one throughout.
		want := &netlink.Route{LinkIndex: link.Attrs().Index, Dst: everything(gateway), Gw: gateway.AsSlice()}
		if err := s.RouteReplace(want); err != nil {
			return fmt.Errorf("make %s by %s the pod's default route: %w; the gateway must be inside the prefix of an address of the interface", gateway, interfaceName, err)
		}
		present, err := s.otherDefaults(gateway, link)
		for _, route := range present {
			err = errors.Join(err, s.removeDefault(route))
		}
		if err != nil {
			return fmt.Errorf("remove the pod's former default route: %w", err)
		}
		return nil
	})
}

// RestoreDefaultRoutes undoes SetDefaultRoute with what OtherDefaultRoutes said before
// it. Default routes that somebody has made since stand, instead of the former ones.
func RestoreDefaultRoutes(ctx context.Context, pod int, interfaceName string, gateways []netip.Addr, former [][]byte) error {
	there, err := open(pod)
	if err != nil {
		return err
	}
	defer there.Close()
	link, err := there.LinkByName(interfaceName)
	if _, gone := errors.AsType[netlink.LinkNotFoundError](err); err != nil && !gone {
		return fmt.Errorf("find interface %s, which had the pod's default route: %w", interfaceName, err)
	}
	var faults []error
	for _, gateway := range gateways {
		if link != nil {
			ours := &netlink.Route{LinkIndex: link.Attrs().Index, Dst: everything(gateway), Gw: gateway.AsSlice()}
			if err := there.RouteDel(ours); err != nil && !errors.Is(err, unix.ESRCH) {
				faults = append(faults, fmt.Errorf("take the pod's default route by %s from %s: %w", gateway, interfaceName, err))
			}
		}
		faults = append(faults, there.restoreDefaults(ctx, gateway, former))
	}
	return errors.Join(faults...)
}

// restoreDefaults adds what is missing of the former routes of the gateway's family.
func (s *space) restoreDefaults(ctx context.Context, like netip.Addr, former [][]byte) error {
	present, err := s.defaults(like)
	if err != nil {
		return err
	}
	isFormer := func(route defaultRoute) bool {
		return slices.ContainsFunc(former, func(f []byte) bool { return bytes.Equal(f, route.message) })
	}
	if slices.ContainsFunc(present, func(r defaultRoute) bool { return !isFormer(r) }) {
		return nil
	}
	var faults []error
	for _, message := range former {
		if len(message) < unix.SizeofRtMsg || message[0] != uint8(familyOf(like)) {
			continue
		}
		err := s.route(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_APPEND, message)
		switch {
		case err == nil || errors.Is(err, unix.EEXIST):
		case errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENETDOWN) || errors.Is(err, unix.ENETUNREACH) || errors.Is(err, unix.EHOSTUNREACH):
			klog.FromContext(ctx).Info("A pod does not get its former default route back, because the way that it led is not there any more", "reason", err.Error())
		default:
			faults = append(faults, fmt.Errorf("give the pod its former default route back: %w", err))
		}
	}
	return errors.Join(faults...)
}

// eachDefault calls do for each gateway with the other default routes of its family.
func eachDefault(pod int, interfaceName string, gateways []netip.Addr, do func(*space, netip.Addr, netlink.Link, []defaultRoute) error) error {
	there, err := open(pod)
	if err != nil {
		return err
	}
	defer there.Close()
	link, err := there.LinkByName(interfaceName)
	if err != nil {
		return fmt.Errorf("find interface %s, which is to have the pod's default route: %w", interfaceName, err)
	}
	for _, gateway := range gateways {
		others, err := there.otherDefaults(gateway, link)
		if err != nil {
			return err
		}
		if err := do(there, gateway, link, others); err != nil {
			return err
		}
	}
	return nil
}

// nextHopObject is RTA_NH_ID of linux/rtnetlink.h.
const nextHopObject = 30

// defaultRoute is one of the main table.
type defaultRoute struct {
	// message is what the kernel tells of it and takes again.
	message  []byte
	protocol uint8
	// index of its interface, 0 for several, and its gateway.
	index   int
	gateway net.IP
}

// otherDefaults are those that do not lead to the gateway by the link.
func (s *space) otherDefaults(gateway netip.Addr, by netlink.Link) ([]defaultRoute, error) {
	all, err := s.defaults(gateway)
	return slices.DeleteFunc(all, func(r defaultRoute) bool {
		return r.index == by.Attrs().Index && r.gateway.Equal(gateway.AsSlice())
	}), err
}

// defaults lists the default routes of the address's family.
func (s *space) defaults(like netip.Addr) ([]defaultRoute, error) {
	message := nl.NewRtMsg()
	message.Family = uint8(familyOf(like))
	request := nl.NewNetlinkRequest(unix.RTM_GETROUTE, unix.NLM_F_DUMP)
	request.AddData(message)
	list, err := consistent(func() ([][]byte, error) { return s.ask(request, unix.RTM_NEWROUTE) })
	if err != nil {
		return nil, fmt.Errorf("cannot list default routes: %w", err)
	}
	var routes []defaultRoute
	for _, told := range list {
		route, isDefault, err := decodeDefault(told)
		if err != nil {
			return nil, fmt.Errorf("cannot read the kernel's list of routes: %w", err)
		}
		if isDefault {
			routes = append(routes, route)
		}
	}
	return routes, nil
}

// decodeDefault leaves out of the message what the kernel does not take or says anew:
// how the route is doing, and the object that its next hops are from, which it lists, too.
func decodeDefault(told []byte) (route defaultRoute, isDefault bool, err error) {
	if len(told) < unix.SizeofRtMsg {
		return route, false, errors.New("the kernel's answer is cut off")
	}
	header := nl.DeserializeRtMsg(told)
	table := uint32(header.Table)
	route.protocol = header.Protocol
	header.Flags &= unix.RTNH_F_ONLINK
	route.message = slices.Clone(header.Serialize())
	err = each(told[unix.SizeofRtMsg:], func(kind uint16, value []byte) error {
		switch {
		case kind == unix.RTA_CACHEINFO || kind == nextHopObject:
			return nil
		case kind == unix.RTA_TABLE && len(value) == 4:
			table = binary.NativeEndian.Uint32(value)
		case kind == unix.RTA_OIF && len(value) == 4:
			route.index = int(binary.NativeEndian.Uint32(value))
		case kind == unix.RTA_GATEWAY:
			route.gateway = slices.Clone(value)
		case kind == unix.RTA_MULTIPATH:
			value = nextHops(value)
		}
		route.message = append(route.message, nl.NewRtAttr(int(kind), slices.Clone(value)).Serialize()...)
		return nil
	})
	return route, header.Dst_len == 0 && table == unix.RT_TABLE_MAIN, err
}

// nextHops leaves out how they are doing (struct rtnexthop, linux/rtnetlink.h).
func nextHops(value []byte) []byte {
	value = slices.Clone(value)
	for rest := value; len(rest) >= unix.SizeofRtNexthop; {
		rest[2] &= unix.RTNH_F_ONLINK
		size := (int(binary.NativeEndian.Uint16(rest)) + 3) &^ 3
		if size < unix.SizeofRtNexthop {
			break
		}
		rest = rest[min(size, len(rest)):]
	}
	return value
}

// removeDefault is idempotent. Next hops that the kernel has put together may be of
// several protocols, of which it tells one.
func (s *space) removeDefault(route defaultRoute) error {
	message := slices.Clone(route.message)
	nl.DeserializeRtMsg(message).Protocol = unix.RTPROT_UNSPEC
	if err := s.route(unix.RTM_DELROUTE, 0, message); !errors.Is(err, unix.ESRCH) {
		return err
	}
	return nil
}

// route sends a message that defaults made.
func (s *space) route(kind, flags int, message []byte) error {
	request := nl.NewNetlinkRequest(kind, flags|unix.NLM_F_ACK)
	request.AddRawData(message)
	_, err := s.ask(request, 0)
	return err
}

func everything(like netip.Addr) *net.IPNet {
	if like.Is4() {
		return &net.IPNet{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)}
	}
	return &net.IPNet{IP: net.IPv6zero, Mask: net.CIDRMask(0, 128)}
}
