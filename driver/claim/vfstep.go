// A VF's settings are set while its claim is prepared and taken back when it is
// unprepared. What is set and what is restored follows from the entry and from what
// the PF says now: an attempt that was cut off after any request is completed, or taken
// back, by the next one.

package claim

import (
	"context"
	"errors"
	"fmt"

	"k8s.io/klog/v2"

	"github.com/hostler-dev/hostler/netattach"
)

// VFs reads and sets what PFs keep of their VFs, see link.VFs. A method returns
// netattach.ErrVFGone for a VF that is not on the machine any more.
type VFs interface {
	VF(netattach.VF) (netattach.VFState, error)
	// SetVF sets one setting, or VLAN and priority, or both rates.
	SetVF(netattach.VF, netattach.VFSettings) error
	// SetNetdevMAC gives the VF's netdev an address, if one is on the host.
	SetNetdevMAC(netattach.VF, string) error
}

type vfStep struct {
	vfs    VFs
	device *Device
	// otherBoot: the entry is of another boot, and a VF's settings do not survive one.
	otherBoot bool
}

func (s *vfStep) Name() string { return "set up VF " + s.device.NIC.Name }
func (s *vfStep) Kind() string { return "vf-settings" }

func (s *vfStep) Do(ctx context.Context) error {
	return s.bring(ctx, s.device.VF.Wanted, s.wantedMAC())
}

func (s *vfStep) Verify(context.Context) error {
	return s.check(s.device.VF.Wanted, s.wantedMAC())
}

// Undo takes a VF that is gone for restored: its PF makes new ones with its driver's defaults.
func (s *vfStep) Undo(ctx context.Context) error {
	if s.otherBoot {
		return nil
	}
	change := s.device.VF
	before, mac := restoring(change.Wanted, change.Before), ""
	if change.Wanted.MAC != nil {
		mac = change.NetdevMAC
	}
	err := s.bring(ctx, before, mac)
	if err == nil {
		err = s.check(before, mac)
	}
	if errors.Is(err, netattach.ErrVFGone) {
		klog.FromContext(ctx).Info("There is nothing to restore on a VF that is gone", "device", s.device.Name, "reason", err.Error())
		return nil
	}
	return err
}

// wantedMAC is the address for the VF's netdev, "" to leave that alone: what goes
// to user space has none soon, and its driver there asks the PF for the address.
func (s *vfStep) wantedMAC() string {
	if s.device.VF.Wanted.MAC == nil || s.device.VFIO != nil {
		return ""
	}
	return *s.device.VF.Wanted.MAC
}

// bring sets what differs. The netdev follows its PF: a VF's driver is refused
// any address but the administrative one.
func (s *vfStep) bring(ctx context.Context, to netattach.VFSettings, mac string) error {
	vf := s.device.vf()
	now, err := s.vfs.VF(vf)
	if err != nil {
		return err
	}
	for _, change := range differences(now.Settings, to) {
		klog.FromContext(ctx).V(4).Info("Setting a VF", "device", s.device.Name, "setting", change)
		if err := s.vfs.SetVF(vf, change); err != nil {
			return err
		}
	}
	if mac != "" && now.NetdevMAC != "" && now.NetdevMAC != mac {
		return s.vfs.SetNetdevMAC(vf, mac)
	}
	return nil
}

// check reads back.
func (s *vfStep) check(want netattach.VFSettings, mac string) error {
	now, err := s.vfs.VF(s.device.vf())
	if err != nil {
		return err
	}
	if left := differences(now.Settings, want); len(left) > 0 {
		return fmt.Errorf("VF %s does not have what was set on it: its PF says %s, and not %s; somebody else sets it too, or the PF's driver pretends; look at `ip link show` for PF %s",
			s.device.NIC.Name, now.Settings, want, s.device.VF.PF)
	}
	if mac != "" && now.NetdevMAC != "" && now.NetdevMAC != mac {
		return fmt.Errorf("the netdev of VF %s has the address %s, and not %s, which was given to it; somebody else sets it too", s.device.NIC.Name, now.NetdevMAC, mac)
	}
	return nil
}

// vf identifies the device's VF.
func (d *Device) vf() netattach.VF {
	return netattach.VF{PF: d.VF.PF, Index: d.VF.Index, PCI: d.NIC.Placement.PCI}
}

// restoring is the part of before that wanted changes.
func restoring(wanted, before netattach.VFSettings) netattach.VFSettings {
	restored := netattach.VFSettings{
		MAC: ifSet(wanted.MAC, before.MAC), VLAN: ifSet(wanted.VLAN, before.VLAN), QoS: ifSet(wanted.QoS, before.QoS),
		SpoofCheck: ifSet(wanted.SpoofCheck, before.SpoofCheck), Trust: ifSet(wanted.Trust, before.Trust),
		MinTxRate: ifSet(wanted.MinTxRate, before.MinTxRate), MaxTxRate: ifSet(wanted.MaxTxRate, before.MaxTxRate),
		LinkState: ifSet(wanted.LinkState, before.LinkState),
	}
	if restored.VLAN != nil && *restored.VLAN != 0 { // without a VLAN there is no tag
		restored.VLANProtocol = before.VLANProtocol
	}
	return restored
}

func ifSet[T any](wanted, before *T) *T {
	if wanted == nil {
		return nil
	}
	return before
}

// differences are the requests that make now what it should be; what "to" leaves
// open stays. Rights come first and the link last, so that a VF has no link
// before it has everything else.
func differences(now, to netattach.VFSettings) []netattach.VFSettings {
	var requests []netattach.VFSettings
	if differs(now.SpoofCheck, to.SpoofCheck) {
		requests = append(requests, netattach.VFSettings{SpoofCheck: to.SpoofCheck})
	}
	if differs(now.Trust, to.Trust) {
		requests = append(requests, netattach.VFSettings{Trust: to.Trust})
	}
	if differs(now.VLAN, to.VLAN) || differs(now.QoS, to.QoS) || differs(now.VLANProtocol, to.VLANProtocol) {
		requests = append(requests, netattach.VFSettings{
			VLAN: either(to.VLAN, now.VLAN), QoS: either(to.QoS, now.QoS), VLANProtocol: either(to.VLANProtocol, now.VLANProtocol),
		})
	}
	if differs(now.MinTxRate, to.MinTxRate) || differs(now.MaxTxRate, to.MaxTxRate) {
		requests = append(requests, netattach.VFSettings{MinTxRate: either(to.MinTxRate, now.MinTxRate), MaxTxRate: either(to.MaxTxRate, now.MaxTxRate)})
	}
	if differs(now.MAC, to.MAC) {
		requests = append(requests, netattach.VFSettings{MAC: to.MAC})
	}
	if differs(now.LinkState, to.LinkState) {
		requests = append(requests, netattach.VFSettings{LinkState: to.LinkState})
	}
	return requests
}

func differs[T comparable](now, to *T) bool { return to != nil && (now == nil || *now != *to) }

func either[T any](first, otherwise *T) *T {
	if first != nil {
		return first
	}
	return otherwise
}
