package link

// Devices that somebody else brings into the pod and home: they are found there.

import (
	"fmt"

	"github.com/hostler-dev/hostler/netattach"
)

// Find returns the device as it is in the pod now, under the name and index that it
// has there. The error is ErrNotFound if it is not in the pod.
func Find(pod int, device netattach.DeviceIntent) (netattach.DeviceIntent, error) {
	there, err := open(pod)
	if err != nil {
		return device, err
	}
	defer there.Close()
	link, err := there.find(device, device.PodIndex)
	if err != nil {
		return device, fmt.Errorf("look for %s (%s) in the pod: %w", device.HostName, device.Device, err)
	}
	device.PodName, device.PodIndex = link.Attrs().Name, link.Attrs().Index
	return device, nil
}
