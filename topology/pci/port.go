// What kind of port a bridge is. A PCIe switch is an upstream port with
// downstream ports below it; sysfs shows each port as one more bridge and does not
// say which is which. The PCI Express capability in config space does.

package pci

import "os"

type portKind int

// Values of the Device/Port Type field, PCI_EXP_TYPE_* in linux/pci_regs.h.
const (
	portUnknown    portKind = -1
	portRoot       portKind = 0x4
	portUpstream   portKind = 0x5
	portDownstream portKind = 0x6
)

// Offsets from linux/pci_regs.h.
const (
	configStatus         = 0x06
	statusHasCaps        = 0x10
	configCapabilityList = 0x34
	capabilityPCIe       = 0x10
	configSpaceSize      = 256
)

// readPortKind reads a bridge's config space. Unprivileged readers see only its
// first 64 bytes, which hold no capabilities: the kind is unknown then.
func readPortKind(path string) portKind {
	file, err := os.Open(path)
	if err != nil {
		return portUnknown
	}
	defer file.Close()
	config := make([]byte, configSpaceSize)
	n, _ := file.ReadAt(config, 0) // a short read is what an unprivileged reader gets
	return portKindOf(config[:n])
}

// portKindOf finds the PCI Express capability in a config space.
func portKindOf(config []byte) portKind {
	if len(config) < 64 || config[configStatus]&statusHasCaps == 0 {
		return portUnknown
	}
	offset := int(config[configCapabilityList]) &^ 3
	for range 48 { // more capabilities than fit: a list that loops
		if offset < 64 || offset+3 >= len(config) {
			return portUnknown
		}
		if config[offset] == capabilityPCIe {
			return portKind(config[offset+2] >> 4)
		}
		offset = int(config[offset+1]) &^ 3
	}
	return portUnknown
}

// nearestSwitch is the address of the lowest upstream port on a path of
// bridges, "" if there is none.
//
// Where config space does not tell, the shape does: below a root port, ports
// alternate between upstream and downstream, so every second one is upstream.
func (t *Tree) nearestSwitch(path []string) string {
	for i := len(path) - 1; i >= 0; i-- {
		switch t.kind(path[i]) {
		case portUpstream:
			return path[i]
		case portUnknown:
			if i%2 == 1 {
				return path[i]
			}
		}
	}
	return ""
}

func (t *Tree) kind(pci string) portKind {
	if kind, ok := t.kinds[pci]; ok {
		return kind
	}
	return portUnknown
}
