package link

// Settings on their way to a PF's driver, one request each: the kernel takes
// several in one message, but does not take the first ones back if a later one fails
// (do_setvfinfo), and does not say which it was.

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/hostler-dev/hostler/netattach"
)

// encodeVF is the attribute for a setting.
func encodeVF(index int, s netattach.VFSettings) (*nl.RtAttr, error) {
	words := func(kind int, values ...uint32) *nl.RtAttr {
		var raw []byte
		for _, value := range append([]uint32{uint32(index)}, values...) {
			raw = binary.NativeEndian.AppendUint32(raw, value)
		}
		return nl.NewRtAttr(kind, raw)
	}
	switch {
	case s.MAC != nil:
		mac, err := net.ParseMAC(*s.MAC)
		if err != nil || len(mac) != 6 {
			return nil, fmt.Errorf("VF %d: %q is no hardware address", index, *s.MAC)
		}
		// The kernel's struct has room for InfiniBand's addresses.
		attribute := words(nl.IFLA_VF_MAC)
		attribute.Data = append(append(attribute.Data, mac...), make([]byte, 26)...)
		return attribute, nil
	case s.VLAN != nil && s.QoS != nil:
		if s.VLANProtocol == nil || *s.VLANProtocol == tag8021Q {
			return words(nl.IFLA_VF_VLAN, uint32(*s.VLAN), uint32(*s.QoS)), nil
		}
		info := words(nl.IFLA_VF_VLAN_INFO, uint32(*s.VLAN), uint32(*s.QoS))
		info.Data = append(binary.BigEndian.AppendUint16(info.Data, unix.ETH_P_8021AD), 0, 0)
		list := nl.NewRtAttr(nl.IFLA_VF_VLAN_LIST, nil)
		list.AddChild(info)
		return list, nil
	case s.MinTxRate != nil && s.MaxTxRate != nil:
		return words(nl.IFLA_VF_RATE, uint32(*s.MinTxRate), uint32(*s.MaxTxRate)), nil
	case s.SpoofCheck != nil:
		return words(nl.IFLA_VF_SPOOFCHK, bit(*s.SpoofCheck)), nil
	case s.Trust != nil:
		return words(nl.IFLA_VF_TRUST, bit(*s.Trust)), nil
	case s.LinkState != nil:
		state := slices.Index(linkStates(), *s.LinkState)
		if state < 0 {
			return nil, fmt.Errorf("VF %d: %q is no link state", index, *s.LinkState)
		}
		return words(nl.IFLA_VF_LINK_STATE, uint32(state)), nil
	}
	return nil, fmt.Errorf("VF %d: %q is no setting that the kernel takes alone: VLAN and priority go together, and so do both rates", index, s)
}

func bit(on bool) uint32 {
	if on {
		return 1
	}
	return 0
}

func (s *space) setVF(pf *netdev, setting *nl.RtAttr) error {
	request := nl.NewNetlinkRequest(unix.RTM_SETLINK, unix.NLM_F_ACK)
	header := nl.NewIfInfomsg(unix.AF_UNSPEC)
	header.Index = int32(pf.index)
	request.AddData(header)
	list := nl.NewRtAttr(unix.IFLA_VFINFO_LIST, nil)
	info := nl.NewRtAttr(nl.IFLA_VF_INFO, nil)
	info.AddChild(setting)
	list.AddChild(info)
	request.AddData(list)
	_, err := s.ask(request, 0)
	return err
}

// patience and pause bound how long a VF's driver may take to follow its PF: some
// reset the VF when its address is set, and answer EAGAIN or EBUSY meanwhile.
const (
	patience = 2 * time.Second
	pause    = 50 * time.Millisecond
)

// setMAC gives a VF's netdev an address and reads back whether it took it.
func (s *space) setMAC(device *netdev, address string) error {
	mac, err := net.ParseMAC(address)
	if err != nil {
		return err
	}
	if err = s.checkedMAC(device, mac); err == nil {
		return nil
	}
	err = s.reopened(device, mac)
	for deadline := time.Now().Add(patience); err != nil && time.Now().Before(deadline); {
		time.Sleep(pause)
		err = s.checkedMAC(device, mac)
	}
	return err
}

// reopened closes and opens a device whose driver refuses an address because it
// is up, or because it has not heard yet what the PF set: igbvf asks the PF when it is closed.
func (s *space) reopened(device *netdev, mac net.HardwareAddr) error {
	link := device.link()
	addresses, err := s.addresses(link)
	if err != nil {
		return err
	}
	if !device.up {
		err = errors.Join(s.LinkSetUp(link), s.LinkSetDown(link))
	} else {
		err = s.LinkSetDown(link)
	}
	if err == nil {
		err = s.checkedMAC(device, mac)
	}
	if device.up { // with the addresses that IPv6 loses when a device goes down
		err = errors.Join(err, s.LinkSetUp(link), s.restoreAddresses(link, addresses))
	}
	return err
}

// checkedMAC sets the address unless the device has it.
func (s *space) checkedMAC(device *netdev, mac net.HardwareAddr) error {
	now, err := s.netdev(device.name, 0)
	if err != nil || slices.Equal(now.mac, mac) {
		return err
	}
	if err := s.LinkSetHardwareAddr(device.link(), mac); err != nil {
		return err
	}
	if now, err = s.netdev(device.name, 0); err == nil && !slices.Equal(now.mac, mac) {
		err = fmt.Errorf("it keeps %s", now.mac)
	}
	return err
}
