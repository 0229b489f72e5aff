// snapshotNVML answers the few questions that nvcdi asks of NVML, from the
// snapshot. It embeds the interfaces without a value: a question beyond these
// is a nil call, which the caller turns into an error.

package cdi

import (
	"github.com/NVIDIA/go-nvml/pkg/nvml"

	"github.com/hostler-dev/hostler/topology"
)

type snapshotNVML struct {
	nvml.Interface
	driver topology.Driver
	// gpu is the only GPU that exists, nil if none is asked about.
	gpu *topology.GPU
}

func (s *snapshotNVML) Init() nvml.Return     { return nvml.SUCCESS }
func (s *snapshotNVML) Shutdown() nvml.Return { return nvml.SUCCESS }

func (s *snapshotNVML) SystemGetDriverVersion() (string, nvml.Return) {
	return s.driver.Version, nvml.SUCCESS
}

func (s *snapshotNVML) DeviceGetHandleByUUID(uuid string) (nvml.Device, nvml.Return) {
	if s.gpu == nil || s.gpu.UUID != uuid {
		return nil, nvml.ERROR_NOT_FOUND
	}
	return snapshotDevice{gpu: s.gpu}, nvml.SUCCESS
}

type snapshotDevice struct {
	nvml.Device
	gpu *topology.GPU
}

func (d snapshotDevice) IsMigDeviceHandle() (bool, nvml.Return) { return false, nvml.SUCCESS }
func (d snapshotDevice) GetIndex() (int, nvml.Return)           { return d.gpu.Index, nvml.SUCCESS }
func (d snapshotDevice) GetUUID() (string, nvml.Return)         { return d.gpu.UUID, nvml.SUCCESS }
func (d snapshotDevice) GetMinorNumber() (int, nvml.Return)     { return d.gpu.Minor, nvml.SUCCESS }

// GetPciInfo fills the bus ID alone, in the kernel's form: it is what DRM nodes are found by.
func (d snapshotDevice) GetPciInfo() (nvml.PciInfo, nvml.Return) {
	var info nvml.PciInfo
	for i, c := range []byte(d.gpu.Placement.PCI) {
		if i < len(info.BusId) {
			info.BusId[i] = int8(c)
		}
	}
	return info, nvml.SUCCESS
}
