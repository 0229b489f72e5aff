package link

// What a pod's netdev is given, each part read back: before it is up what must
// hold from its first packet on, and after that what the kernel refuses on an
// interface that is down (fib_check_nh answers ENETDOWN).

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/hostler-dev/hostler/netattach"
)

// configure gives a netdev that is in the pod what it has while it is down. It is
// idempotent, and passes over what the netdev has: of a repeat, nobody's connection
// shall notice.
func (s *space) configure(ctx context.Context, link netlink.Link, device netattach.DeviceIntent) error {
	index := link.Attrs().Index
	for _, part := range []struct {
		what string
		do   func() error
	}{
		// First the address, a change of which costs an interface its neighbours.
		{"hardware address " + device.HardwareAddress, func() error { return s.setHardwareAddress(link, device) }},
		{fmt.Sprintf("MTU %d", device.MTU), func() error { return s.setMTU(link, device) }},
		{"ethtool settings", func() error { return s.setSwitches(link, device) }},
		{"VRF", func() error { return s.joinVRF(ctx, link, device) }},
		{"sysctls", func() error { return s.setPodSysctls(link, device) }},
		{"addresses", func() error {
			for _, prefix := range device.Addresses {
				if err := s.putAddress(index, podAddress(prefix)); err != nil {
					return err
				}
			}
			return s.haveAddresses(link, device.Addresses)
		}},
		{"neighbours", func() error {
			if err := s.setNeighbours(index, device.Neighbours); err != nil {
				return err
			}
			return s.haveNeighbours(index, device.Neighbours)
		}},
	} {
		if err := part.do(); err != nil {
			return fmt.Errorf("cannot give %s (%s) its %s in the pod: %w", device.PodName, device.Device, part.what, err)
		}
	}
	return nil
}

func (s *space) setHardwareAddress(link netlink.Link, device netattach.DeviceIntent) error {
	if device.HardwareAddress == "" || strings.EqualFold(device.HardwareAddress, link.Attrs().HardwareAddr.String()) {
		return nil
	}
	mac, err := net.ParseMAC(device.HardwareAddress)
	if err != nil {
		return err
	}
	if err := s.change(link.Attrs().Index, 0, 0, nl.NewRtAttr(unix.IFLA_ADDRESS, mac)); err != nil {
		return fmt.Errorf("%w; a VF whose PF sets its address (vf.mac) takes no other, unless it is trusted", err)
	}
	now, err := s.LinkByIndex(link.Attrs().Index)
	if err == nil && !slices.Equal(now.Attrs().HardwareAddr, mac) {
		err = fmt.Errorf("its driver keeps %s", now.Attrs().HardwareAddr)
	}
	return err
}

func (s *space) setMTU(link netlink.Link, device netattach.DeviceIntent) error {
	if device.MTU == 0 || device.MTU == link.Attrs().MTU {
		return nil
	}
	if err := s.change(link.Attrs().Index, 0, 0, nl.NewRtAttr(unix.IFLA_MTU, nl.Uint32Attr(uint32(device.MTU)))); err != nil {
		return err
	}
	now, err := s.LinkByIndex(link.Attrs().Index)
	if err == nil && now.Attrs().MTU != device.MTU {
		err = fmt.Errorf("its driver keeps %d", now.Attrs().MTU)
	}
	return err
}

func (s *space) setSwitches(link netlink.Link, device netattach.DeviceIntent) error {
	if !switched(device) {
		return nil
	}
	switches, err := s.ethtool()
	if err != nil {
		return err
	}
	defer switches.Close()
	if _, _, err := switches.now(link.Attrs().Name, device); err != nil {
		return err
	}
	return switches.set(link.Attrs().Name, device.Features, device.PrivateFlags, true)
}

// setPodSysctls also turns IPv6 on where the claim wants IPv6: runtimes turn it off
// in pods of clusters without it, and the kernel then refuses addresses and makes
// no GID of RoCE.
func (s *space) setPodSysctls(link netlink.Link, device netattach.DeviceIntent) error {
	settings := device.Sysctls
	if wantsIPv6(device) {
		if same(settings[disableIPv6], "1") {
			return fmt.Errorf("the sysctl disable_ipv6 turns off what the IPv6 addresses, routes and neighbours of the same claim need; leave out the one or the others")
		}
		settings = map[string]string{disableIPv6: "0"}
		for setting, value := range device.Sysctls {
			settings[setting] = value
		}
	}
	if len(settings) == 0 {
		return nil
	}
	return s.inside(func() error { return setSysctls(link.Attrs().Name, settings) })
}

// wantsIPv6 says whether any part of the device cannot be without IPv6.
func wantsIPv6(device netattach.DeviceIntent) bool {
	for _, prefix := range device.Addresses {
		if prefix.Addr().Is6() {
			return true
		}
	}
	for _, route := range device.Routes {
		if route.Destination.Addr().Is6() || route.Gateway.Is6() {
			return true
		}
	}
	for _, neighbour := range device.Neighbours {
		if neighbour.Address.Is6() {
			return true
		}
	}
	return false
}

// connect gives a netdev that is up its routes, and the pod the rules by which
// they are found.
func (s *space) connect(link netlink.Link, device netattach.DeviceIntent) error {
	index := link.Attrs().Index
	routes := make([]netattach.Route, len(device.Routes))
	for i, route := range device.Routes {
		routes[i] = completed(route, device.VRF)
	}
	err := s.addRoutes(index, routes)
	if err == nil && len(routes) > 0 {
		err = s.haveRoutes(index, routes)
	}
	if err == nil {
		err = s.addRules(device.Rules)
	}
	if err != nil {
		return fmt.Errorf("cannot route through %s (%s) in the pod: %w", device.PodName, device.Device, err)
	}
	return nil
}
