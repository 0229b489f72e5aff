package rdma

// The messages of NETLINK_RDMA's client nldev (include/uapi/rdma/rdma_netlink.h in
// the kernel's tree), in the order of attributes in which iproute2 has them.

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// errCutOff is of a kind that no kernel sends.
var errCutOff = errors.New("the kernel's answer is cut off")

func newRequest(command int, flags int) *nl.NetlinkRequest {
	return nl.NewNetlinkRequest(nl.RDMA_NL_NLDEV<<nl.RDMA_NL_GET_CLIENT_SHIFT|command, flags)
}

func modeRequest() *nl.NetlinkRequest { return newRequest(nl.RDMA_NLDEV_CMD_SYS_GET, unix.NLM_F_ACK) }

func listRequest() *nl.NetlinkRequest { return newRequest(nl.RDMA_NLDEV_CMD_GET, unix.NLM_F_DUMP) }

// moveRequest is `rdma dev set DEVICE netns …`.
func moveRequest(index uint32, namespace int) *nl.NetlinkRequest {
	request := newRequest(nl.RDMA_NLDEV_CMD_SET, unix.NLM_F_ACK)
	request.AddData(nl.NewRtAttr(nl.RDMA_NLDEV_ATTR_DEV_INDEX, nl.Uint32Attr(index)))
	request.AddData(nl.NewRtAttr(nl.RDMA_NLDEV_NET_NS_FD, nl.Uint32Attr(uint32(namespace))))
	return request
}

// renameRequest is `rdma dev set DEVICE name …`.
func renameRequest(index uint32, name string) *nl.NetlinkRequest {
	request := newRequest(nl.RDMA_NLDEV_CMD_SET, unix.NLM_F_ACK)
	request.AddData(nl.NewRtAttr(nl.RDMA_NLDEV_ATTR_DEV_INDEX, nl.Uint32Attr(index)))
	request.AddData(nl.NewRtAttr(nl.RDMA_NLDEV_ATTR_DEV_NAME, nl.ZeroTerminated(name)))
	return request
}

// decodeMode: a kernel that says nothing of namespaces (before 5.2) has one mode only,
// in which devices are everywhere.
func decodeMode(messages [][]byte) (Mode, error) {
	mode := Shared
	for _, message := range messages {
		err := each(message, func(kind uint16, value []byte) error {
			if kind == nl.RDMA_NLDEV_SYS_ATTR_NETNS_MODE && len(value) == 1 && value[0] == 0 {
				mode = Exclusive
			}
			return nil
		})
		if err != nil {
			return "", err
		}
	}
	return mode, nil
}

func decodeDevices(messages [][]byte) ([]Device, error) {
	var devices []Device
	for _, message := range messages {
		var device Device
		err := each(message, func(kind uint16, value []byte) error {
			switch {
			case kind == nl.RDMA_NLDEV_ATTR_DEV_INDEX && len(value) == 4:
				device.Index = binary.NativeEndian.Uint32(value)
			case kind == nl.RDMA_NLDEV_ATTR_DEV_NAME:
				device.Name = unix.ByteSliceToString(value)
			case kind == nl.RDMA_NLDEV_ATTR_NODE_GUID && len(value) == 8:
				device.NodeGUID = guid(binary.NativeEndian.Uint64(value))
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
		devices = append(devices, device)
	}
	return devices, nil
}

// guid writes it as sysfs does, "" for none.
func guid(number uint64) string {
	if number == 0 {
		return ""
	}
	group := func(i int) uint16 { return uint16(bits.RotateLeft64(number, 16*(i+1))) }
	return fmt.Sprintf("%04x:%04x:%04x:%04x", group(0), group(1), group(2), group(3))
}

// each calls do for the attributes of a message, until it returns an error.
func each(message []byte, do func(kind uint16, value []byte) error) error {
	for len(message) >= unix.SizeofRtAttr {
		size := int(binary.NativeEndian.Uint16(message))
		if size < unix.SizeofRtAttr || size > len(message) {
			return errCutOff
		}
		if err := do(binary.NativeEndian.Uint16(message[2:])&attributeType, message[unix.SizeofRtAttr:size]); err != nil {
			return err
		}
		message = message[min((size+3)&^3, len(message)):]
	}
	return nil
}

// attributeType is what "nested" and "network byte order" leave of a type (NLA_TYPE_MASK).
const attributeType = 0x3fff
