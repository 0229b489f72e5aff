// The step that tells Multus of a device that it is to attach: a device-info file,
// there before the pod's sandbox is.

package claim

import (
	"context"

	"github.com/hostler-dev/hostler/netattach/multus"
)

type deviceInfoStep struct {
	directory multus.DeviceInfo
	device    multus.Device
}

func (s *Steps) deviceInfo(device *Device) *deviceInfoStep {
	info := multus.Device{ResourceName: device.Network.ResourceName, PCI: device.NIC.Placement.PCI}
	if device.RDMA {
		info.RDMA = device.NIC.RDMA.Name
	}
	return &deviceInfoStep{directory: s.DeviceInfo, device: info}
}

func (s *deviceInfoStep) Name() string                 { return "write the device-info file for Multus" }
func (s *deviceInfoStep) Kind() string                 { return "deviceinfo" }
func (s *deviceInfoStep) Do(context.Context) error     { return s.directory.Write(s.device) }
func (s *deviceInfoStep) Verify(context.Context) error { return s.directory.Verify(s.device) }
func (s *deviceInfoStep) Undo(context.Context) error   { return s.directory.Remove(s.device) }
