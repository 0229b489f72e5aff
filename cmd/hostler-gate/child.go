package main

// A child is a netdev that was made for the pod on top of a NIC that others share
// (netattach/link, child.go and bandwidth.go). That it is still there is seen by what
// a pod cannot choose: its kind and its parent in another namespace; and that it is
// held to its bandwidth by the queues of what it sends and of what it receives.

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math"
	"strings"
	"syscall"
)

// From linux/if_link.h, linux/pkt_sched.h and linux/rtnetlink.h.
const (
	iflaLinkInfo    = 18
	iflaLinkNetNSID = 37
	iflaInfoKind    = 1
	tcaKind         = 1
	tcaOptions      = 2
	tbfParameters   = 1
	tbfRate64       = 4
	tcRoot          = 0xffffffff // TC_H_ROOT
	sizeofTCMessage = 20         // struct tcmsg
)

// proveChild runs in the container's network namespace.
func (d *device) proveChild() error {
	if d.Child.Kind == "" {
		return nil
	}
	kind, parent, err := underneath(d.PodIndex)
	if err != nil {
		return err
	}
	if kind != d.Child.Kind || parent != d.Child.ParentIndex {
		return fmt.Errorf("network device %s is in the pod as %s no longer the %s that was made for it", d.Device, d.PodName, d.Child.Kind)
	}
	if d.Bandwidth == 0 {
		return nil
	}
	limits, err := limits()
	if err != nil {
		return err
	}
	arrivals, err := indexOf(d.arrivals())
	if err != nil {
		return err
	}
	for _, index := range []int{d.PodIndex, arrivals} {
		if limits[index] != d.Bandwidth/8 {
			return fmt.Errorf("network device %s is no longer held to its bandwidth, %d bits per second", d.Device, d.Bandwidth)
		}
	}
	return nil
}

// arrivals is the name of the device whose queue is that of what the child receives.
func (d *device) arrivals() string {
	sum := sha256.Sum256([]byte(d.Pool + "\x00" + d.Device + "\x00" + d.ShareID))
	return "hb" + hex.EncodeToString(sum[:])[:13]
}

// links calls do with index and attributes of every link.
func links(do func(index int, attributes map[uint16][]byte)) error {
	raw, err := syscall.NetlinkRIB(syscall.RTM_GETLINK, syscall.AF_UNSPEC)
	if err != nil {
		return fmt.Errorf("cannot list the pod's network devices: %w", err)
	}
	messages, err := syscall.ParseNetlinkMessage(raw)
	if err != nil {
		return fmt.Errorf("cannot read the pod's network devices: %w", err)
	}
	for _, message := range messages {
		if message.Header.Type == syscall.RTM_NEWLINK && len(message.Data) >= syscall.SizeofIfInfomsg {
			do(int(int32(binary.NativeEndian.Uint32(message.Data[4:]))), attributes(message.Data[syscall.SizeofIfInfomsg:]))
		}
	}
	return nil
}

// underneath is of what kind a device is and what index its parent has in the
// namespace that this is in, 0 if that is the pod's own.
func underneath(index int) (kind string, parent int, err error) {
	err = links(func(i int, about map[uint16][]byte) {
		if i != index {
			return
		}
		kind = text(attributes(about[iflaLinkInfo])[iflaInfoKind])
		if _, elsewhere := about[iflaLinkNetNSID]; elsewhere && len(about[syscall.IFLA_LINK]) == 4 {
			parent = int(binary.NativeEndian.Uint32(about[syscall.IFLA_LINK]))
		}
	})
	return kind, parent, err
}

// indexOf is 0 if there is no ifb device of that name.
func indexOf(name string) (index int, err error) {
	err = links(func(i int, about map[uint16][]byte) {
		if text(about[syscall.IFLA_IFNAME]) == name && text(attributes(about[iflaLinkInfo])[iflaInfoKind]) == "ifb" {
			index = i
		}
	})
	return index, err
}

// limits are the rates, in bytes per second, of the token buckets that are roots, by
// the index of their device.
func limits() (map[int]uint64, error) {
	raw, err := dump(syscall.NETLINK_ROUTE, syscall.RTM_GETQDISC, make([]byte, sizeofTCMessage), "queues")
	if err != nil {
		return nil, err
	}
	rates := map[int]uint64{}
	for _, data := range raw {
		if len(data) < sizeofTCMessage || binary.NativeEndian.Uint32(data[12:]) != tcRoot {
			continue
		}
		about := attributes(data[sizeofTCMessage:])
		if text(about[tcaKind]) != "tbf" {
			continue
		}
		options := attributes(about[tcaOptions])
		// struct tc_tbf_qopt begins with a struct tc_ratespec, whose rate is its third word,
		// and all ones if it is in tbfRate64.
		if parameters := options[tbfParameters]; len(parameters) >= 12 {
			rate := uint64(binary.NativeEndian.Uint32(parameters[8:]))
			if wide := options[tbfRate64]; rate == math.MaxUint32 && len(wide) == 8 {
				rate = binary.NativeEndian.Uint64(wide)
			}
			rates[int(int32(binary.NativeEndian.Uint32(data[4:])))] = rate
		}
	}
	return rates, nil
}

// attributes by type, without the flags of it; of what is cut off there are none.
func attributes(raw []byte) map[uint16][]byte {
	all := map[uint16][]byte{}
	for len(raw) >= 4 {
		size := int(binary.NativeEndian.Uint16(raw))
		if size < 4 || size > len(raw) {
			break
		}
		all[binary.NativeEndian.Uint16(raw[2:])&0x3fff] = raw[4:size]
		raw = raw[min((size+3)&^3, len(raw)):]
	}
	return all
}

func text(raw []byte) string {
	before, _, _ := strings.Cut(string(raw), "\x00")
	return before
}
