// What kind of port a bridge is. A PCIe switch is an upstream port with
// downstream ports below it; sysfs shows each port as one more bridge and does not
// say which is which. The PCI Express capability in config space does; where an
// unprivileged reader does not see it, the shape of the tree does. The rule is
// here and nowhere else.

package pci

import (
	"os"

	"github.com/hostler-dev/hostler/topology"
)

// Offsets and values from linux/pci_regs.h.
const (
	configStatus         = 0x06
	statusHasCaps        = 0x10
	configCapabilityList = 0x34
	capabilityPCIe       = 0x10
	configSpaceSize      = 256
)

// portTypes are the Device/Port Types of ports, PCI_EXP_TYPE_*; the others are
// endpoints and bridges between PCIe and PCI.
var portTypes = map[byte]topology.PortKind{
	0x4: topology.PortRoot, 0x5: topology.PortUpstream, 0x6: topology.PortDownstream,
}

// readPort reads a bridge's kind from its config space. It is not told to
// unprivileged readers, who see only the first 64 bytes, which hold no capabilities.
func readPort(path string) (kind topology.PortKind, told bool) {
	file, err := os.Open(path)
	if err != nil {
		return "", false // the shape tells
	}
	defer file.Close()
	config := make([]byte, configSpaceSize)
	n, _ := file.ReadAt(config, 0) // a short read is what an unprivileged reader gets
	return portOf(config[:n])
}

// portOf finds the PCI Express capability in a config space. A bridge that has
// none is a conventional one, and told to be no port.
func portOf(config []byte) (kind topology.PortKind, told bool) {
	if len(config) < configSpaceSize {
		return "", false
	}
	if config[configStatus]&statusHasCaps == 0 {
		return "", true
	}
	offset := int(config[configCapabilityList]) &^ 3
	for range 48 { // more capabilities than fit: a list that loops
		if offset < 64 || offset+3 >= len(config) {
			return "", true
		}
		if config[offset] == capabilityPCIe {
			return portTypes[config[offset+2]>>4], true
		}
		offset = int(config[offset+1]) &^ 3
	}
	return "", true
}

// ports are the kinds of the bridges on a path that begins at the root complex.
//
// Where config space does not tell, the bridge above does: below a root or
// downstream port a bridge is an upstream port, below an upstream port a downstream
// one. A switch has nothing but its downstream ports on its inner bus (PCI Express
// Base Specification, 1.3.3), so a bridge with a device right below is no upstream port.
func (t *Tree) ports(path []string) []topology.PortKind {
	kinds := make([]topology.PortKind, len(path))
	for i, bridge := range path {
		kind, told := t.told[bridge]
		switch {
		case told:
			kinds[i] = kind
		case i == 0:
			kinds[i] = topology.PortRoot
		case kinds[i-1] == topology.PortUpstream:
			kinds[i] = topology.PortDownstream
		case kinds[i-1] != "" && !t.aboveDevice[bridge]:
			kinds[i] = topology.PortUpstream
		}
	}
	return kinds
}

// nearestSwitch is the address of the lowest upstream port on a path of
// bridges, "" if there is none.
func (t *Tree) nearestSwitch(path []string) string {
	kinds := t.ports(path)
	for i := len(path) - 1; i >= 0; i-- {
		if kinds[i] == topology.PortUpstream {
			return path[i]
		}
	}
	return ""
}
