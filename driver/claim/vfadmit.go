// How a VF is right before its claim's entry joins the journal: what unpreparing
// restores, and what the claim's own wishes are judged by.

package claim

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/hostler-dev/hostler/netattach"
	"github.com/hostler-dev/hostler/topology"
)

// admitVF reads what will have to be restored. The journal is asked before the
// PF: a claim that lets go of a VF restores it first and leaves the journal then.
func (a *Admission) admitVF(ctx context.Context, entry *Entry, device *Device) error {
	if a.VFs == nil {
		return errors.New("this agent runs without access to VFs")
	}
	for _, other := range a.Journal.Entries() {
		if other.ClaimUID == entry.ClaimUID {
			continue
		}
		if held := collision(entry, other); held != nil {
			return held
		}
	}
	if err := a.settled(ctx, device.NIC); err != nil {
		return err
	}
	state, err := a.VFs.VF(device.vf())
	if err != nil {
		return fmt.Errorf("read what has to be restored afterwards: %w", err)
	}
	change := device.VF
	change.Before, change.NetdevMAC = state.Settings, state.NetdevMAC
	if unknown := unknownOf(change.Wanted, change.Before); len(unknown) > 0 {
		return fmt.Errorf("the driver of its PF (%s) does not tell %s, so it could not be restored afterwards; leave it out of the NICConfig, or ask for NICs whose driver does", change.PF, strings.Join(unknown, ", "))
	}
	return change.judge()
}

// settled has a netdev be as it was before earlier claims when it is read how it is. One
// that is still on its way home from them is waited for.
func (a *Admission) settled(ctx context.Context, nic *topology.NIC) error {
	if a.Settled == nil || nic.Link == nil {
		return nil
	}
	settled, err := a.Settled(ctx, nic.Placement.PCI)
	if err == nil && !settled {
		err = fmt.Errorf("%w; the kubelet tries again", ErrNetdevAway)
	}
	return err
}

// unknownOf names the settings that are wanted and whose present value is not told.
func unknownOf(wanted, now netattach.VFSettings) []string {
	var names []string
	for _, setting := range []struct {
		name          string
		wanted, known bool
	}{
		{"mac", wanted.MAC != nil, now.MAC != nil},
		{"vlan", wanted.VLAN != nil, now.VLAN != nil},
		{"vlanQoS", wanted.QoS != nil, now.QoS != nil},
		{"spoofCheck", wanted.SpoofCheck != nil, now.SpoofCheck != nil},
		{"trust", wanted.Trust != nil, now.Trust != nil},
		{"minTxRate", wanted.MinTxRate != nil, now.MinTxRate != nil},
		{"maxTxRate", wanted.MaxTxRate != nil, now.MaxTxRate != nil},
		{"linkState", wanted.LinkState != nil, now.LinkState != nil},
	} {
		if setting.wanted && !setting.known {
			names = append(names, setting.name)
		}
	}
	return names
}

// judge refuses what a claim asks for beyond what the VF had, which somebody
// set on the node, and rates that contradict each other.
func (c *VFChange) judge() error {
	if asked, had := c.Asked.MaxTxRate, c.Before.MaxTxRate; asked != nil && had != nil && *had > 0 && (*asked == 0 || *asked > *had) {
		return fmt.Errorf("vf.maxTxRate is %d in the claim, but the VF is limited to %d Mbit/s, which a claim can lower and not raise; ask for no more, or the administrator for a DeviceClass that does", *asked, *had)
	}
	if asked, had := c.Asked.LinkState, c.Before.LinkState; asked != nil && had != nil && *had == "disable" && *asked != "disable" {
		return fmt.Errorf("vf.linkState is %s in the claim, but somebody has cut this VF off (link state disable), which only a DeviceClass can undo; delete the pod to have another NIC allocated", *asked)
	}
	least, most := cmp.Or(c.Wanted.MinTxRate, c.Before.MinTxRate), cmp.Or(c.Wanted.MaxTxRate, c.Before.MaxTxRate)
	if least != nil && most != nil && *most > 0 && *least > *most {
		return fmt.Errorf("vf: the VF would be guaranteed %d Mbit/s and limited to %d Mbit/s; set minTxRate and maxTxRate together, or change one", *least, *most)
	}
	return nil
}
