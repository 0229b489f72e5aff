package rdma

// Which RDMA device is the claimed one. Its index stays its own from the driver's
// start to its end, through moves and renames; a driver that was loaded anew has
// another one, because the kernel gives none twice in a row (xa_alloc_cyclic). The node GUID is the hardware's, but a VF may have none, and a pod can
// make a software device with any. The name is udev's or anybody's to change.

import (
	"errors"
	"fmt"
	"slices"

	"github.com/hostler-dev/hostler/netattach"
)

// errNotFound marks a device that is where it was looked for under no name.
var errNotFound = errors.New("no such RDMA device")

func (h *Host) find(namespace int, intent netattach.RDMAIntent, indexed bool) (Device, error) {
	devices, err := h.kernel.Devices(namespace)
	if err != nil {
		return Device{}, fmt.Errorf("cannot list RDMA devices: %w", err)
	}
	return pick(devices, intent, indexed)
}

// pick finds the device by its index, if that is known, and its GUID, else by GUID
// and name. An index with another GUID is that of another device.
func pick(devices []Device, intent netattach.RDMAIntent, indexed bool) (Device, error) {
	candidates := slices.DeleteFunc(slices.Clone(devices), func(d Device) bool { return intent.NodeGUID != "" && d.NodeGUID != intent.NodeGUID })
	if i := slices.IndexFunc(candidates, func(d Device) bool { return d.Index == intent.Index }); indexed && i >= 0 {
		return candidates[i], nil
	}
	if i := slices.IndexFunc(candidates, func(d Device) bool { return d.Name == intent.Device }); i >= 0 {
		return candidates[i], nil
	}
	switch {
	case intent.NodeGUID == "" || len(candidates) == 0:
		return Device{}, errNotFound
	case len(candidates) > 1:
		return Device{}, fmt.Errorf("%d RDMA devices have the node GUID %s and none is named %s; give it its name back by hand (rdma dev set … name %s)", len(candidates), intent.NodeGUID, intent.Device, intent.Device)
	}
	return candidates[0], nil
}
