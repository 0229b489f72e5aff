package claim

// How a netdev is known in its pod, in the words of the API: in the files that
// containers read and in the claim's status alike. The API limits lengths and
// numbers, and takes addresses in their canonical form only, each once.

import (
	"net/netip"
	"slices"
	"strings"

	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/utils/ptr"

	"github.com/hostler-dev/hostler/netattach"
)

// NetworkData says it of one netdev.
func NetworkData(state netattach.DeviceState) *resourceapi.NetworkDeviceData {
	known := &resourceapi.NetworkDeviceData{InterfaceName: state.Interface}
	if mac := strings.ToLower(state.MAC); len(mac) <= resourceapi.NetworkDeviceDataHardwareAddressMaxLength {
		known.HardwareAddress = mac
	}
	for _, address := range state.Addresses {
		address = netip.PrefixFrom(address.Addr().Unmap().WithZone(""), bitsOf(address))
		if text := address.String(); address.IsValid() && !slices.Contains(known.IPs, text) && len(known.IPs) < resourceapi.NetworkDeviceDataMaxIPs {
			known.IPs = append(known.IPs, text)
		}
	}
	return known
}

// bitsOf is the prefix's length once the address is an IPv4 address by itself.
func bitsOf(prefix netip.Prefix) int {
	if prefix.Addr().Is4In6() {
		return prefix.Bits() - 96
	}
	return prefix.Bits()
}

// Is reports whether the state is the device's: a shared NIC is in the claim, and
// in its pod, as often as it has shares.
func (d *Device) Is(state netattach.DeviceState) bool {
	return state.Device == d.Name && (state.Pool == "" || state.Pool == d.Pool) && ptr.Deref(state.ShareID, "") == ptr.Deref(d.ShareID, "")
}

// inOnePod is the only state that is the device's.
func (d *Device) inOnePod(states []netattach.DeviceState) (found netattach.DeviceState, one bool) {
	for _, state := range states {
		if !d.Is(state) {
			continue
		}
		if one {
			return netattach.DeviceState{}, false
		}
		found, one = state, true
	}
	return found, one
}
