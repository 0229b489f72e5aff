package link

// Addresses: a pod's as the claim wants them, and the host's with all that an
// administrator or a network daemon may have said of them, so that they come back so.

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

// forever is the lifetime of an address that does not end (INFINITY_LIFE_TIME).
const forever = 0xffffffff

// settableFlags are what a user can say of an address; the kernel's own go with it.
const settableFlags = unix.IFA_F_NODAD | unix.IFA_F_HOMEADDRESS | unix.IFA_F_MANAGETEMPADDR | unix.IFA_F_NOPREFIXROUTE | unix.IFA_F_MCAUTOJOIN

func (s *space) listAddresses(link netlink.Link) ([]netlink.Addr, error) {
	return consistent(func() ([]netlink.Addr, error) { return s.AddrList(link, netlink.FAMILY_ALL) })
}

// addresses lists what was assigned; link-local addresses the kernel makes anew.
func (s *space) addresses(link netlink.Link) ([]netip.Prefix, error) {
	list, err := s.listAddresses(link)
	if err != nil {
		return nil, err
	}
	var prefixes []netip.Prefix
	for _, a := range list {
		if prefix := prefixOf(a.IPNet); prefix.IsValid() && !prefix.Addr().IsLinkLocalUnicast() {
			prefixes = append(prefixes, prefix)
		}
	}
	return prefixes, nil
}

// hostAddresses are those that nobody will give the netdev again by himself when it
// is home: not the link-local ones that the kernel makes of its MAC address, nor those
// that it makes anew every day for privacy (RFC 8981).
func (s *space) hostAddresses(link netlink.Link, kernelMakesLinkLocal bool) ([]netattach.HostAddress, error) {
	list, err := s.listAddresses(link)
	if err != nil {
		return nil, fmt.Errorf("cannot read its addresses: %w", err)
	}
	var addresses []netattach.HostAddress
	for _, a := range list {
		prefix := prefixOf(a.IPNet)
		made := kernelMakesLinkLocal && prefix.Addr().Is6() && prefix.Addr().IsLinkLocalUnicast()
		if !prefix.IsValid() || made || prefix.Addr().Is6() && a.Flags&unix.IFA_F_TEMPORARY != 0 {
			continue
		}
		address := netattach.HostAddress{Prefix: prefix, Peer: prefixOf(a.Peer), Label: a.Label, Scope: a.Scope, Flags: a.Flags & settableFlags}
		if broadcast, ok := netip.AddrFromSlice(a.Broadcast); ok {
			address.Broadcast = broadcast.Unmap()
		}
		if a.ValidLft != forever || a.PreferedLft != forever {
			address.Lifetimes = &netattach.Lifetimes{ValidSeconds: uint32(a.ValidLft), PreferredSeconds: uint32(a.PreferedLft)}
		}
		addresses = append(addresses, address)
	}
	return addresses, nil
}

// podAddress skips duplicate address detection: the address was assigned, and
// detection would keep it unusable for a second after the pod has started.
func podAddress(prefix netip.Prefix) netattach.HostAddress {
	address := plainAddress(prefix)
	if prefix.Addr().Is6() {
		address.Flags = unix.IFA_F_NODAD
	}
	return address
}

// plainAddress is one of which nothing but the prefix is known.
func plainAddress(prefix netip.Prefix) netattach.HostAddress {
	address := netattach.HostAddress{Prefix: prefix}
	if prefix.Addr().Is4() && prefix.Bits() < 31 { // RFC 3021: links of two have no broadcast address
		raw := prefix.Masked().Addr().As4()
		last := binary.BigEndian.Uint32(raw[:]) | 1<<(32-prefix.Bits()) - 1
		address.Broadcast = netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, last)))
	}
	return address
}

