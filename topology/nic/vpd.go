// Vital product data: what a PCI card says of itself in config space, as a row
// of resources, one of which holds keywords of two letters ("SN" the serial number).
// PCI Local Bus Specification 3.0, appendix I; the kernel shows it in the file "vpd".

package nic

import "encoding/binary"

// Tags of VPD resources: large ones have the top bit and a length of two bytes,
// small ones their length in the low three bits.
const (
	vpdLarge    = 0x80
	vpdReadOnly = 0x90
	vpdEnd      = 0x0f
)

// readOnlyKeywords are the keywords of the read-only section. What is cut off is
// left out; of a keyword that comes twice the first counts.
func readOnlyKeywords(vpd []byte) map[string]string {
	keywords := map[string]string{}
	for len(vpd) > 0 {
		tag, header, size := vpd[0], 1, int(vpd[0]&7)
		if tag&vpdLarge != 0 {
			if len(vpd) < 3 {
				break
			}
			header, size = 3, int(binary.LittleEndian.Uint16(vpd[1:]))
		} else if tag>>3 == vpdEnd {
			break
		}
		resource := vpd[header:]
		if size > len(resource) {
			break
		}
		if tag == vpdReadOnly {
			readKeywords(resource[:size], keywords)
		}
		vpd = resource[size:]
	}
	return keywords
}

// readKeywords reads fields of two letters, one byte of length and a value.
func readKeywords(fields []byte, keywords map[string]string) {
	const header = 3
	for len(fields) >= header {
		size := int(fields[2])
		if size > len(fields)-header {
			return
		}
		name := string(fields[:2])
		if _, seen := keywords[name]; !seen {
			keywords[name] = string(fields[header : header+size])
		}
		fields = fields[header+size:]
	}
}
