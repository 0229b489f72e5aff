package link

// Routes and rules are in the kernel as the claim says them, field by field: what is
// accepted and not done looks the same to a claim's author as what is done.

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/hostler-dev/hostler/netattach"
)

func TestRoutesAndRulesAreAsTheClaimSaysThem(t *testing.T) {
	m := newMachine(t)
	before := m.pod.Snapshot(t)
	m.device.Routes = []netattach.Route{
		{Destination: prefix("10.2.0.0/16")},
		{Destination: prefix("10.3.0.0/16"), Global: true},
		{Destination: prefix("10.4.0.0/16"), Gateway: addr("192.0.2.1"), OnLink: true, Source: addr("10.1.0.5"), Table: 100, Metric: 9},
		{Destination: prefix("2001:db8:4::/48"), Gateway: addr("2001:db8:9::1"), Source: addr("2001:db8:9::5"), Table: 70000, Metric: 8},
	}
	m.device.Rules = []netattach.Rule{
		{Priority: 1001, Source: prefix("10.1.0.5/32"), Table: 100},
		{Priority: 1002, Destination: prefix("10.4.0.0/16"), Table: 101},
		{Priority: 1003, Source: prefix("2001:db8:9::/64"), Destination: prefix("2001:db8:4::/48"), Table: 70000},
	}
	m.attach(t)
	var routes, rules []string
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		every := &netlink.Route{LinkIndex: m.device.PodIndex, Table: unix.RT_TABLE_UNSPEC}
		list, err := m.pod.Handle.RouteListFiltered(family, every, netlink.RT_FILTER_OIF|netlink.RT_FILTER_TABLE)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range list {
			if r.Protocol != unix.RTPROT_KERNEL { // those of the addresses
				routes = append(routes, fmt.Sprintf("%s via %v onlink %t src %v scope %s table %d metric %d", r.Dst, r.Gw, r.Flags&int(netlink.FLAG_ONLINK) != 0, r.Src, r.Scope, r.Table, r.Priority))
			}
		}
		all, err := m.pod.Handle.RuleList(family)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range all {
			if r.Priority > 1000 && r.Priority < 2000 {
				rules = append(rules, fmt.Sprintf("%d from %v to %v table %d", r.Priority, r.Src, r.Dst, r.Table))
			}
		}
	}
	slices.Sort(routes)
	if diff := cmp.Diff([]string{
		"10.2.0.0/16 via <nil> onlink false src <nil> scope link table 254 metric 0",
		"10.3.0.0/16 via <nil> onlink false src <nil> scope universe table 254 metric 0",
		"10.4.0.0/16 via 192.0.2.1 onlink true src 10.1.0.5 scope universe table 100 metric 9",
		"2001:db8:4::/48 via 2001:db8:9::1 onlink false src 2001:db8:9::5 scope universe table 70000 metric 8",
	}, routes); diff != "" {
		t.Errorf("routes (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{
		"1001 from 10.1.0.5/32 to <nil> table 100",
		"1002 from <nil> to 10.4.0.0/16 table 101",
		"1003 from 2001:db8:9::/64 to 2001:db8:4::/48 table 70000",
	}, rules); diff != "" {
		t.Errorf("rules (-want +got):\n%s", diff)
	}
	m.home(t)
	m.pod.Same(t, "without its device,", before)
}
