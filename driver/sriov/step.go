// Package sriov sets up SR-IOV VFs by way of their PFs, and restores what was.
//
// What is set and what is restored follows from what was wanted, what was before
// and what the PF says now. So an attempt that was cut off after any request is
// completed, or taken back, by the next one, whoever makes it.
package sriov

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

// StepConfig says what is set on which VF. All fields but those said to be
// optional must be set.
type StepConfig struct {
	// Name of the VF for logs and errors.
	Name string
	VF   netattach.VF
	// Wanted has the settings to make, Before all settings as they were. Settings
	// that Before does not tell cannot be restored.
	Wanted, Before netattach.VFSettings
	// NetdevMAC is the address that the VF's netdev had, "" if it had none.
	NetdevMAC string
	// UserSpace: the VF is about to be given to user space. Its netdev keeps its
	// address: it is about to go, and the driver in user space asks the PF for one. Optional.
	UserSpace bool
	// OtherBoot: all that was before another boot, which no setting survives. Optional.
	OtherBoot bool
	VFs       VFs
}

// Step is one VF that is set up. It is idempotent in both directions.
type Step struct{ cfg StepConfig }

// NewStep returns a Step that has done nothing yet.
func NewStep(cfg StepConfig) *Step { return &Step{cfg: cfg} }

// Name for logs and errors.
func (s *Step) Name() string { return "set up VF " + s.cfg.Name }

// Kind by which timings are counted.
func (s *Step) Kind() string { return "vf-settings" }

// Do makes the settings that are not there yet.
func (s *Step) Do(ctx context.Context) error {
	return s.bring(ctx, s.cfg.Wanted, s.wantedMAC())
}

// Verify reads back.
func (s *Step) Verify(context.Context) error { return s.check(s.cfg.Wanted, s.wantedMAC()) }

// Undo restores the settings that were wanted, and no others. It takes a VF that
// is gone for restored: its PF makes new ones with its driver's defaults.
func (s *Step) Undo(ctx context.Context) error {
	if s.cfg.OtherBoot {
		return nil
	}
	before, mac := restoring(s.cfg.Wanted, s.cfg.Before), ""
	if s.cfg.Wanted.MAC != nil {
		mac = s.cfg.NetdevMAC
	}
	err := s.bring(ctx, before, mac)
	if err == nil {
		err = s.check(before, mac)
	}
	if errors.Is(err, netattach.ErrVFGone) {
		klog.FromContext(ctx).Info("There is nothing to restore on a VF that is gone", "device", s.cfg.Name, "reason", err.Error())
		return nil
	}
	return err
}

// wantedMAC is the address for the VF's netdev, "" to leave that alone.
func (s *Step) wantedMAC() string {
	if s.cfg.Wanted.MAC == nil || s.cfg.UserSpace {
		return ""
	}
	return *s.cfg.Wanted.MAC
}

// bring sets what differs. The netdev follows its PF: a VF's driver is refused
// any address but the administrative one.
func (s *Step) bring(ctx context.Context, to netattach.VFSettings, mac string) error {
	now, err := s.cfg.VFs.VF(s.cfg.VF)
	if err != nil {
		return err
	}
	for _, change := range differences(now.Settings, to) {
		klog.FromContext(ctx).V(4).Info("Setting a VF", "device", s.cfg.Name, "setting", change.String())
		if err := s.cfg.VFs.SetVF(s.cfg.VF, change); err != nil {
			return err
		}
	}
	if mac != "" && now.NetdevMAC != "" && now.NetdevMAC != mac {
		return s.cfg.VFs.SetNetdevMAC(s.cfg.VF, mac)
	}
	return nil
}

func (s *Step) check(want netattach.VFSettings, mac string) error {
	now, err := s.cfg.VFs.VF(s.cfg.VF)
	if err != nil {
		return err
	}
	if left := differences(now.Settings, want); len(left) > 0 {
		return fmt.Errorf("VF %s does not have what was set on it: its PF says %q and not %q; somebody else sets it too, or the PF's driver pretends; look at `ip link show` for PF %s",
			s.cfg.Name, now.Settings, want, s.cfg.VF.PF)
	}
	if mac != "" && now.NetdevMAC != "" && now.NetdevMAC != mac {
		return fmt.Errorf("the netdev of VF %s has the address %s and not %s, which it was given; somebody else sets it too", s.cfg.Name, now.NetdevMAC, mac)
	}
	return nil
}
