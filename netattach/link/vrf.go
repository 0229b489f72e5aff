package link

// VRFs in a pod. One that the agent made goes when the last of its interfaces has
// gone; one that was there before is another's, and stays.

import (
	"context"
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
	"k8s.io/klog/v2"

	"github.com/hostler-dev/hostler/netattach"
)

// ownGroup marks a VRF as the agent's. Of all that could, the kernel takes only the
// group together with a new link (rtnl_create_link): so whatever moment an agent is
// killed at, it leaves no VRF that is not marked.
const ownGroup = 0x686f7374 // "host"

// joinVRF puts an interface that is down into the device's VRF, which is made if
// it is not there. Into a VRF an interface goes before it has addresses: one that
// is up goes down and up again for it (cycle_netdev), which costs it those.
func (s *space) joinVRF(ctx context.Context, link netlink.Link, device netattach.DeviceIntent) error {
	if device.VRF == nil {
		return nil
	}
	vrf, err := s.vrf(*device.VRF)
	if errors.Is(err, ErrNotFound) {
		klog.FromContext(ctx).V(4).Info("Making VRF in pod", "vrf", device.VRF.Name, "table", device.VRF.Table, "device", device.Device)
		vrf, err = s.makeVRF(*device.VRF)
	}
	if err != nil {
		return err
	}
	if vrf.Attrs().RawFlags&unix.IFF_UP == 0 {
		if err := s.LinkSetUp(vrf); err != nil {
			return fmt.Errorf("VRF %s cannot be set up: %w", device.VRF.Name, err)
		}
	}
	switch master := link.Attrs().MasterIndex; master {
	case vrf.Attrs().Index:
		return nil
	case 0:
	default:
		return fmt.Errorf("it is in another device's hands already (index %d) and cannot join VRF %s", master, device.VRF.Name)
	}
	if err := s.change(link.Attrs().Index, 0, 0, nl.NewRtAttr(unix.IFLA_MASTER, nl.Uint32Attr(uint32(vrf.Attrs().Index)))); err != nil {
		return fmt.Errorf("it cannot join VRF %s: %w", device.VRF.Name, err)
	}
	return nil
}

// vrf finds it by name. The error is ErrNotFound if nothing has that name.
func (s *space) vrf(want netattach.VRF) (netlink.Link, error) {
	found, err := s.LinkByName(want.Name)
	if missing := (netlink.LinkNotFoundError{}); errors.As(err, &missing) {
		return nil, fmt.Errorf("%w: VRF %s", ErrNotFound, want.Name)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot look for VRF %s: %w", want.Name, err)
	}
	vrf, ok := found.(*netlink.Vrf)
	if !ok {
		return nil, fmt.Errorf("the pod has an interface %s that is no VRF (%s); choose another name for the VRF", want.Name, found.Type())
	}
	if vrf.Table != want.Table {
		return nil, fmt.Errorf("the pod has a VRF %s with table %d, not %d; use that table, or another name for the VRF", want.Name, vrf.Table, want.Table)
	}
	return vrf, nil
}

// makeVRF refuses a table that is another VRF's: the kernel would let both look
// into it, and each would find the other's routes.
func (s *space) makeVRF(want netattach.VRF) (netlink.Link, error) {
	links, err := s.links()
	if err != nil {
		return nil, err
	}
	for _, link := range links {
		if other, ok := link.(*netlink.Vrf); ok && other.Table == want.Table {
			return nil, fmt.Errorf("the pod's VRF %s has the table %d already; give the VRF %s another table, or that name", other.Name, want.Table, want.Name)
		}
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.Group = want.Name, ownGroup
	if err := s.LinkAdd(&netlink.Vrf{LinkAttrs: attrs, Table: want.Table}); err != nil {
		if errors.Is(err, unix.EOPNOTSUPP) {
			err = fmt.Errorf("%w; the kernel needs the module vrf", err)
		}
		return nil, fmt.Errorf("VRF %s of table %d cannot be made: %w", want.Name, want.Table, err)
	}
	return s.vrf(want)
}

// removeVRF removes the device's VRF if the agent made it and no interface is in
// it any more.
func (s *space) removeVRF(ctx context.Context, device netattach.DeviceIntent) error {
	if device.VRF == nil {
		return nil
	}
	links, err := s.links()
	if err != nil {
		return err
	}
	found := filter(links, func(l netlink.Link) bool {
		vrf, ok := l.(*netlink.Vrf)
		return ok && vrf.Name == device.VRF.Name && vrf.Table == device.VRF.Table && vrf.Group == ownGroup
	})
	if len(found) == 0 {
		return nil
	}
	vrf := found[0]
	if ports := filter(links, func(l netlink.Link) bool { return l.Attrs().MasterIndex == vrf.Attrs().Index }); len(ports) > 0 {
		return nil
	}
	klog.FromContext(ctx).V(4).Info("Removing VRF from pod", "vrf", device.VRF.Name, "device", device.Device)
	if err := s.LinkDel(vrf); err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("cannot remove VRF %s of %s from the pod: %w", device.VRF.Name, device.Device, err)
	}
	return nil
}
