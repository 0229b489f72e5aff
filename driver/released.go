// How a release tells an administrator what it did.

package driver

import (
	"fmt"
	"strings"

	"github.com/hostler-dev/hostler/driver/claim"
	"github.com/hostler-dev/hostler/driver/vfio"
	"github.com/hostler-dev/hostler/netattach"
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
			lines = append(lines, device.Name+": "+scopeWords(rebooted))
		}
	}
	return lines
}

func scopeWords(rebooted bool) string {
	if rebooted {
		return "egress scope, gone with the machine's reboot"
	}
	return "egress scope, in force in its pods until they end"
}

func gpuWords(device *claim.Device, rebooted bool) string {
	binding := bindingOf(device, device.GPU.Placement.PCI)
	switch partition := device.Partition; {
	case binding != nil:
		return "GPU in user space, " + bindingWords(binding, rebooted)
	case partition == nil && device.AdminAccess:
		return "GPU, to be looked at with admin access"
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
	if binding := bindingOf(device, device.NIC.Placement.PCI); binding != nil {
		return "NIC in user space, " + bindingWords(binding, rebooted)
	}
	network, rdma := device.Network, rdmaOf(device)
	var words string
	switch {
	case network == nil && rdma == "":
		return "NIC of which its pods get nothing"
	case network == nil || !network.HasNetdev():
		return "RDMA device " + rdma
	case network.Child != nil:
		words = fmt.Sprintf("%s child of netdev %s, gone with its pods", network.Child.Kind, network.HostName)
		if rdma != "" {
			words += fmt.Sprintf("; RDMA device %s, which others share", rdma)
		}
		return words
	}
	words = "netdev " + network.HostName
	if rdma != "" {
		words += " and RDMA device " + rdma
	}
	switch {
	case rebooted:
		words += ", at home since the machine's reboot"
	case network.External:
		words += ", for Multus to bring into pods and home"
	}
	return words
}

// rdmaOf names the RDMA device that the claim has, "" if it has none.
func rdmaOf(device *claim.Device) string {
	switch {
	case device.Network != nil && device.Network.RDMA != nil:
		return device.Network.RDMA.Device
	case device.RDMA && device.NIC.RDMA != nil:
		return device.NIC.RDMA.Name
	}
	return ""
}

// missingWords name a device that is on record as not home, by what it can be found by.
func missingWords(device *netattach.DeviceIntent) string {
	var parts []string
	switch {
	case device.Child != nil:
		parts = append(parts, fmt.Sprintf("the %s child %s of netdev %s", device.Child.Kind, device.PodName, device.HostName))
	case device.HasNetdev():
		netdev := "netdev " + device.HostName
		if device.HostMAC != "" { // IP tunnels and their like have none
			netdev += " (" + device.HostMAC + ")"
		}
		parts = append(parts, netdev)
	}
	if device.RDMA != nil {
		parts = append(parts, "RDMA device "+device.RDMA.Device)
	}
	return strings.Join(parts, " with ")
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
