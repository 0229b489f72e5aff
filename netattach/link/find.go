package link

// Which netdev is the claimed one. A pod with CAP_NET_ADMIN can give its device
// another name and MAC address, and both to a device that it made itself; it can
// change neither the index of a device nor the function that a device belongs to.
// An index is given again once its device has left; a function never is.

import (
	"fmt"
	"net"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"

	"github.com/hostler-dev/hostler/netattach"
)

// find returns the device's netdev. The index is the one that it has in this
// namespace, 0 if that is not known.
func (s *space) find(device netattach.DeviceIntent, index int) (netlink.Link, error) {
	if device.Child != nil {
		return s.findChild(device, index)
	}
	links, err := s.links()
	if err != nil {
		return nil, err
	}
	return pick(links, device, index)
}

// pick trusts the PCI function most, which no virtual device has (kernel 5.14,
// IFLA_PARENT_DEV_NAME), then the index, and MAC address and name only while
// there is nothing better.
func pick(links []netlink.Link, device netattach.DeviceIntent, index int) (netlink.Link, error) {
	missing := fmt.Errorf("%w: no %s or other name with MAC address %s", ErrNotFound, device.HostName, device.HostMAC)
	candidates := filter(links, func(l netlink.Link) bool { return !stacked(l) })
	ofFunction := filter(candidates, func(l netlink.Link) bool { return device.PCI != "" && l.Attrs().ParentDev == device.PCI })
	if len(ofFunction) > 0 {
		candidates = ofFunction
	}
	if index != 0 {
		for _, link := range candidates {
			if link.Attrs().Index == index {
				return link, nil
			}
		}
		if len(ofFunction) == 0 {
			return nil, missing
		}
	}
	same := addressed(candidates, device.HostMAC)
	if len(same) == 0 && device.HardwareAddress != "" { // the claim's, which it may have been given already or still have
		same = addressed(candidates, device.HardwareAddress)
	}
	for _, name := range []string{device.PodName, device.HostName} {
		for _, link := range same {
			if link.Attrs().Name == name {
				return link, nil
			}
		}
	}
	// A function's representors have its address too, but none burnt in.
	burnt := filter(ofFunction, func(l netlink.Link) bool { return len(l.Attrs().PermHWAddr) > 0 })
	switch {
	case len(same) == 1:
		return same[0], nil
	case len(same) == 0 && len(burnt) == 1:
		return burnt[0], nil
	case len(same) == 0:
		return nil, missing
	}
	return nil, fmt.Errorf("%d network devices have the MAC address %s and none is named %s; give it its name back by hand (ip link set … name %s)", len(same), device.HostMAC, device.HostName, device.HostName)
}

func addressed(links []netlink.Link, mac string) []netlink.Link {
	return filter(links, func(l netlink.Link) bool { return strings.EqualFold(l.Attrs().HardwareAddr.String(), mac) })
}

func filter(links []netlink.Link, keep func(netlink.Link) bool) []netlink.Link {
	return slices.DeleteFunc(slices.Clone(links), func(l netlink.Link) bool { return !keep(l) })
}

// stacked devices share the MAC address of the device that they lie upon.
func stacked(link netlink.Link) bool {
	return slices.Contains([]string{"vlan", "macvlan", "macvtap", "ipvlan", "ipvtap", "bridge", "bond", "team", "vrf", "openvswitch"}, link.Type())
}

// changedMAC is the address that the device should have, nil if it has it.
func changedMAC(link netlink.Link, device netattach.DeviceIntent) (net.HardwareAddr, error) {
	mac, err := net.ParseMAC(device.HostMAC)
	if err != nil {
		return nil, fmt.Errorf("%s (%s): %w", device.HostName, device.Device, err)
	}
	if slices.Equal(mac, link.Attrs().HardwareAddr) {
		return nil, nil
	}
	return mac, nil
}
