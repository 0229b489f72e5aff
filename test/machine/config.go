// Binary files of a PCI function: the configuration space, as far as readers
// look for what kind of port a bridge is, and vital product data, which is how two
// functions of one card are known to belong together.

package machine

import (
	"bytes"
	"encoding/binary"
	"strconv"
	"strings"
)

// portType is the Device/Port Type of a function (PCI_EXP_TYPE_* in linux/pci_regs.h).
type portType byte

const (
	endpoint       portType = 0x0
	rootPort       portType = 0x4
	upstreamPort   portType = 0x5
	downstreamPort portType = 0x6
)

// portTypes of the bridges: below a root port or a downstream port begins a switch.
func (p *Profile) portTypes() map[string]portType {
	types := map[string]portType{}
	for _, b := range p.Bridges {
		switch {
		case b.Root != "":
			types[b.PCI] = rootPort
		case types[b.Parent] == upstreamPort:
			types[b.PCI] = downstreamPort
		default:
			types[b.PCI] = upstreamPort
		}
	}
	return types
}

// Offsets from linux/pci_regs.h; the capability lies where most devices have it.
const (
	configStatus         = 0x06
	statusHasCaps        = 0x10
	configHeaderType     = 0x0e
	configCapabilityList = 0x34
	capabilityOffset     = 0x60
	capabilityPCIe       = 0x10
)

// configSpace is the part of a function's configuration space that PCI itself
// has: header and PCI Express capability, 256 bytes.
func configSpace(vendor, device, class string, port portType) []byte {
	space := make([]byte, 256)
	number := func(hex string) uint16 {
		n, _ := strconv.ParseUint(hex, 16, 16)
		return uint16(n)
	}
	binary.LittleEndian.PutUint16(space[0:], number(vendor))
	binary.LittleEndian.PutUint16(space[2:], number(device))
	space[configStatus] = statusHasCaps
	c, _ := strconv.ParseUint(strings.TrimPrefix(class, "0x"), 16, 24)
	space[9], space[10], space[11] = byte(c), byte(c>>8), byte(c>>16)
	if port != endpoint {
		space[configHeaderType] = 1
	}
	space[configCapabilityList] = capabilityOffset
	space[capabilityOffset] = capabilityPCIe
	// Capability version 2, then the port type.
	space[capabilityOffset+2] = 2 | byte(port)<<4
	return space
}

// vitalProductData in the format of the PCI Local Bus Specification, appendix I:
// the product's name and read-only keywords, of which VU is the card's own
// identity (drivers/infiniband/hw/mlx5/data_direct.c looks for it).
func vitalProductData(product, serial, vu string) []byte {
	var vpd bytes.Buffer
	resource := func(tag byte, content []byte) {
		vpd.WriteByte(tag)
		vpd.Write(binary.LittleEndian.AppendUint16(nil, uint16(len(content))))
		vpd.Write(content)
	}
	resource(0x82, []byte(product))
	var fields bytes.Buffer
	keyword := func(name string, value []byte) {
		fields.WriteString(name)
		fields.WriteByte(byte(len(value)))
		fields.Write(value)
	}
	keyword("SN", []byte(serial))
	keyword("VU", []byte(vu))
	// RV makes the sum of all bytes up to and with it zero.
	sum := byte(0)
	length := binary.LittleEndian.AppendUint16([]byte{0x90}, uint16(fields.Len()+4))
	for _, part := range [][]byte{vpd.Bytes(), length, fields.Bytes(), []byte("RV\x01")} {
		for _, b := range part {
			sum += b
		}
	}
	keyword("RV", []byte{-sum})
	resource(0x90, fields.Bytes())
	vpd.WriteByte(0x78)
	return vpd.Bytes()
}
