package claim

// PFs that keep what is set on their VFs, as igb does: a VF's netdev can have any
// address until an administrative one is set, and only that afterwards.

import (
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/hostler-dev/hostler/netattach"
)

// The VFs of package machine's PF 0000:1d:00.0.
var (
	vf0 = netattach.VF{PF: "0000:1d:00.0", Index: 0, PCI: "0000:1d:00.1"}
	vf1 = netattach.VF{PF: "0000:1d:00.0", Index: 1, PCI: "0000:1d:00.2"}
)

type tableVF struct {
	netattach.VFState
	// Pinned: an administrative address is set.
	Pinned bool
}

// vfTable implements VFs.
type vfTable struct {
	mu  sync.Mutex
	vfs map[netattach.VF]*tableVF
	// refuse is what the driver answers to a setting, by VFSettings.String.
	refuse map[string]error
	// fail is what every question is answered with.
	fail error
	// interrupt, if set, is called before and after each request.
	interrupt func(moment string) error
	requests  int
}

// newVFTable has both VFs as an administrator left them.
func newVFTable() *vfTable {
	table := &vfTable{vfs: map[netattach.VF]*tableVF{}, refuse: map[string]error{}}
	for vf, last := range map[netattach.VF]int{vf0: 4, vf1: 5} {
		mac := fmt.Sprintf("02:00:00:00:00:%02d", last)
		table.vfs[vf] = &tableVF{VFState: netattach.VFState{NetdevMAC: mac, Settings: netattach.VFSettings{
			MAC: new("00:00:00:00:00:00"), VLAN: new(7), QoS: new(1), VLANProtocol: new("802.1Q"), SpoofCheck: new(true), Trust: new(false),
			MinTxRate: new(0), MaxTxRate: new(0), LinkState: new("auto"),
		}}}
	}
	return table
}

// as is a copy of what the table has of a VF.
func (v *vfTable) as(vf netattach.VF) tableVF {
	v.mu.Lock()
	defer v.mu.Unlock()
	return *v.vfs[vf]
}

func (v *vfTable) VF(vf netattach.VF) (netattach.VFState, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.fail != nil {
		return netattach.VFState{}, v.fail
	}
	if v.vfs[vf] == nil {
		return netattach.VFState{}, fmt.Errorf("VF %d of %s: %w", vf.Index, vf.PF, netattach.ErrVFGone)
	}
	return v.vfs[vf].VFState, nil
}

func (v *vfTable) SetVF(vf netattach.VF, setting netattach.VFSettings) error {
	return v.request(setting.String(), func() error {
		if (setting.VLAN == nil) != (setting.QoS == nil) || (setting.MinTxRate == nil) != (setting.MaxTxRate == nil) {
			return errors.New("half a setting")
		}
		if v.vfs[vf] == nil {
			return netattach.ErrVFGone
		}
		if err := v.refuse[setting.String()]; err != nil {
			return err
		}
		to := v.vfs[vf]
		to.Settings = settled(to.Settings, setting)
		if setting.MAC != nil {
			to.Pinned = *setting.MAC != "00:00:00:00:00:00"
		}
		return nil
	})
}

func (v *vfTable) SetNetdevMAC(vf netattach.VF, mac string) error {
	return v.request("netdev "+mac, func() error {
		if to := v.vfs[vf]; to.Pinned && *to.Settings.MAC != mac {
			return fmt.Errorf("give the netdev of VF %d the address %s: %w", vf.Index, mac, unix.EADDRNOTAVAIL)
		}
		v.vfs[vf].NetdevMAC = mac
		return nil
	})
}

func (v *vfTable) request(words string, do func() error) error {
	pass := func(moment string) error {
		if v.interrupt == nil {
			return nil
		}
		return v.interrupt(moment)
	}
	if err := pass("before " + words); err != nil {
		return err
	}
	v.mu.Lock()
	v.requests++
	err := do()
	v.mu.Unlock()
	return errors.Join(err, pass("after "+words))
}

// settled is how a VF is after a setting.
func settled(now, to netattach.VFSettings) netattach.VFSettings {
	return netattach.VFSettings{
		MAC: either(to.MAC, now.MAC), VLAN: either(to.VLAN, now.VLAN), QoS: either(to.QoS, now.QoS), VLANProtocol: either(to.VLANProtocol, now.VLANProtocol),
		SpoofCheck: either(to.SpoofCheck, now.SpoofCheck), Trust: either(to.Trust, now.Trust),
		MinTxRate: either(to.MinTxRate, now.MinTxRate), MaxTxRate: either(to.MaxTxRate, now.MaxTxRate), LinkState: either(to.LinkState, now.LinkState),
	}
}
