package link

// The pod's way out: a network that is asked to be its default takes that from the
// interface that the cluster's own network made, as Multus does.

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// SetDefaultRoute has the pod's traffic of the gateways' address families leave by
// the named interface, and removes every other default route of theirs from the
// main table. It takes at most one gateway of each family. What it does is done
// once: to repeat it changes nothing.
func SetDefaultRoute(pod int, interfaceName string, gateways []netip.Addr) error {
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
		// The kernel replaces a route of the same metric, so that there is one throughout.
		want := &netlink.Route{LinkIndex: link.Attrs().Index, Dst: everything(gateway), Gw: gateway.AsSlice()}
		if err := there.RouteReplace(want); err != nil {
			return fmt.Errorf("make %s by %s the pod's default route: %w; the gateway must be inside the prefix of an address of the interface", gateway, interfaceName, err)
		}
		if err := there.removeOtherDefaults(want); err != nil {
			return fmt.Errorf("remove the pod's former default route: %w", err)
		}
	}
	return nil
}

func (s *space) removeOtherDefaults(keep *netlink.Route) error {
	family := netlink.FAMILY_V4
	if len(keep.Gw) == net.IPv6len {
		family = netlink.FAMILY_V6
	}
	routes, err := s.RouteListFiltered(family, &netlink.Route{Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_TABLE)
	if err != nil {
		return err
	}
	var faults []error
	for _, route := range routes {
		isDefault := route.Dst == nil || route.Dst.IP.IsUnspecified() && isEverything(route.Dst.Mask)
		if !isDefault || route.LinkIndex == keep.LinkIndex && route.Gw.Equal(keep.Gw) {
			continue
		}
		if err := s.RouteDel(&route); err != nil && !errors.Is(err, unix.ESRCH) {
			faults = append(faults, fmt.Errorf("%s: %w", route, err))
		}
	}
	return errors.Join(faults...)
}

func everything(like netip.Addr) *net.IPNet {
	if like.Is4() {
		return &net.IPNet{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)}
	}
	return &net.IPNet{IP: net.IPv6zero, Mask: net.CIDRMask(0, 128)}
}

func isEverything(mask net.IPMask) bool {
	ones, _ := mask.Size()
	return ones == 0
}
