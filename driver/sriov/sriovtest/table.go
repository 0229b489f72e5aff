// Package sriovtest has PFs for tests.
package sriovtest

// PFs that keep what is set on their VFs, as igb does: a VF's netdev can have any
// address until an administrative one is set, and only that afterwards.

import (
	"cmp"
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/hostler-dev/hostler/netattach"
)

// VF is one of the two VFs of the table's PF.
func VF(index int) netattach.VF {
	return netattach.VF{PF: "0000:1d:00.0", Index: index, PCI: fmt.Sprintf("0000:1d:00.%d", index+1)}
}

// State is how a VF is.
type State struct {
	netattach.VFState
	// Pinned: an administrative address is set.
	Pinned bool
}

// Table implements sriov.VFs. Its fields may be changed while nobody calls it.
type Table struct {
	mu sync.Mutex
	// VFs are those that there are.
	VFs map[netattach.VF]*State
	// Refuse is what the driver answers to a setting, by VFSettings.String.
	Refuse map[string]error
	// Fail, if set, is what every question is answered with.
	Fail error
	// Interrupt, if set, is called before and after each request.
	Interrupt func(moment string) error
	// Requests counts those that reached the driver.
	Requests int
}

// New returns a table of two VFs as an administrator left them.
func New() *Table {
	table := &Table{VFs: map[netattach.VF]*State{}, Refuse: map[string]error{}}
	for index, mac := range []string{"02:00:00:00:00:04", "02:00:00:00:00:05"} {
		table.VFs[VF(index)] = &State{VFState: netattach.VFState{NetdevMAC: mac, Settings: netattach.VFSettings{
			MAC: new("00:00:00:00:00:00"), VLAN: new(7), QoS: new(1), VLANProtocol: new("802.1Q"), SpoofCheck: new(true), Trust: new(false),
			MinTxRate: new(0), MaxTxRate: new(0), LinkState: new("auto"),
		}}}
	}
	return table
}

// State is a copy of what the table has of a VF.
func (v *Table) State(vf netattach.VF) State {
	v.mu.Lock()
	defer v.mu.Unlock()
	return *v.VFs[vf]
}

// VF implements sriov.VFs.
func (v *Table) VF(vf netattach.VF) (netattach.VFState, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.Fail != nil {
		return netattach.VFState{}, v.Fail
	}
	if v.VFs[vf] == nil {
		return netattach.VFState{}, fmt.Errorf("VF %d of %s: %w", vf.Index, vf.PF, netattach.ErrVFGone)
	}
	return v.VFs[vf].VFState, nil
}

// SetVF implements sriov.VFs.
func (v *Table) SetVF(vf netattach.VF, setting netattach.VFSettings) error {
	return v.request(setting.String(), func() error {
		if (setting.VLAN == nil) != (setting.QoS == nil) || (setting.MinTxRate == nil) != (setting.MaxTxRate == nil) {
			return errors.New("half a setting")
		}
		if v.VFs[vf] == nil {
			return netattach.ErrVFGone
		}
		if err := v.Refuse[setting.String()]; err != nil {
			return err
		}
		to := v.VFs[vf]
		to.Settings = Settled(to.Settings, setting)
		if setting.MAC != nil {
			to.Pinned = *setting.MAC != "00:00:00:00:00:00"
		}
		return nil
	})
}

// SetNetdevMAC implements sriov.VFs.
func (v *Table) SetNetdevMAC(vf netattach.VF, mac string) error {
	return v.request("netdev "+mac, func() error {
		if to := v.VFs[vf]; to.Pinned && *to.Settings.MAC != mac {
			return fmt.Errorf("give the netdev of VF %d the address %s: %w", vf.Index, mac, unix.EADDRNOTAVAIL)
		}
		v.VFs[vf].NetdevMAC = mac
		return nil
	})
}

func (v *Table) request(words string, do func() error) error {
	pass := func(moment string) error {
		if v.Interrupt == nil {
			return nil
		}
		return v.Interrupt(moment)
	}
	if err := pass("before " + words); err != nil {
		return err
	}
	v.mu.Lock()
	v.Requests++
	err := do()
	v.mu.Unlock()
	return errors.Join(err, pass("after "+words))
}

// Settled is how a VF is after a setting. Without a VLAN it has no tag, and the
// kernel says that it would be the usual one.
func Settled(now, to netattach.VFSettings) netattach.VFSettings {
	settled := netattach.VFSettings{
		MAC: cmp.Or(to.MAC, now.MAC), VLAN: cmp.Or(to.VLAN, now.VLAN), QoS: cmp.Or(to.QoS, now.QoS), VLANProtocol: cmp.Or(to.VLANProtocol, now.VLANProtocol),
		SpoofCheck: cmp.Or(to.SpoofCheck, now.SpoofCheck), Trust: cmp.Or(to.Trust, now.Trust),
		MinTxRate: cmp.Or(to.MinTxRate, now.MinTxRate), MaxTxRate: cmp.Or(to.MaxTxRate, now.MaxTxRate), LinkState: cmp.Or(to.LinkState, now.LinkState),
	}
	if settled.VLAN != nil && *settled.VLAN == 0 {
		settled.VLANProtocol = new("802.1Q")
	}
	return settled
}
