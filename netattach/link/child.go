package link

// Children: a macvlan or ipvlan on top of the claimed netdev is what the pod
// gets, and the netdev, its parent, stays on the host as it is. A child is made
// in the pod's namespace at once, so the host never sees it, and it dies there,
// by Home or with the namespace; nothing of it has to be put back.
//
// It is known by its index, kind and parent, of which a pod can forge none but
// with a child of its own. Until its index is on record it has a name that no
// other share has, or else an alias, so that whatever moment an agent is killed at,
// the next one finds what is there and makes no second one.

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"k8s.io/klog/v2"

	"github.com/hostler-dev/hostler/netattach"
)

// parent is the device as if it were claimed itself.
func parent(device netattach.DeviceIntent) netattach.DeviceIntent {
	device.Child = nil
	return device
}

// rememberParent is Remember for a child. Of its parent nothing is changed, so
// nothing but the index is to be known; the rest is for agents that know no children,
// which would take the parent for the pod's and restore it to this.
func (s *space) rememberParent(device netattach.DeviceIntent) (netattach.DeviceIntent, error) {
	link, err := s.find(parent(device), 0)
	if errors.Is(err, ErrNotFound) {
		return device, nil
	}
	if err != nil {
		return device, err
	}
	child := *device.Child
	child.ParentIndex = link.Attrs().Index
	device.Child = &child
	device.HostMTU, device.HostUp = link.Attrs().MTU, link.Attrs().RawFlags&unix.IFF_UP != 0
	device.HostAddresses, err = s.addresses(link)
	return device, err
}

// shareTag is what the share has that no other has, as 13 hexadecimal digits.
func shareTag(device netattach.DeviceIntent) string {
	share := ""
	if device.ShareID != nil {
		share = string(*device.ShareID)
	}
	// No part of it has a NUL.
	sum := sha256.Sum256([]byte(device.Pool + "\x00" + device.Device + "\x00" + share))
	return hex.EncodeToString(sum[:])[:13]
}

// madeName is the child's name before it has its own.
func madeName(device netattach.DeviceIntent) string { return "h-" + shareTag(device) }

func childAlias(device netattach.DeviceIntent) string {
	return "hostler.dev/" + device.Device + "/" + shareTag(device)
}

// isChildOf says whether the link is of the kind asked for and on top of the
// claimed netdev. A parent in another namespace is told by its index there
// (IFLA_LINK) and the number of that namespace (IFLA_LINK_NETNSID).
func isChildOf(link netlink.Link, device netattach.DeviceIntent) bool {
	attrs := link.Attrs()
	return link.Type() == device.Child.Kind && device.Child.ParentIndex != 0 &&
		attrs.ParentIndex == device.Child.ParentIndex && attrs.NetNsID >= 0
}

// isShare says whether the child was made for this very share.
func isShare(link netlink.Link, device netattach.DeviceIntent) bool {
	return link.Attrs().Alias == childAlias(device) || link.Attrs().Name == madeName(device)
}

// children are the links that were made for the share: one, but for what a pod
// may have done.
func (s *space) children(device netattach.DeviceIntent, index int) ([]netlink.Link, error) {
	links, err := s.links()
	if err != nil {
		return nil, err
	}
	return filter(links, func(l netlink.Link) bool {
		return isChildOf(l, device) && (index != 0 && l.Attrs().Index == index || isShare(l, device))
	}), nil
}

// findChild finds the child by its index, or by what it was made with if that is 0.
func (s *space) findChild(device netattach.DeviceIntent, index int) (netlink.Link, error) {
	links, err := s.children(device, index)
	if err != nil {
		return nil, err
	}
	for _, link := range links {
		if index == 0 || link.Attrs().Index == index {
			return link, nil
		}
	}
	return nil, fmt.Errorf("%w: no %s of %s (%s)", ErrNotFound, device.Child.Kind, device.HostName, device.Device)
}

// bringChild finds the child in the pod or makes it, and completes one that a
// killed agent left without its name.
func (h *Host) bringChild(ctx context.Context, pod int, there *space, device netattach.DeviceIntent) (_ netlink.Link, made bool, _ error) {
	link, err := there.findChild(device, device.PodIndex)
	if errors.Is(err, ErrNotFound) && device.PodIndex != 0 { // the pod deleted it, or it was made again
		link, err = there.findChild(device, 0)
	}
	if errors.Is(err, ErrNotFound) {
		if err := h.makeChild(ctx, pod, device); err != nil {
			return nil, false, err
		}
		made = true
		link, err = there.LinkByName(madeName(device))
	}
	if err == nil {
		link, err = there.nameChild(link, device)
	}
	return link, made, err
}

func (h *Host) makeChild(ctx context.Context, pod int, device netattach.DeviceIntent) error {
	here, err := h.spaces.enter(h.namespace)
	if err != nil {
		return err
	}
	defer here.Close()
	below, err := here.find(parent(device), 0)
	if err != nil {
		return fmt.Errorf("%w in the host's network namespace; check that the device is present and not used otherwise", err)
	}
	if err := fitting(below.Attrs(), device); err != nil {
		return err
	}
	if err := here.notTheParents(below, device); err != nil {
		return err
	}
	child, err := newChild(below.Attrs().Index, pod, device)
	if err != nil {
		return err
	}
	klog.FromContext(ctx).V(4).Info("Making child of network device in pod", "device", device.Device, "parent", device.HostName, "kind", device.Child.Kind, "mode", device.Child.Mode, "name", device.PodName)
	if err := here.LinkAdd(child); err != nil {
		return fmt.Errorf("the kernel refused to make a %s of %s in mode %s: %w; a netdev cannot have macvlan and ipvlan children at once, nor children while it is in a bridge or bond, and the kernel needs the module %s", device.Child.Kind, device.HostName, device.Child.Mode, err, device.Child.Kind)
	}
	return nil
}

