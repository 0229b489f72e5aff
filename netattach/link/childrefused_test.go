package link

// Children that cannot be: the error says why, and nothing is left behind.

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/hostler-dev/hostler/netattach"
)

func TestChildIsRefusedWithReason(t *testing.T) {
	for name, test := range map[string]struct {
		spoil func(t *testing.T, m *sharedMachine, device *netattach.DeviceIntent)
		says  string
	}{
		"of a NIC that is down": {func(t *testing.T, m *sharedMachine, _ *netattach.DeviceIntent) {
			if err := m.host.Handle.LinkSetDown(m.host.Link(t, "rail0")); err != nil {
				t.Fatal(err)
			}
		}, "ip link set rail0 up"},
		"with longer packets than the NIC's": {func(_ *testing.T, _ *sharedMachine, device *netattach.DeviceIntent) { device.MTU = 9000 },
			"an MTU of 9000 is more than that of rail0 on the node, 1500"},
		"in a mode that is none": {func(_ *testing.T, _ *sharedMachine, device *netattach.DeviceIntent) { device.Child.Mode = "passthru" },
			`makes no macvlan in mode "passthru"`},
		"of a NIC that is gone": {func(t *testing.T, m *sharedMachine, _ *netattach.DeviceIntent) {
			if err := m.host.Handle.LinkDel(m.host.Link(t, "rail0")); err != nil {
				t.Fatal(err)
			}
		}, "check that the device is present"},
		"of a NIC that was replaced under the pod": {func(_ *testing.T, _ *sharedMachine, device *netattach.DeviceIntent) { device.Child.ParentIndex += 7 },
			"delete the pod"},
		"under a name that the pod has": {func(_ *testing.T, _ *sharedMachine, device *netattach.DeviceIntent) { device.PodName = "lo" },
			"the pod has an interface lo already"},
		"of a NIC that is in a bridge": {func(t *testing.T, m *sharedMachine, _ *netattach.DeviceIntent) {
			bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "outer"}}
			if err := m.host.Handle.LinkAdd(bridge); err != nil {
				t.Fatal(err)
			}
			if err := m.host.Handle.LinkSetMaster(m.host.Link(t, "rail0"), m.host.Link(t, "outer")); err != nil {
				t.Fatal(err)
			}
		}, "nor children while it is in a bridge or bond"},
	} {
		t.Run(name, func(t *testing.T) {
			m := newSharedMachine(t)
			device := m.share(t, "share-1", "net1", "10.1.0.5/24")
			test.spoil(t, m, &device)
			m.before = m.hostState(t)
			if _, err := m.links.Into(context.Background(), m.pod.FD, device); err == nil || !strings.Contains(err.Error(), test.says) {
				t.Errorf("%v; want an error that says %q", err, test.says)
			}
			if left := linkNames(t, m.pod); !slices.Equal(left, []string{"lo"}) {
				t.Errorf("the pod has %v", left)
			}
			m.asItWas(t)
		})
	}
}
