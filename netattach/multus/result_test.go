package multus

import (
	"net"
	"net/netip"
	"slices"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/hostler-dev/hostler/netattach"
)

// Every address of a result goes to the interface that it is of, and what is on the node
// is left out, whatever else is in there.
func TestStateHasEachInterfaceWithItsAddresses(t *testing.T) {
	a := attachment(t)
	rapid.Check(t, func(t *rapid.T) {
		result := &current.Result{CNIVersion: "1.0.0"}
		want := map[string][]netip.Prefix{}
		for _, name := range rapid.Permutation([]string{"net1", "other", "veth0"}).Draw(t, "order") {
			one := &current.Interface{Name: name, Mac: "02:00:00:00:00:0A", Sandbox: "/ns"}
			if name == "veth0" {
				one.Sandbox = ""
			} else {
				want[name] = nil
			}
			result.Interfaces = append(result.Interfaces, one)
		}
		for i := range rapid.IntRange(0, 6).Draw(t, "addresses") {
			prefix := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}), 24)
			ip := &current.IPConfig{Address: ipNet(prefix)}
			name := "net1"
			if owner := rapid.IntRange(-1, 3).Draw(t, "owner"); owner >= 0 {
				ip.Interface, name = &owner, ""
				if owner < len(result.Interfaces) {
					name = result.Interfaces[owner].Name
				}
			}
			if _, inPod := want[name]; inPod {
				want[name] = append(want[name], prefix)
			}
			result.IPs = append(result.IPs, ip)
		}
		state, err := a.state(result)
		if err != nil {
			t.Fatal(err)
		}
		got := map[string][]netip.Prefix{}
		for _, one := range state.Interfaces {
			got[one.Name] = one.Addresses
			if one.MAC != "02:00:00:00:00:0a" {
				t.Errorf("%s has MAC address %q", one.Name, one.MAC)
			}
		}
		if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b []netip.Prefix) bool { return slices.Equal(a, b) })); diff != "" {
			t.Errorf("of %v (-want +got):\n%s", result, diff)
		}
		if state.Interfaces[0].Name != "net1" {
			t.Errorf("the interface that the chain was run for is not the first of %v", state.Interfaces)
		}
	})
}

func ipNet(prefix netip.Prefix) net.IPNet {
	return net.IPNet{IP: prefix.Addr().AsSlice(), Mask: net.CIDRMask(prefix.Bits(), prefix.Addr().BitLen())}
}

func TestOddResults(t *testing.T) {
	address := netip.MustParsePrefix("10.9.0.4/24")
	nowhere := 7
	for name, test := range map[string]struct {
		result types.Result
		want   netattach.NetworkState
	}{
		"none at all":                   {nil, netattach.NetworkState{}},
		"an empty one promises nothing": {&current.Result{CNIVersion: "1.0.0"}, netattach.NetworkState{}},
		"addresses alone are those of the interface that was asked for": {&current.Result{CNIVersion: "1.0.0", IPs: []*current.IPConfig{{Address: ipNet(address)}, nil}},
			netattach.NetworkState{Interfaces: []netattach.InterfaceState{{Name: "net1", Addresses: []netip.Prefix{address}}}}},
		"an address of an interface that is not listed is nobody's": {&current.Result{CNIVersion: "1.0.0", IPs: []*current.IPConfig{{Address: ipNet(address), Interface: &nowhere}}}, netattach.NetworkState{}},
		"one address twice":                    {&current.Result{CNIVersion: "1.0.0", IPs: []*current.IPConfig{{Address: ipNet(address)}, {Address: ipNet(address)}}}, netattach.NetworkState{Interfaces: []netattach.InterfaceState{{Name: "net1", Addresses: []netip.Prefix{address}}}}},
		"an address without a prefix's length": {&current.Result{CNIVersion: "1.0.0", IPs: []*current.IPConfig{{Address: net.IPNet{}}}}, netattach.NetworkState{}},
		"name servers, domains and options": {&current.Result{CNIVersion: "1.0.0", DNS: types.DNS{Nameservers: []string{"192.0.2.53"}, Domain: "rail.example", Search: []string{"a.example"}, Options: []string{"ndots:2"}}},
			netattach.NetworkState{DNS: &netattach.NetworkDNS{NameServers: []string{"192.0.2.53"}, Domain: "rail.example", Search: []string{"a.example"}, Options: []string{"ndots:2"}}}},
	} {
		t.Run(name, func(t *testing.T) {
			test.want.Namespace, test.want.Name = "ns", "net"
			state, err := attachment(t).state(test.result)
			if diff := cmp.Diff(test.want, state, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); err != nil || diff != "" {
				t.Errorf("%v (-want +got):\n%s", err, diff)
			}
		})
	}
}
