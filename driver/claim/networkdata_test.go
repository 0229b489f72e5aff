package claim

import (
	"fmt"
	"net/netip"
	"testing"

	"k8s.io/apimachinery/pkg/types"
	metadataapi "k8s.io/dynamic-resource-allocation/api/metadata"
	"k8s.io/utils/ptr"

	"github.com/hostler-dev/hostler/driver/metadata"
	"github.com/hostler-dev/hostler/netattach"
)

// What a request's file says of the interfaces of its devices, "-" for nothing.
func TestEachDeviceIsToldItsOwnInterface(t *testing.T) {
	device := func(request, pool, name string, share types.UID) Device {
		d := Device{Request: request, Pool: pool, Name: name}
		if share != "" {
			d.ShareID = ptr.To(share)
		}
		return d
	}
	state := func(pool, name string, share types.UID, called string) netattach.DeviceState {
		s := netattach.DeviceState{Pool: pool, Device: name, Interface: called}
		if share != "" {
			s.ShareID = ptr.To(share)
		}
		return s
	}
	for _, test := range []struct {
		name    string
		devices []Device
		states  []netattach.DeviceState
		want    []string
	}{
		{"a NIC in its pod", []Device{device("r", "p", "nic-0", "")}, []netattach.DeviceState{state("p", "nic-0", "", "net1")}, []string{"net1"}},
		{"by an earlier version of the agent, which kept no pools", []Device{device("r", "p", "nic-0", "")}, []netattach.DeviceState{state("", "nic-0", "", "net1")}, []string{"net1"}},
		{"one that is in none", []Device{device("r", "p", "nic-0", "")}, nil, []string{"-"}},
		{"two shares of one NIC", []Device{device("r", "p", "nic-0", "a"), device("r", "p", "nic-0", "b")},
			[]netattach.DeviceState{state("p", "nic-0", "b", "net2"), state("p", "nic-0", "a", "net1")}, []string{"net1", "net2"}},
		{"a device of the same name in another pool", []Device{device("r", "p", "nic-0", ""), device("r", "q", "nic-0", "")},
			[]netattach.DeviceState{state("q", "nic-0", "", "net2")}, []string{"-", "net2"}},
		{"a device of another request", []Device{device("other", "p", "nic-1", ""), device("r", "p", "nic-0", "")},
			[]netattach.DeviceState{state("p", "nic-1", "", "net2"), state("p", "nic-0", "", "net1")}, []string{"net1"}},
		{"an alternative of the request", []Device{device("r/fast", "p", "nic-0", "")}, []netattach.DeviceState{state("p", "nic-0", "", "net1")}, []string{"net1"}},
		{"a child in each of two pods", []Device{device("r", "p", "nic-0", "a")},
			[]netattach.DeviceState{state("p", "nic-0", "a", "net1"), state("p", "nic-0", "a", "net1")}, []string{"-"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			content := &metadata.Content{Requests: []metadataapi.DeviceMetadataRequest{{Name: "r"}}}
			for range test.want {
				content.Requests[0].Devices = append(content.Requests[0].Devices, metadataapi.Device{NetworkData: NetworkData(netattach.DeviceState{Interface: "of-before"})})
			}
			connect(content, &Entry{Devices: test.devices}, test.states)
			var got []string
			for _, d := range content.Requests[0].Devices {
				called := "-"
				if d.NetworkData != nil {
					called = d.NetworkData.InterfaceName
				}
				got = append(got, called)
			}
			if fmt.Sprint(got) != fmt.Sprint(test.want) {
				t.Errorf("told %v, want %v", got, test.want)
			}
		})
	}
}

func TestNetworkDataIsAsTheAPITakesIt(t *testing.T) {
	state := netattach.DeviceState{Interface: "net1", MAC: "02:AB:00:00:00:01", Addresses: []netip.Prefix{
		netip.MustParsePrefix("192.0.2.7/24"), netip.MustParsePrefix("::ffff:192.0.2.7/120"), netip.MustParsePrefix("2001:db8::7/64"),
	}}
	for i := range 30 {
		state.Addresses = append(state.Addresses, netip.PrefixFrom(netip.AddrFrom4([4]byte{198, 51, 100, byte(i)}), 32))
	}
	got := NetworkData(state)
	if got.HardwareAddress != "02:ab:00:00:00:01" || len(got.IPs) != 16 || got.IPs[0] != "192.0.2.7/24" || got.IPs[1] != "2001:db8::7/64" {
		t.Errorf("%+v", got)
	}
}
