// What of an entry is still the claim's to undo, when some of its steps were never
// begun or are undone already. A step knows what it changed by looking at what is
// there; where it has nothing to undo any more, what is there is somebody else's: a
// partition that an administrator made in the place that became free, a VF set up
// anew, a function bound by hand. So the journal says which steps are left.

package claim

import (
	"slices"

	"github.com/hostler-dev/hostler/driver/vfio"
)

// owning is the entry of which the first steps, see Steps.Of, are to be undone, and
// those of the waiting partitions. It keeps all its devices, which are nobody else's meanwhile.
func (e *Entry) owning(steps int, waiting map[string]bool) *Entry {
	owned := *e
	owned.Devices = slices.Clone(e.Devices)
	left := func() bool { steps--; return steps >= 0 }
	for i := range owned.Devices {
		device := &owned.Devices[i]
		if device.Partition != nil && !left() && !waiting[device.Name] {
			others := *device.Partition
			others.Static = true
			device.Partition = &others
		}
	}
	for i := range owned.Devices {
		if device := &owned.Devices[i]; device.VF != nil && !left() {
			device.VF = nil
		}
	}
	for i := range owned.Devices {
		owned.Devices[i].keepBindings(left)
	}
	return &owned
}

// keepBindings drops the bindings of the device that are not to be kept.
func (d *Device) keepBindings(keep func() bool) {
	bindings := d.bindings()
	d.VFIO = nil
	end := &d.VFIO
	for _, binding := range bindings {
		if keep() {
			kept := vfio.Binding{Group: binding.Group, Functions: binding.Functions}
			*end, end = &kept, &kept.Paired
		}
	}
}