// fitting refuses what the kernel would refuse later or not at all: a child is
// not set up while its parent is down, and one that is made with an MTU above its
// parent's loses its longest packets.
func fitting(below *netlink.LinkAttrs, device netattach.DeviceIntent) error {
	switch {
	case below.Index != device.Child.ParentIndex:
		return fmt.Errorf("%s was replaced after the pod was first attached (it is now network device %d, not %d); delete the pod", device.HostName, below.Index, device.Child.ParentIndex)
	case below.RawFlags&unix.IFF_UP == 0:
		return fmt.Errorf("%s is down on the node, and so would be its children; set it up (ip link set %s up), and in the node's network configuration, too", device.HostName, device.HostName)
	case device.MTU > below.MTU:
		return fmt.Errorf("an MTU of %d is more than that of %s on the node, %d; ask for less, or raise the NIC's on the node", device.MTU, device.HostName, below.MTU)
	}
	return nil
}

// notTheParents refuses addresses that the node itself has on the NIC: an ipvlan
// child shares its hardware address, and would get all that is sent to them.
func (s *space) notTheParents(below netlink.Link, device netattach.DeviceIntent) error {
	own, err := s.addresses(below)
	if err != nil {
		return err
	}
	for _, prefix := range device.Addresses {
		if slices.ContainsFunc(own, func(p netip.Prefix) bool { return p.Addr() == prefix.Addr() }) {
			return fmt.Errorf("address %s is the node's own on %s; choose another", prefix.Addr(), device.HostName)
		}
	}
	return nil
}

// newChild is made under its share's name: kernels before 6.15 look for the name
// of a new link in the namespace of the one who asks (rtnl_newlink), where the
// parent may have the name that the child shall have in the pod.
func newChild(below, pod int, device netattach.DeviceIntent) (netlink.Link, error) {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.ParentIndex, attrs.Namespace, attrs.MTU = madeName(device), below, netlink.NsFd(pod), device.MTU
	if device.HardwareAddress != "" {
		mac, err := net.ParseMAC(device.HardwareAddress)
		if err != nil {
			return nil, fmt.Errorf("hardware address: %w", err)
		}
		attrs.HardwareAddr = mac
	}
	macvlan := map[string]netlink.MacvlanMode{"bridge": netlink.MACVLAN_MODE_BRIDGE, "private": netlink.MACVLAN_MODE_PRIVATE, "vepa": netlink.MACVLAN_MODE_VEPA}
	ipvlan := map[string]netlink.IPVlanMode{"l2": netlink.IPVLAN_MODE_L2, "l3": netlink.IPVLAN_MODE_L3, "l3s": netlink.IPVLAN_MODE_L3S}
	switch device.Child.Kind {
	case "macvlan":
		if mode, known := macvlan[device.Child.Mode]; known {
			return &netlink.Macvlan{LinkAttrs: attrs, Mode: mode}, nil
		}
	case "ipvlan":
		if mode, known := ipvlan[device.Child.Mode]; known {
			return &netlink.IPVlan{LinkAttrs: attrs, Mode: mode}, nil
		}
	}
	return nil, fmt.Errorf("the agent makes no %s in mode %q", device.Child.Kind, device.Child.Mode)
}

// nameChild gives a child its alias before it takes its name away.
func (s *space) nameChild(link netlink.Link, device netattach.DeviceIntent) (netlink.Link, error) {
	if link.Attrs().Name == device.PodName {
		return link, nil
	}
	if taken, err := s.LinkByName(device.PodName); err == nil {
		return nil, fmt.Errorf("the pod has an interface %s already (%s); choose another interfaceName", device.PodName, taken.Type())
	}
	if err := s.LinkSetAlias(link, childAlias(device)); err != nil {
		return nil, fmt.Errorf("cannot mark %s of %s: %w", device.Child.Kind, device.HostName, err)
	}
	// Kernels before 6.2 rename only what is down.
	if err := errors.Join(s.LinkSetDown(link), s.LinkSetName(link, device.PodName)); err != nil {
		return nil, fmt.Errorf("cannot name %s of %s: %w", device.Child.Kind, device.HostName, err)
	}
	return s.LinkByIndex(link.Attrs().Index)
}

// deleteChild is Home for a child. One that is gone is home.
func (h *Host) deleteChild(ctx context.Context, pod int, device netattach.DeviceIntent) error {
	there, err := h.spaces.enter(pod)
	if err != nil {
		return err
	}
	defer there.Close()
	links, err := there.children(device, device.PodIndex)
	if err != nil {
		return err
	}
	faults := []error{there.removeLimit(device)}
	for _, link := range links {
		klog.FromContext(ctx).V(4).Info("Deleting child of network device", "device", device.Device, "parent", device.HostName, "name", link.Attrs().Name)
		if err := there.LinkDel(link); err != nil && !errors.Is(err, unix.ENODEV) {
			faults = append(faults, fmt.Errorf("cannot delete %s, the %s of %s (%s) in the pod: %w", link.Attrs().Name, device.Child.Kind, device.HostName, device.Device, err))
		}
	}
	return errors.Join(faults...)
}
