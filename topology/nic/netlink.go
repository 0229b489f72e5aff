// Netlink asks the kernel. Dumps are taken apart here rather than by the
// library's lists, which ask for statistics and for every VF of every PF (a firmware
// call each on some cards) and know neither next-hop objects nor tunnels' underlays;
// a NIC is judged between two steps of a claim, so the answer has to be quick.

package nic

import (
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Netlink asks the kernel in the calling process's network namespace.
type Netlink struct{}

var (
	_ RuleLister     = Netlink{}
	_ FirmwareReader = Netlink{}
	_ RDMANamespacer = Netlink{}
)

// skipStatistics is RTEXT_FILTER_SKIP_STATS of linux/rtnetlink.h.
const skipStatistics = 1 << 3

// retried repeats a dump that the kernel interrupted because the table changed
// under it (NLM_F_DUMP_INTR): its result may lack entries.
func retried[T any](dump func() ([]T, error)) ([]T, error) {
	var entries []T
	var err error
	for range 5 {
		if entries, err = dump(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	return entries, err
}

// dump sends a request of a fixed header and returns the messages of the answer.
func dump(request, reply int, parts ...nl.NetlinkRequestData) ([][]byte, error) {
	return retried(func() ([][]byte, error) {
		r := nl.NewNetlinkRequest(request, unix.NLM_F_DUMP)
		for _, part := range parts {
			r.AddData(part)
		}
		return r.Execute(unix.NETLINK_ROUTE, uint16(reply))
	})
}

// attributes yields the attributes of a message, up to the first that is cut off.
func attributes(b []byte) iter.Seq2[uint16, []byte] {
	return func(yield func(uint16, []byte) bool) {
		for len(b) >= unix.SizeofRtAttr {
			size := int(binary.NativeEndian.Uint16(b))
			if size < unix.SizeofRtAttr || size > len(b) {
				return
			}
			// The top bits say "nested" and "in network byte order".
			if !yield(binary.NativeEndian.Uint16(b[2:])&0x3fff, b[unix.SizeofRtAttr:size]) {
				return
			}
			b = b[min((size+3)&^3, len(b)):]
		}
	}
}

func number(b []byte) int {
	if len(b) < 4 {
		return 0
	}
	return int(binary.NativeEndian.Uint32(b))
}

// address is an IP address, invalid if it is none or the unspecified one.
func address(b []byte) netip.Addr {
	a, ok := netip.AddrFromSlice(b)
	if !ok || a.IsUnspecified() {
		return netip.Addr{}
	}
	return a.Unmap()
}

func text(b []byte) string {
	if end := slices.Index(b, 0); end >= 0 {
		b = b[:end]
	}
	return string(b)
}

// Links implements Kernel.
func (Netlink) Links() ([]LinkState, error) {
	messages, err := dump(unix.RTM_GETLINK, unix.RTM_NEWLINK, nl.NewIfInfomsg(unix.AF_UNSPEC), nl.NewRtAttr(unix.IFLA_EXT_MASK, nl.Uint32Attr(skipStatistics)))
	if err != nil {
		return nil, fmt.Errorf("list the node's links: %w", err)
	}
	states := make([]LinkState, 0, len(messages))
	for _, message := range messages {
		if len(message) >= unix.SizeofIfInfomsg {
			states = append(states, linkState(message))
		}
	}
	return states, nil
}

func linkState(message []byte) LinkState {
	header := nl.DeserializeIfInfomsg(message)
	state := LinkState{
		Index: int(header.Index), Kind: "device", Type: header.EncapType(),
		Up: header.Flags&unix.IFF_UP != 0 && header.Flags&unix.IFF_RUNNING != 0,
	}
	if state.Type == "ether" {
		state.Type = "ethernet"
	}
	lower, elsewhere := 0, false
	for kind, value := range attributes(message[unix.SizeofIfInfomsg:]) {
		switch kind {
		case unix.IFLA_IFNAME:
			state.Name = text(value)
		case unix.IFLA_ADDRESS:
			state.MAC = net.HardwareAddr(value).String()
		case unix.IFLA_MTU:
			state.MTU = number(value)
		case unix.IFLA_MASTER:
			state.Master = number(value)
		case unix.IFLA_LINK:
			lower = number(value)
		case unix.IFLA_LINK_NETNSID:
			elsewhere = true // what is below is in another namespace, and its index counts there
		case unix.IFLA_LINKINFO:
			state.kindAndTunnel(value)
		case unix.IFLA_PROP_LIST:
			for property, name := range attributes(value) {
				if property == unix.IFLA_ALT_IFNAME {
					state.AlternativeNames = append(state.AlternativeNames, text(name))
				}
			}
		}
	}
	if elsewhere {
		state.Underlay = 0
	}
	// Of a veth IFLA_LINK is the peer, not something below.
	if !elsewhere && state.Kind != "veth" && lower != state.Index {
		state.Lower = lower
	}
	return state
}

// tunnel is where a kind of tunnel keeps what it runs over, in IFLA_INFO_DATA.
type tunnel struct {
	link          uint16
	local, remote []uint16
}

// Numbers from linux/if_link.h and linux/if_tunnel.h.
var (
	greTunnel = tunnel{link: 1, local: []uint16{6}, remote: []uint16{7}}
	ipTunnel  = tunnel{link: 1, local: []uint16{2}, remote: []uint16{3}}
	vtiTunnel = tunnel{link: 1, local: []uint16{4}, remote: []uint16{5}}
	tunnels   = map[string]tunnel{
		"vxlan":  {link: unix.IFLA_VXLAN_LINK, local: []uint16{unix.IFLA_VXLAN_LOCAL, unix.IFLA_VXLAN_LOCAL6}, remote: []uint16{unix.IFLA_VXLAN_GROUP, unix.IFLA_VXLAN_GROUP6}},
		"geneve": {remote: []uint16{unix.IFLA_GENEVE_REMOTE, unix.IFLA_GENEVE_REMOTE6}},
		"gre":    greTunnel, "gretap": greTunnel, "erspan": greTunnel, "ip6gre": greTunnel, "ip6gretap": greTunnel, "ip6erspan": greTunnel,
		"ipip": ipTunnel, "sit": ipTunnel, "ip6tnl": ipTunnel,
		"vti": vtiTunnel, "vti6": vtiTunnel,
	}
)

func (s *LinkState) kindAndTunnel(info []byte) {
	var data []byte
	for kind, value := range attributes(info) {
		switch kind {
		case unix.IFLA_INFO_KIND:
			s.Kind = text(value)
		case unix.IFLA_INFO_DATA:
			data = value
		}
	}
	layout, ok := tunnels[s.Kind]
	if !ok {
		return
	}
	for kind, value := range attributes(data) {
		switch {
		case kind == layout.link && layout.link != 0:
			s.Underlay = number(value)
		case slices.Contains(layout.local, kind) && address(value).IsValid():
			s.Local = address(value)
		case slices.Contains(layout.remote, kind) && address(value).IsValid():
			s.Remote = address(value)
		}
	}
}

// Addresses implements Kernel.
func (Netlink) Addresses() ([]Address, error) {
	list, err := retried(func() ([]netlink.Addr, error) { return netlink.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, fmt.Errorf("list the node's addresses: %w", err)
	}
	addresses := make([]Address, 0, len(list))
	for _, a := range list {
		if p := prefix(a.IPNet); p.IsValid() {
			addresses = append(addresses, Address{Link: a.LinkIndex, Prefix: p})
		}
	}
	return addresses, nil
}

func prefix(n *net.IPNet) netip.Prefix {
	if n == nil {
		return netip.Prefix{}
	}
	address, ok := netip.AddrFromSlice(n.IP)
	if !ok {
		return netip.Prefix{}
	}
	ones, bits := n.Mask.Size()
	address = address.Unmap()
	if bits == 128 && address.Is4() {
		ones -= 96
	}
	return netip.PrefixFrom(address, ones)
}
