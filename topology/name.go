// Names of devices. They are made here from PCI addresses, once, and nowhere
// parsed: a name is a key into the snapshot.

package topology

import (
	"fmt"
	"strconv"
	"strings"
)

// GPUName is the name of the GPU at a PCI address, "gpu-0000-17-00-0".
func GPUName(pci string) string { return "gpu-" + dashed(pci) }

// NICName is the name of the NIC at a PCI address, "nic-0000-18-00-0".
func NICName(pci string) string { return "nic-" + dashed(pci) }

// partitionName is the name of the partition of that profile and first memory
// slice, "gpu-0000-17-00-0-mig-1g-10gb-me-4". It is the same whether the partition
// exists or could be made. NVIDIA's profile names ("1g.10gb+me", "2g.48gb-me") become DNS labels.
func partitionName(gpu, profile string, start int) string {
	label := strings.ReplaceAll(strings.ToLower(profile), "-", "-no-")
	label = strings.ReplaceAll(strings.ReplaceAll(label, ".", "-"), "+", "-")
	return partitionsOf(gpu) + label + "-" + strconv.Itoa(start)
}

// partitionsOf is how the names of all partitions of a GPU begin.
func partitionsOf(gpu string) string { return gpu + "-mig-" }

// PairName is the name of a GPU and a NIC that are offered as one device,
// "pair-0000-17-00-0-0000-18-00-0".
func PairName(gpuPCI, nicPCI string) string { return "pair-" + dashed(gpuPCI) + "-" + dashed(nicPCI) }

func dashed(pci string) string {
	return strings.ReplaceAll(strings.ReplaceAll(pci, ":", "-"), ".", "-")
}

// CanonicalPCI brings a PCI address as NVML ("00000000:17:00.0") or a user
// writes it into the kernel's form "0000:17:00.0", lower case.
func CanonicalPCI(address string) (string, error) {
	bad := fmt.Errorf("%q is not a PCI address of the form domain:bus:device.function", address)
	head, function, dotted := strings.Cut(strings.ToLower(strings.TrimSpace(address)), ".")
	fields := strings.Split(head, ":")
	if !dotted || len(fields) != 3 {
		return "", bad
	}
	// Bits per field: PCI's own, but the kernel numbers the domains behind Intel
	// VMD from 0x10000 on, so a domain may have more than four digits.
	var numbers [4]uint64
	for i, bits := range [4]int{32, 8, 5, 3} {
		number, err := strconv.ParseUint(append(fields, function)[i], 16, bits)
		if err != nil {
			return "", bad
		}
		numbers[i] = number
	}
	return fmt.Sprintf("%04x:%02x:%02x.%x", numbers[0], numbers[1], numbers[2], numbers[3]), nil
}