// putAddress is idempotent.
func (s *space) putAddress(index int, address netattach.HostAddress) error {
	request := nl.NewNetlinkRequest(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_REPLACE|unix.NLM_F_ACK)
	message := nl.NewIfAddrmsg(familyOf(address.Prefix.Addr()))
	message.Index, message.Scope, message.Prefixlen = uint32(index), uint8(address.Scope), uint8(address.Prefix.Bits())
	far := address.Prefix.Addr()
	if address.Peer.IsValid() {
		far, message.Prefixlen = address.Peer.Addr(), uint8(address.Peer.Bits())
	}
	request.AddData(message)
	request.AddData(nl.NewRtAttr(unix.IFA_LOCAL, address.Prefix.Addr().AsSlice()))
	request.AddData(nl.NewRtAttr(unix.IFA_ADDRESS, far.AsSlice()))
	request.AddData(nl.NewRtAttr(unix.IFA_FLAGS, nl.Uint32Attr(uint32(address.Flags))))
	if address.Broadcast.IsValid() {
		request.AddData(nl.NewRtAttr(unix.IFA_BROADCAST, address.Broadcast.AsSlice()))
	}
	if address.Label != "" {
		request.AddData(nl.NewRtAttr(unix.IFA_LABEL, nl.ZeroTerminated(address.Label)))
	}
	if l := address.Lifetimes; l != nil {
		// struct ifa_cacheinfo: preferred, valid, and two times of the kernel's.
		info := binary.NativeEndian.AppendUint32(binary.NativeEndian.AppendUint32(nil, l.PreferredSeconds), l.ValidSeconds)
		request.AddData(nl.NewRtAttr(unix.IFA_CACHEINFO, append(info, make([]byte, 8)...)))
	}
	if _, err := s.ask(request, 0); err != nil {
		return fmt.Errorf("address %s: %w", address.Prefix, err)
	}
	return nil
}

// restoreHostAddresses adds those that are missing. IPv6 ones come first without
// duplicate detection and then as they were: the host had them, and a route that has
// one as its source is refused while it is being detected (ipv6_chk_addr).
func (s *space) restoreHostAddresses(link netlink.Link, want []netattach.HostAddress) error {
	if len(want) == 0 {
		return nil
	}
	there, err := s.hostAddresses(link, false)
	if err != nil {
		return err
	}
	var faults []error
	for _, address := range want {
		if slices.ContainsFunc(there, func(other netattach.HostAddress) bool {
			other.Lifetimes = address.Lifetimes // which have run on
			return other == address
		}) {
			continue
		}
		if address.Prefix.Addr().Is6() && address.Flags&unix.IFA_F_NODAD == 0 {
			undetected := address
			undetected.Flags |= unix.IFA_F_NODAD
			faults = append(faults, s.putAddress(link.Attrs().Index, undetected))
		}
		faults = append(faults, s.putAddress(link.Attrs().Index, address))
	}
	return errors.Join(faults...)
}

// restoreAddresses adds only: the kernel took all addresses when the device
// changed namespace, and one that never left may have got others since.
func (s *space) restoreAddresses(link netlink.Link, want []netip.Prefix) error {
	var faults []error
	for _, prefix := range want {
		faults = append(faults, s.putAddress(link.Attrs().Index, plainAddress(prefix)))
	}
	return errors.Join(faults...)
}

// haveAddresses says which of the addresses is not there, or not usable.
func (s *space) haveAddresses(link netlink.Link, want []netip.Prefix) error {
	list, err := s.listAddresses(link)
	if err != nil {
		return fmt.Errorf("cannot read its addresses: %w", err)
	}
	for _, prefix := range want {
		i := slices.IndexFunc(list, func(a netlink.Addr) bool { return prefixOf(a.IPNet) == prefix })
		switch {
		case i < 0:
			return fmt.Errorf("address %s is not there after it was added", prefix)
		case list[i].Flags&(unix.IFA_F_TENTATIVE|unix.IFA_F_DADFAILED) != 0:
			return fmt.Errorf("address %s is there but not usable (flags %#x)", prefix, list[i].Flags)
		}
	}
	return nil
}

func familyOf(address netip.Addr) int {
	if address.Is6() {
		return unix.AF_INET6
	}
	return unix.AF_INET
}

// prefixOf is invalid for nil.
func prefixOf(network *net.IPNet) netip.Prefix {
	if network == nil {
		return netip.Prefix{}
	}
	address, _ := netip.AddrFromSlice(network.IP)
	bits, _ := network.Mask.Size()
	return netip.PrefixFrom(address.Unmap(), bits)
}

func ipNet(prefix netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: prefix.Addr().AsSlice(), Mask: net.CIDRMask(prefix.Bits(), prefix.Addr().BitLen())}
}
