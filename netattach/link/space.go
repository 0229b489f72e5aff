package link

// One network namespace and the operations on it, through a netlink handle that
// was opened inside, so that no goroutine ever has to be in another namespace.

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
	"k8s.io/klog/v2"

	"github.com/hostler-dev/hostler/netattach"
)

type space struct {
	*netlink.Handle
	namespace int
}

func open(namespace int) (*space, error) {
	handle, err := netlink.NewHandleAt(netns.NsHandle(namespace), unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("cannot open a netlink socket in a network namespace: %w; the agent needs CAP_SYS_ADMIN, and the namespace must still exist", err)
	}
	return &space{handle, namespace}, nil
}

// transfer moves, renames and sets MTU and MAC in one RTM_NEWLINK, 0 and nil
// leaving them. The kernel closes the device first, so no packet passes on the
// way (dev_change_net_namespace).
func (s *space) transfer(link netlink.Link, target int, name string, mtu int, mac net.HardwareAddr) error {
	socket, err := nl.GetNetlinkSocketAt(netns.NsHandle(s.namespace), netns.None(), unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("cannot open a netlink socket: %w", err)
	}
	defer socket.Close()
	request := nl.NewNetlinkRequest(unix.RTM_NEWLINK, unix.NLM_F_ACK)
	request.Sockets = map[int]*nl.SocketHandle{unix.NETLINK_ROUTE: {Socket: socket}}
	message := nl.NewIfInfomsg(unix.AF_UNSPEC)
	message.Index = int32(link.Attrs().Index)
	request.AddData(message)
	request.AddData(nl.NewRtAttr(unix.IFLA_NET_NS_FD, binary.NativeEndian.AppendUint32(nil, uint32(target))))
	request.AddData(nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(name)))
	if mtu > 0 {
		request.AddData(nl.NewRtAttr(unix.IFLA_MTU, binary.NativeEndian.AppendUint32(nil, uint32(mtu))))
	}
	if mac != nil {
		request.AddData(nl.NewRtAttr(unix.IFLA_ADDRESS, mac))
	}
	if _, err := request.Execute(unix.NETLINK_ROUTE, 0); err != nil {
		return fmt.Errorf("the kernel refused to move %s as %s (MTU %d): %w", link.Attrs().Name, name, mtu, err)
	}
	return nil
}

// addresses lists what was assigned; link-local addresses the kernel makes anew.
func (s *space) addresses(link netlink.Link) ([]netip.Prefix, error) {
	list, err := s.AddrList(link, netlink.FAMILY_ALL)
	if err != nil {
		return nil, err
	}
	var prefixes []netip.Prefix
	for _, a := range list {
		address, ok := netip.AddrFromSlice(a.IP)
		if !ok || address.Unmap().IsLinkLocalUnicast() {
			continue
		}
		bits, _ := a.Mask.Size()
		prefixes = append(prefixes, netip.PrefixFrom(address.Unmap(), bits))
	}
	return prefixes, nil
}

// addAddress skips duplicate address detection: the address was assigned, and
// detection would keep it unusable for a second after the pod has started.
func (s *space) addAddress(link netlink.Link, prefix netip.Prefix) error {
	addr := &netlink.Addr{IPNet: ipNet(prefix)}
	if prefix.Addr().Is6() {
		addr.Flags = unix.IFA_F_NODAD
	}
	return s.AddrReplace(link, addr)
}

func (s *space) addRoute(link netlink.Link, route netattach.Route) error {
	r := &netlink.Route{LinkIndex: link.Attrs().Index, Dst: ipNet(route.Destination)}
	if route.Gateway.IsValid() {
		r.Gw = route.Gateway.AsSlice()
	} else {
		r.Scope = netlink.SCOPE_LINK
	}
	return s.RouteReplace(r)
}

// restore is idempotent; each of its steps is tried even if another fails.
func (s *space) restore(ctx context.Context, link netlink.Link, device netattach.DeviceIntent) error {
	var faults []error
	attrs := link.Attrs()
	mac, err := changedMAC(link, device)
	if faults = append(faults, err); mac != nil {
		klog.FromContext(ctx).Info("Giving network device its MAC address back", "device", device.Device, "from", attrs.HardwareAddr, "to", device.HostMAC)
		// Most drivers change it only while the device is down.
		faults = append(faults, s.LinkSetDown(link), s.LinkSetHardwareAddr(link, mac))
	}
	if attrs.Name != device.HostName {
		klog.FromContext(ctx).Info("Giving network device its name back", "device", device.Device, "from", attrs.Name, "to", device.HostName)
		// Kernels before 6.2 rename only what is down.
		faults = append(faults, s.LinkSetDown(link))
		if err := s.LinkSetName(link, device.HostName); err != nil {
			faults = append(faults, fmt.Errorf("it stays %s: %w", attrs.Name, err))
		}
	}
	if device.HostMTU > 0 && attrs.MTU != device.HostMTU {
		faults = append(faults, s.LinkSetMTU(link, device.HostMTU))
	}
	faults = append(faults, s.restoreAddresses(link, device.HostAddresses))
	if device.HostUp {
		faults = append(faults, s.LinkSetUp(link))
	} else {
		faults = append(faults, s.LinkSetDown(link))
	}
	if err := errors.Join(faults...); err != nil {
		return fmt.Errorf("%s (%s) is home but not as it was: %w; compare `ip address show` with what it should be", device.HostName, device.Device, err)
	}
	return nil
}

// restoreAddresses adds only: the kernel took all addresses when the device
// changed namespace, and one that never left may have got others since.
func (s *space) restoreAddresses(link netlink.Link, want []netip.Prefix) error {
	var faults []error
	for _, prefix := range want {
		if err := s.AddrReplace(link, &netlink.Addr{IPNet: ipNet(prefix)}); err != nil {
			faults = append(faults, fmt.Errorf("address %s: %w", prefix, err))
		}
	}
	return errors.Join(faults...)
}

func ipNet(prefix netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: prefix.Addr().AsSlice(), Mask: net.CIDRMask(prefix.Bits(), prefix.Addr().BitLen())}
}
