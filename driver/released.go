// How a release tells an administrator what it did.

package driver

import (
	"fmt"

	"github.com/hostler-dev/hostler/driver/claim"
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
			lines = append(lines, device.Name+": "+nicWords(device.Network, rebooted))
		}
		if device.GPU == nil && device.NIC == nil {
			lines = append(lines, device.Name+": egress scope, in force in its pods until they end")
		}
	}
	return lines
}

func gpuWords(device *claim.Device, rebooted bool) string {
	switch partition := device.Partition; {
	case partition == nil:
		return "GPU"
	case partition.Static:
		return fmt.Sprintf("GPU partition %s, which was there before the claim and stays", partition.Profile)
	case rebooted:
		return fmt.Sprintf("GPU partition %s, gone with the machine's reboot", partition.Profile)
	default:
		return fmt.Sprintf("GPU partition %s, made for the claim", partition.Profile)
	}
}

func nicWords(network *netattach.DeviceIntent, rebooted bool) string {
	switch {
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
