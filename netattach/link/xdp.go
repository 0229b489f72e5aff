package link

// XDP programs. The kernel takes queueing disciplines and tc filters off a netdev
// that changes namespaces (dev_shutdown), but leaves it its XDP program: one that a
// privileged pod put there would see the traffic of the next pod, and the host's.

import (
	"fmt"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// programOf is the number of a netdev's XDP program, 0 for none.
func programOf(link netlink.Link) uint32 {
	if xdp := link.Attrs().Xdp; xdp != nil && xdp.Attached {
		return xdp.ProgId
	}
	return 0
}

// removeProgram takes an XDP program off that the netdev did not have on the host.
// One that it had and its pod took off is its owner's to load again.
func (s *space) removeProgram(link netlink.Link, had uint32) error {
	now := programOf(link)
	if now == 0 || now == had {
		return nil
	}
	mode := map[uint32]uint32{nl.XDP_ATTACHED_DRV: unix.XDP_FLAGS_DRV_MODE, nl.XDP_ATTACHED_SKB: unix.XDP_FLAGS_SKB_MODE, nl.XDP_ATTACHED_HW: unix.XDP_FLAGS_HW_MODE}[link.Attrs().Xdp.AttachMode]
	attribute := nl.NewRtAttr(unix.IFLA_XDP|unix.NLA_F_NESTED, nil)
	attribute.AddRtAttr(unix.IFLA_XDP_FD, nl.Uint32Attr(^uint32(0))) // -1 for none
	attribute.AddRtAttr(unix.IFLA_XDP_FLAGS, nl.Uint32Attr(mode))
	if err := s.change(link.Attrs().Index, 0, 0, attribute); err != nil {
		return fmt.Errorf("the XDP program %d that its pod left on it: %w", now, err)
	}
	return nil
}
