// The step that sets up a claim's VF, derived from the entry.

package claim

import (
	"github.com/hostler-dev/hostler/driver/sriov"
	"github.com/hostler-dev/hostler/netattach"
)

// VFs reads and sets what PFs keep of their VFs, see link.VFs.
type VFs = sriov.VFs

func (s *Steps) vf(entry *Entry, device *Device) *sriov.Step {
	return sriov.NewStep(sriov.StepConfig{
		Name: device.NIC.Name, VF: device.vf(), Wanted: device.VF.Wanted, Before: device.VF.Before, NetdevMAC: device.VF.NetdevMAC,
		UserSpace: device.VFIO != nil, OtherBoot: entry.BootID != s.BootID, VFs: s.VFs,
	})
}

// vf identifies the device's VF.
func (d *Device) vf() netattach.VF {
	return netattach.VF{PF: d.VF.PF, Index: d.VF.Index, PCI: d.NIC.Placement.PCI}
}
