package claim

import (
	"testing"

	"github.com/hostler-dev/hostler/netattach"
)

// What the netdev of a VF had is known to who brings it home, should it come home after
// the VF was given back.
func TestIntentHasTheAddressThatAVFsNetdevHad(t *testing.T) {
	for name, test := range map[string]struct {
		wanted netattach.VFSettings
		want   string
	}{
		"the claim sets an address": {netattach.VFSettings{MAC: new("02:00:00:00:00:77")}, "02:00:00:00:00:04"},
		"it sets something else":    {netattach.VFSettings{VLAN: new(100)}, ""},
	} {
		entry := &Entry{Devices: []Device{{
			Network: &netattach.DeviceIntent{Device: "vf"},
			VF:      &VFChange{Wanted: test.wanted, NetdevMAC: "02:00:00:00:00:04"},
		}}}
		if got := entry.Intent().Devices[0].UnclaimedMAC; got != test.want || entry.Devices[0].Network.UnclaimedMAC != "" {
			t.Errorf("%s: %q, want %q", name, got, test.want)
		}
	}
}
