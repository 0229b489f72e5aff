// How a release tells an administrator what it did.

package driver

import (
	"fmt"
	"strings"

	"github.com/hostler-dev/hostler/driver/claim"
	"github.com/hostler-dev/hostler/driver/vfio"
)

// Name of the claim for people: namespace, name and UID, as far as they are known.
func (r *Released) Name() string {
	if r.Entry == nil {
		return fmt.Sprintf("claim %s (unknown to the journal)", r.Claim)
	}
	return fmt.Sprintf("claim %s/%s (%s)", r.Entry.ClaimNamespace, r.Entry.ClaimName, r.Claim)
}

// Devices says what each of the claim's devices is. BootID is the running machine's.
func (r *Released) Devices(bootID string) []string {
	if r.Entry == nil {
		return nil
	}
	var lines []string
	for i := range r.Entry.Devices {
		device := &r.Entry.Devices[i]
		rebooted := r.Entry.BootID != bootID
		if device.GPU != nil {
			lines = append(lines, device.Name+": "+gpuWords(device, rebooted))
		}
		if device.NIC != nil {
			lines = append(lines, device.Name+": "+nicWords(device, rebooted))
		}
		if device.VF != nil {
			lines = append(lines, device.Name+": "+vfWords(device.VF, rebooted))
		}
		if device.GPU == nil && device.NIC == nil {
			lines = append(lines, device.Name+": egress scope, in force in its pods until they end")
		}
	}
	return lines
}

func gpuWords(device *claim.Device, rebooted bool) string {
	binding := bindingOf(device, device.GPU.Placement.PCI)
	switch partition := device.Partition; {
	case binding != nil:
		return "GPU in user space, " + bindingWords(binding, rebooted)
	case partition == nil:
		return "GPU"
	case partition.Static:
		return fmt.Sprintf("GPU partition %s, which is not the claim's to remove", partition.Profile)
	case rebooted:
		return fmt.Sprintf("GPU partition %s, gone with the machine's reboot", partition.Profile)
	default:
		return fmt.Sprintf("GPU partition %s, made for the claim", partition.Profile)
	}
}

func nicWords(device *claim.Device, rebooted bool) string {
	binding := bindingOf(device, device.NIC.Placement.PCI)
	switch network := device.Network; {
	case binding != nil:
		return "NIC in user space, " + bindingWords(binding, rebooted)
	case network == nil || !network.HasNetdev():
		return "RDMA device"
	case network.Child != nil:
		return fmt.Sprintf("%s child of netdev %s, gone with its pods", network.Child.Kind, network.HostName)
	case rebooted:
		return fmt.Sprintf("netdev %s, at home since the machine's reboot", network.HostName)
	default:
		return "netdev " + network.HostName
	}
}

func vfWords(change *claim.VFChange, rebooted bool) string {
	if rebooted {
		return "VF settings, gone with the machine's reboot"
	}
	return fmt.Sprintf("VF settings that the claim changed (%s), of VF %d of %s", change.Wanted, change.Index, change.PF)
}

// bindingOf is how the device's half at that address is given to user space, nil if it is not.
func bindingOf(device *claim.Device, pci string) *vfio.Binding {
	for binding := device.VFIO; binding != nil; binding = binding.Paired {
		if binding.Functions[0].PCI == pci {
			return binding
		}
	}
	return nil
}

func bindingWords(binding *vfio.Binding, rebooted bool) string {
	if rebooted {
		return "at its driver since the machine's reboot"
	}
	var functions []string
	for _, function := range binding.Functions {
		functions = append(functions, function.PCI)
	}
	return "IOMMU group " + binding.Group + ": " + strings.Join(functions, ", ")
}
