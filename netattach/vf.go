// What an SR-IOV PF keeps of its VFs, in plain values: they go from a claim's
// config through the journal to the kernel and back.

package netattach

import (
	"errors"
	"fmt"
	"strings"
)

// ErrVFGone says that a VF is not on the machine any more: its PF was unplugged,
// or has fewer VFs or new ones. What was set on it is gone with it.
var ErrVFGone = errors.New("the VF is not on the machine any more")

// VF identifies a VF at its PF.
type VF struct {
	// PF is the PF's PCI address, Index the VF's number at it, PCI the VF's own address.
	PF    string
	Index int
	PCI   string
}

// VFState is how a VF is now.
type VFState struct {
	Settings VFSettings
	// NetdevMAC is the address of the VF's netdev, "" if none is on the host.
	NetdevMAC string
}

// VFSettings are those that the kernel keeps for a VF at its PF (rtnetlink,
// IFLA_VF_*). Nil means that the setting is not touched, or that the driver does not tell it.
type VFSettings struct {
	// MAC is the VF's administrative hardware address; all zero lets the VF choose.
	MAC *string `json:"mac,omitempty"`
	// VLAN is 0 (untagged) to 4094, QoS the priority 0 to 7 in its tag.
	VLAN *int `json:"vlan,omitempty"`
	QoS  *int `json:"qos,omitempty"`
	// VLANProtocol of the tag is "802.1Q" or "802.1ad". No claim sets it, but an
	// administrator's choice is restored together with the VLAN.
	VLANProtocol *string `json:"vlanProtocol,omitempty"`
	// SpoofCheck drops what the VF sends under another MAC; Trust lets it do
	// privileged things (promiscuous mode, its own MAC).
	SpoofCheck *bool `json:"spoofCheck,omitempty"`
	Trust      *bool `json:"trust,omitempty"`
	// MinTxRate and MaxTxRate are in Mbit/s; 0 is no limit.
	MinTxRate *int `json:"minTxRate,omitempty"`
	MaxTxRate *int `json:"maxTxRate,omitempty"`
	// LinkState is "auto" (the PF's), "enable" or "disable".
	LinkState *string `json:"linkState,omitempty"`
}

// String lists what is set in the words of a NICConfig.
func (s VFSettings) String() string {
	var words []string
	words = said(words, "mac", s.MAC)
	words = said(words, "vlan", s.VLAN)
	words = said(words, "vlanQoS", s.QoS)
	words = said(words, "VLAN protocol", s.VLANProtocol)
	words = said(words, "spoofCheck", s.SpoofCheck)
	words = said(words, "trust", s.Trust)
	words = said(words, "minTxRate", s.MinTxRate)
	words = said(words, "maxTxRate", s.MaxTxRate)
	words = said(words, "linkState", s.LinkState)
	return strings.Join(words, ", ")
}

func said[T any](words []string, name string, value *T) []string {
	if value == nil {
		return words
	}
	return append(words, fmt.Sprintf("%s %v", name, *value))
}
