package link

// How a netdev is known in its pod, read from the kernel: CNI chains may have
// given it addresses, and a pod that runs may have changed them since.

import (
	"fmt"

	"github.com/hostler-dev/hostler/netattach"
)

// State reads the device in the pod.
func State(pod int, device netattach.DeviceIntent) (netattach.DeviceState, error) {
	there, err := open(pod)
	if err != nil {
		return netattach.DeviceState{}, err
	}
	defer there.Close()
	link, err := there.find(device, device.PodIndex)
	if err != nil {
		return netattach.DeviceState{}, fmt.Errorf("cannot read how %s (%s) is known in the pod: %w", device.PodName, device.Device, err)
	}
	addresses, err := there.addresses(link)
	if err != nil {
		return netattach.DeviceState{}, fmt.Errorf("cannot read the addresses of %s (%s) in the pod: %w", device.PodName, device.Device, err)
	}
	return netattach.DeviceState{Device: device.Device, Interface: link.Attrs().Name, MAC: link.Attrs().HardwareAddr.String(), Addresses: addresses}, nil
}
