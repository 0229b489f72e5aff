package link

// What rtnetlink says of VFs, taken apart here: the library's parser numbers VFs
// by their place in the list, in which the kernel leaves out those that the driver knows
// nothing of (rtnl_fill_vfinfo), and cannot tell "on" from "not supported" (-1).

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/hostler-dev/hostler/netattach"
)

const (
	// skipStatistics and extVFs are RTEXT_FILTER_SKIP_STATS and _VF of
	// linux/rtnetlink.h. What a VF has counted takes a firmware call on some cards.
	skipStatistics = 1 << 3
	extVFs         = 1 << 0
	// unsupported is what the kernel says of a setting that a driver left alone (-1).
	unsupported = 0xffffffff
	// attributeType is what "nested" and "network byte order" leave of a type (NLA_TYPE_MASK).
	attributeType = 0x3fff
)

// VLAN protocols by their EtherType.
const (
	tag8021Q  = "802.1Q"
	tag8021AD = "802.1ad"
)

// netdev is a network device of the host with what its driver keeps of its VFs.
type netdev struct {
	index  int
	name   string
	parent string // PCI address, "" before kernel 5.14
	mac    net.HardwareAddr
	up     bool
	vfs    map[int]netattach.VFSettings
}

// link is the netdev in the terms of the library.
func (n *netdev) link() netlink.Link {
	return &netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: n.index, Name: n.name}}
}

// netdev reads a device by name. The error is ENODEV if the namespace has none.
func (s *space) netdev(name string, extent uint32) (*netdev, error) {
	request := nl.NewNetlinkRequest(unix.RTM_GETLINK, 0)
	request.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
	request.AddData(nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(name)))
	request.AddData(nl.NewRtAttr(unix.IFLA_EXT_MASK, nl.Uint32Attr(skipStatistics|extent)))
	messages, err := s.ask(request, unix.RTM_NEWLINK)
	if err != nil {
		return nil, err
	}
	if len(messages) != 1 {
		return nil, fmt.Errorf("the kernel answers with %d network devices", len(messages))
	}
	return decodeNetdev(messages[0])
}

func decodeNetdev(message []byte) (*netdev, error) {
	if len(message) < unix.SizeofIfInfomsg {
		return nil, errors.New("the kernel's answer is cut off")
	}
	header := nl.DeserializeIfInfomsg(message)
	found := &netdev{index: int(header.Index), up: header.Flags&unix.IFF_UP != 0, vfs: map[int]netattach.VFSettings{}}
	return found, each(message[unix.SizeofIfInfomsg:], func(kind uint16, value []byte) error {
		switch kind {
		case unix.IFLA_IFNAME:
			found.name = unix.ByteSliceToString(value)
		case unix.IFLA_ADDRESS:
			found.mac = net.HardwareAddr(value)
		case unix.IFLA_PARENT_DEV_NAME:
			found.parent = unix.ByteSliceToString(value)
		case unix.IFLA_VFINFO_LIST:
			return each(value, func(_ uint16, one []byte) error { return found.addVF(one) })
		}
		return nil
	})
}

// each calls do for the attributes of a message, until it returns an error.
func each(message []byte, do func(kind uint16, value []byte) error) error {
	for len(message) >= unix.SizeofRtAttr {
		size := int(binary.NativeEndian.Uint16(message))
		if size < unix.SizeofRtAttr || size > len(message) {
			return errors.New("the kernel's answer is cut off")
		}
		if err := do(binary.NativeEndian.Uint16(message[2:])&attributeType, message[unix.SizeofRtAttr:size]); err != nil {
			return err
		}
		message = message[min((size+3)&^3, len(message)):]
	}
	return nil
}

// addVF reads one IFLA_VF_INFO. Each of its attributes repeats the VF's number.
func (n *netdev) addVF(info []byte) error {
	index, known := 0, false
	var settings netattach.VFSettings
	err := each(info, func(kind uint16, value []byte) error {
		if kind == nl.IFLA_VF_MAC && len(value) >= 4 {
			index, known = int(binary.NativeEndian.Uint32(value)), true
		}
		return decodeSetting(&settings, kind, value)
	})
	if err == nil && known {
		n.vfs[index] = settings
	}
	return err
}

// decodeSetting knows the structs ifla_vf_* of linux/if_link.h: the VF's number
// and then the setting, in words of 32 bits.
func decodeSetting(settings *netattach.VFSettings, kind uint16, value []byte) error {
	word := func(i int) uint32 { return binary.NativeEndian.Uint32(value[4*i:]) }
	sizes := map[uint16]int{
		nl.IFLA_VF_MAC: 10, nl.IFLA_VF_VLAN: 12, nl.IFLA_VF_VLAN_LIST: 4, nl.IFLA_VF_RATE: 12,
		nl.IFLA_VF_SPOOFCHK: 8, nl.IFLA_VF_TRUST: 8, nl.IFLA_VF_LINK_STATE: 8,
	}
	if len(value) < sizes[kind] {
		return fmt.Errorf("the kernel's answer is cut off in attribute %d of a VF", kind)
	}
	switch kind {
	case nl.IFLA_VF_MAC:
		settings.MAC = new(net.HardwareAddr(value[4:10]).String())
	case nl.IFLA_VF_VLAN:
		settings.VLAN, settings.QoS = new(int(word(1))), new(int(word(2)))
	case nl.IFLA_VF_VLAN_LIST:
		return each(value, func(kind uint16, info []byte) error {
			if kind == nl.IFLA_VF_VLAN_INFO && len(info) >= 14 {
				settings.VLANProtocol = protocolOf(binary.BigEndian.Uint16(info[12:]))
			}
			return nil
		})
	case nl.IFLA_VF_RATE:
		settings.MinTxRate, settings.MaxTxRate = new(int(word(1))), new(int(word(2)))
	case nl.IFLA_VF_SPOOFCHK:
		settings.SpoofCheck = flag(word(1))
	case nl.IFLA_VF_TRUST:
		settings.Trust = flag(word(1))
	case nl.IFLA_VF_LINK_STATE:
		if states := linkStates(); int(word(1)) < len(states) {
			settings.LinkState = &states[word(1)]
		}
	}
	return nil
}

// linkStates in the order of IFLA_VF_LINK_STATE_*.
func linkStates() []string { return []string{"auto", "enable", "disable"} }

func flag(value uint32) *bool {
	if value == unsupported {
		return nil
	}
	return new(value != 0)
}

func protocolOf(etherType uint16) *string {
	switch etherType {
	case unix.ETH_P_8021Q:
		return new(tag8021Q)
	case unix.ETH_P_8021AD:
		return new(tag8021AD)
	}
	return nil
}
