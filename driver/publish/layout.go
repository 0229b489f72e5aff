// Layout: which device is in which slice. A pool whose number of slices stays
// and of which one slice changes costs one write; anything else rewrites the whole
// pool (k8s.io/dynamic-resource-allocation/resourceslice matches slices by index
// and counts them). So devices that are tainted together share a slice, and
// those that come and go one by one, VFs and partitions, have slots of their own:
// none moves because another one came.

package publish

import (
	"maps"
	"slices"

	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/dynamic-resource-allocation/resourceslice"
)

// sliceSize is the API's limit for slices with taints, counters or lists, and it
// is kept whether a slice has any today or not: otherwise the first taint would push
// devices, allocated ones among them, from one slice into another.
const sliceSize = resourceapi.ResourceSliceMaxDevicesWithAdvancedFeatures

// shelf holds the devices of one owner, which share slices with nobody else.
type shelf struct{ runs map[int][]resourceapi.Device }

// put places a device in the run of slots to which its own belongs. A negative
// slot is none.
func (s *shelf) put(slot int, device resourceapi.Device) {
	if s.runs == nil {
		s.runs = map[int][]resourceapi.Device{}
	}
	run := max(slot, 0) / sliceSize
	s.runs[run] = append(s.runs[run], device)
}

// pool cuts shelves and counter sets into slices. The API wants counter sets in
// slices without devices. A pool without devices has one empty slice, which says
// that the driver is there and found none.
func pool(sets [][]resourceapi.CounterSet, shelves []*shelf) resourceslice.Pool {
	var out resourceslice.Pool
	for _, owner := range sets {
		for few := range slices.Chunk(owner, resourceapi.ResourceSliceMaxCounterSets) {
			out.Slices = append(out.Slices, resourceslice.Slice{SharedCounters: few})
		}
	}
	empty := true
	for _, shelf := range shelves {
		for _, run := range slices.Sorted(maps.Keys(shelf.runs)) {
			for devices := range slices.Chunk(shelf.runs[run], sliceSize) {
				out.Slices = append(out.Slices, resourceslice.Slice{Devices: devices})
				empty = false
			}
		}
	}
	if empty {
		out.Slices = append(out.Slices, resourceslice.Slice{})
	}
	return out
}
