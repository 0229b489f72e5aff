// What became of an intent: the name and addresses by which a pod knows a netdev.
// A CNI chain may have assigned them, so only the kernel knows.

package netattach

import "net/netip"

// DeviceState is a netdev in a pod as the kernel showed it when it had been attached.
type DeviceState struct {
	// Device is the allocation result's.
	Device string `json:"device"`
	// Interface is its name in the pod, MAC its hardware address there.
	Interface string `json:"interface"`
	MAC       string `json:"mac,omitempty"`
	// Addresses without the link-local ones, which the kernel makes itself.
	Addresses []netip.Prefix `json:"addresses,omitempty"`
}
