// Everything that must differ between two nodes of the same profile but stay
// the same from run to run - GPU UUIDs, serial numbers, MACs, GUIDs - is derived
// here from the node's index and the device's PCI address.

package machine

import (
	"crypto/sha256"
	"fmt"
	"net"
	"strconv"
	"strings"
)

// GPUUUID is the UUID of the GPU at that address on the node of that index.
func (p *Profile) GPUUUID(nodeIndex int, pci string) string {
	h := sha256.Sum256(fmt.Appendf(nil, "%s/%d/%s", p.Name, nodeIndex, pci))
	// Version 4, variant 1, as NVIDIA's UUIDs look.
	h[6], h[8] = h[6]&0x0f|0x40, h[8]&0x3f|0x80
	return fmt.Sprintf("GPU-%x-%x-%x-%x-%x", h[0:4], h[4:6], h[6:8], h[8:10], h[10:16])
}

func (p *Profile) gpuSerial(nodeIndex int, gpu GPU) string {
	return fmt.Sprintf("16539230%02d%03d", nodeIndex, gpu.Minor)
}

// MAC is the locally administered address of the NIC function at that PCI address.
func (p *Profile) MAC(nodeIndex int, pci string) net.HardwareAddr {
	bus, devfn := busAndFunction(pci)
	domain := domain(pci)
	return net.HardwareAddr{0x02, 0x48 ^ byte(domain>>8), byte(domain), byte(nodeIndex), bus, devfn}
}

// ipoibAddress is the hardware address of an IPoIB netdev: queue pair and port
// GID (RFC 4391, section 9.1.1).
func ipoibAddress(mac net.HardwareAddr) net.HardwareAddr {
	return append(net.HardwareAddr{0x80, 0, 0, 0x28, 0xfe, 0x80, 0, 0, 0, 0, 0, 0},
		mac[0]^2, mac[1], mac[2], 0xff, 0xfe, mac[3], mac[4], mac[5])
}

// guid is the EUI-64 of a MAC (RFC 4291, appendix A) in sysfs's notation.
func guid(mac net.HardwareAddr) string {
	return fmt.Sprintf("%02x%02x:%02xff:fe%02x:%02x%02x", mac[0]^2, mac[1], mac[2], mac[3], mac[4], mac[5])
}

// linkLocalGID is a RoCE port's first GID, the link-local address of its netdev.
func linkLocalGID(mac net.HardwareAddr) string {
	return "fe80:0000:0000:0000:" + guid(mac)
}

// busAndFunction takes a validated address apart.
func busAndFunction(pci string) (bus, devfn byte) {
	fields := strings.FieldsFunc(pci, func(r rune) bool { return r == ':' || r == '.' })
	b, _ := strconv.ParseUint(fields[1], 16, 8)
	d, _ := strconv.ParseUint(fields[2], 16, 8)
	f, _ := strconv.ParseUint(fields[3], 16, 8)
	return byte(b), byte(d<<3 | f)
}

// domain of a validated address.
func domain(pci string) uint16 {
	n, _ := strconv.ParseUint(pci[:4], 16, 16)
	return uint16(n)
}
