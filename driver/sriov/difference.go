package sriov

// How one set of settings is made another, in requests that the kernel takes one at a time.

import (
	"cmp"

	"github.com/hostler-dev/hostler/netattach"
)

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
			VLAN: cmp.Or(to.VLAN, now.VLAN), QoS: cmp.Or(to.QoS, now.QoS), VLANProtocol: cmp.Or(to.VLANProtocol, now.VLANProtocol),
		})
	}
	if differs(now.MinTxRate, to.MinTxRate) || differs(now.MaxTxRate, to.MaxTxRate) {
		requests = append(requests, netattach.VFSettings{MinTxRate: cmp.Or(to.MinTxRate, now.MinTxRate), MaxTxRate: cmp.Or(to.MaxTxRate, now.MaxTxRate)})
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
