package cdi

import (
	"slices"
	"testing"
)

// Whoever drives a device himself gets the nodes for that and nothing of the
// node's own drivers.
func TestDevicesInUserSpace(t *testing.T) {
	claim := &Claim{UID: claimUID, Devices: []Device{
		{Name: "gpu-0000-17-00-0", UserSpace: []string{"vfio/vfio", "vfio/42", "iommu", "vfio/devices/vfio3"}},
	}}
	spec := build(t, builder(t), claim)
	want := []string{"/dev/iommu from /host/dev/iommu", "/dev/vfio/42 from /host/dev/vfio/42", "/dev/vfio/devices/vfio3 from /host/dev/vfio/devices/vfio3", "/dev/vfio/vfio from /host/dev/vfio/vfio"}
	got := nodes(deviceNamed(t, spec, "gpu-0000-17-00-0").ContainerEdits)
	slices.Sort(got)
	if !slices.Equal(got, want) || len(spec.Devices) != 1 {
		t.Errorf("%d devices with the nodes %v, want one with %v", len(spec.Devices), got, want)
	}
	if ids := claim.DeviceIDs("gpu-0000-17-00-0", ""); len(ids) != 1 {
		t.Errorf("a container gets %v, want nothing of the driver", ids)
	}
}
