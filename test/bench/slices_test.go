package main

import (
	"testing"

	resourceapi "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// published makes slices, each with a pool, its generation, the number of slices
// that the pool has, and a number of devices.
func published(list ...[4]int64) map[string]*resourceapi.ResourceSlice {
	slices := map[string]*resourceapi.ResourceSlice{}
	for i, s := range list {
		name := string(rune('a' + i))
		slice := &resourceapi.ResourceSlice{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: resourceapi.ResourceSliceSpec{
			Pool: resourceapi.ResourcePool{Name: string(rune('0' + s[0])), Generation: s[1], ResourceSliceCount: s[2]},
		}}
		for range s[3] {
			slice.Spec.Devices = append(slice.Spec.Devices, resourceapi.Device{Name: "d"})
		}
		slices[name] = slice
	}
	return slices
}

func TestOnlyDevicesOfCompletePoolsCount(t *testing.T) {
	for name, test := range map[string]struct {
		slices map[string]*resourceapi.ResourceSlice
		want   int
	}{
		"nothing":                           {published(), 0},
		"two complete pools":                {published([4]int64{1, 1, 1, 8}, [4]int64{2, 1, 1, 10}), 18},
		"half a pool":                       {published([4]int64{1, 1, 2, 8}), 0},
		"both halves":                       {published([4]int64{1, 1, 2, 8}, [4]int64{1, 1, 2, 3}), 11},
		"halves of different generations":   {published([4]int64{1, 1, 2, 8}, [4]int64{1, 2, 2, 3}), 0},
		"a complete pool beside half a one": {published([4]int64{1, 1, 2, 8}, [4]int64{2, 1, 1, 3}), 3},
	} {
		t.Run(name, func(t *testing.T) {
			if got := devices(test.slices); got != test.want {
				t.Errorf("counted %d devices, want %d", got, test.want)
			}
		})
	}
}

func TestATaintOfAnotherKindIsNoFault(t *testing.T) {
	slices := published([4]int64{1, 1, 1, 1})
	slices["a"].Spec.Devices[0].Taints = []resourceapi.DeviceTaint{{Key: driverName + "/uplink"}}
	if faulty(slices, "d", xidTaint) {
		t.Error("an uplink's taint counts as a fault")
	}
	slices["a"].Spec.Devices[0].Taints = append(slices["a"].Spec.Devices[0].Taints, resourceapi.DeviceTaint{Key: xidTaint})
	if !faulty(slices, "d", xidTaint) || faulty(slices, "another", xidTaint) {
		t.Error("the fault's taint is not told by device and key")
	}
}

func TestTheThousandPrefixesAreAThousand(t *testing.T) {
	seen := map[string]bool{}
	for _, peer := range thousandPrefixes().Allow[0].To {
		seen[peer.CIDR.CIDR] = true
	}
	if len(seen) != 1000 {
		t.Errorf("%d different prefixes", len(seen))
	}
}
