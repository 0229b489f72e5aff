package link

// What a claim asks for in the pod, seen by the pod's own traffic where that shows it.

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/safchain/ethtool"
	"github.com/vishvananda/netlink"

	"github.com/hostler-dev/hostler/netattach"
	"github.com/hostler-dev/hostler/netattach/internal/nettest"
)

func prefix(text string) netip.Prefix { return netip.MustParsePrefix(text) }
func addr(text string) netip.Addr     { return netip.MustParseAddr(text) }

// dial from the pod, by that source address or by what the kernel chooses, "". It
// returns the source that was used.
func (m *machine) dial(t *testing.T, source, to string) (from string, err error) {
	t.Helper()
	m.pod.Do(t, func() {
		dialer := net.Dialer{Timeout: 5 * time.Second}
		if source != "" {
			dialer.LocalAddr = &net.TCPAddr{IP: net.ParseIP(source)}
		}
		var conn net.Conn
		if conn, err = dialer.Dial("tcp", to); err == nil {
			from, _, _ = net.SplitHostPort(conn.LocalAddr().String())
			conn.Close()
		}
	})
	return from, err
}

// withCluster gives the pod eth0, which leads to a cluster network that answers
// on port 81 to everything, as the peer behind rail0 does on port 80.
func (m *machine) withCluster(t *testing.T) {
	t.Helper()
	cluster := nettest.New(t)
	nettest.Join(t, m.pod, "eth0", cluster, "gateway")
	cluster.Up(t, "gateway", "10.9.0.1/24", "2001:db8:c::1/64")
	m.pod.Up(t, "eth0", "10.9.0.5/24", "2001:db8:c::5/64")
	m.pod.Route(t, "0.0.0.0/0", "10.9.0.1")
	m.pod.Route(t, "::/0", "2001:db8:c::1")
	for n, port := range map[*nettest.Namespace]int{cluster: 81, m.peer: 80} {
		n.ServeTCP(t, port)
		n.Answer(t, "203.0.113.0/24")
		n.Answer(t, "2001:db8:99::/48")
	}
}

func TestPodIsGivenWhatItsClaimAsksFor(t *testing.T) {
	m := newMachine(t)
	m.furnish(t)
	m.demanding()
	m.remember(t)
	m.device.Routes = nil
	m.attach(t)
	link := m.pod.Link(t, "net1").Attrs()
	if link.HardwareAddr.String() != "02:00:5e:10:00:01" || link.MTU != 1400 {
		t.Errorf("net1 has the address %s and MTU %d", link.HardwareAddr, link.MTU)
	}
	for setting, want := range map[string]string{
		"net/ipv4/conf/net1/arp_ignore": "1", "net/ipv6/conf/net1/accept_ra": "2", "net/ipv4/neigh/net1/gc_stale_time": "33",
		"net/ipv4/conf/net1/rp_filter": "0", // the host's is not the pod's
	} {
		if got := m.pod.ReadSysctl(t, setting); got != want {
			t.Errorf("%s is %s, want %s", setting, got, want)
		}
	}
	m.pod.Ethtool(t, func(tool *ethtool.Ethtool) error {
		features, err := tool.Features("net1")
		if features["tx-scatter-gather"] || !features["rx-gro"] || !features["tx-checksum-ip-generic"] {
			t.Errorf("features: %v", features)
		}
		return err
	})
	neighbours, err := m.pod.Handle.NeighList(link.Index, netlink.FAMILY_V4)
	if err != nil || len(neighbours) != 1 || neighbours[0].HardwareAddr.String() != "02:00:00:00:00:88" || neighbours[0].State != netlink.NUD_PERMANENT {
		t.Errorf("neighbours %v, %v", neighbours, err)
	}
}

// The cluster's network stays the pod's way out; what comes from the NIC's address
// leaves by the NIC, in both families.
func TestPolicyRoutingSendsByTheSource(t *testing.T) {
	m := newMachine(t)
	m.withCluster(t)
	before := m.pod.Snapshot(t)
	m.device.Routes = []netattach.Route{
		{Destination: prefix("0.0.0.0/0"), Gateway: addr("10.1.0.1"), Table: 100},
		{Destination: prefix("::/0"), Gateway: addr("2001:db8:9::1"), Table: 70000},
	}
	m.device.Rules = []netattach.Rule{
		{Priority: 1000, Source: prefix("10.1.0.5/32"), Table: 100},
		{Priority: 1000, Source: prefix("2001:db8:9::5/128"), Table: 70000},
	}
	m.attach(t)
	for _, test := range []struct{ source, to, from string }{
		{"", "203.0.113.1:81", "10.9.0.5"},
		{"10.1.0.5", "203.0.113.1:80", "10.1.0.5"},
		{"", "[2001:db8:99::1]:81", "2001:db8:c::5"},
		{"2001:db8:9::5", "[2001:db8:99::1]:80", "2001:db8:9::5"},
	} {
		if from, err := m.dial(t, test.source, test.to); err != nil || from != test.from {
			t.Errorf("from %q to %s: went from %q, %v", test.source, test.to, from, err)
		}
	}
	if _, err := m.dial(t, "10.1.0.5", "203.0.113.1:81"); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("from the NIC's address to the cluster's network: %v", err)
	}
	m.home(t)
	m.pod.Same(t, "without its device,", before)
}

// An IPv4 route is preferred to the cluster's to the same destination, which is
// there again when the NIC has gone.
func TestRouteOfTheNICIsPreferredToTheClusters(t *testing.T) {
	m := newMachine(t)
	m.withCluster(t)
	before := m.pod.Snapshot(t)
	m.device.Routes = []netattach.Route{
		{Destination: prefix("0.0.0.0/0"), Gateway: addr("10.1.0.1"), Source: addr("10.1.0.5")},
		{Destination: prefix("::/0"), Gateway: addr("2001:db8:9::1"), Source: addr("2001:db8:9::5"), Metric: 512},
	}
	for range 2 {
		m.attach(t)
		for to, want := range map[string]string{"203.0.113.1:80": "10.1.0.5", "[2001:db8:99::1]:80": "2001:db8:9::5"} {
			if from, err := m.dial(t, "", to); err != nil || from != want {
				t.Errorf("to %s: went from %q, %v", to, from, err)
			}
		}
		m.home(t)
		m.device.PodIndex = 0
		m.pod.Same(t, "without its device,", before)
	}
}

// Runtimes turn IPv6 off in pods of clusters without it, which would cost a NIC
// its IPv6 address and RoCE its GID.
func TestIPv6IsOnWhereTheClaimWantsIt(t *testing.T) {
	m := newMachine(t)
	m.peer.ServeTCP(t, 80)
	m.pod.Sysctl(t, "net/ipv6/conf/all/disable_ipv6", "1")
	m.attach(t)
	if _, err := m.dial(t, "", "[2001:db8:9::1]:80"); err != nil {
		t.Error(err)
	}
	m.home(t)

	m.device.PodIndex = 0
	m.device.Addresses, m.device.Routes = m.device.Addresses[:1], nil
	m.attach(t)
	if got := m.pod.ReadSysctl(t, "net/ipv6/conf/net1/disable_ipv6"); got != "1" {
		t.Errorf("disable_ipv6 is %s for a claim that wants no IPv6", got)
	}
	m.home(t)
}

// A connection of the pod does not notice that its device is attached again.
func TestRepeatDisturbsNobody(t *testing.T) {
	m := newMachine(t)
	m.demanding()
	m.attach(t)
	events, done := make(chan netlink.LinkUpdate, 64), make(chan struct{})
	defer close(done)
	m.pod.Do(t, func() {
		if err := netlink.LinkSubscribe(events, done); err != nil {
			t.Fatal(err)
		}
	})
	// What is told before a mark of ours was told of what happened before it.
	until := func(mark string) (told []netlink.LinkUpdate) {
		t.Helper()
		if err := m.pod.Handle.LinkSetAlias(m.pod.Link(t, "lo"), mark); err != nil {
			t.Fatal(err)
		}
		for event := range events {
			if attrs := event.Attrs(); attrs.Alias == mark {
				return told
			} else if attrs.Name == "net1" {
				told = append(told, event)
			}
		}
		t.Fatal("the kernel tells of links no more")
		return nil
	}
	// The kernel tells in its own time that a link has come up.
	for m.pod.Link(t, "net1").Attrs().OperState != netlink.OperUp {
		time.Sleep(time.Millisecond)
	}
	until("first")
	before := m.pod.Snapshot(t)
	m.attachAgain(t)
	for _, event := range until("second") {
		t.Errorf("the link changed: %+v", event.Attrs())
	}
	until("first") // as it was
	m.pod.Same(t, "attached again,", before)
	m.home(t)
}

func (m *machine) attachAgain(t *testing.T) {
	t.Helper()
	if _, err := m.links.Into(context.Background(), m.pod.FD, m.device); err != nil {
		t.Fatal(err)
	}
	if err := m.links.Up(context.Background(), m.pod.FD, m.device); err != nil {
		t.Fatal(err)
	}
}

func TestWhatCannotBeGivenIsNamedAndUndone(t *testing.T) {
	for name, test := range map[string]struct {
		change func(t *testing.T, m *machine)
		says   []string
	}{
		"an address of hardware that is a group's": {func(_ *testing.T, m *machine) { m.device.HardwareAddress = "01:00:5e:10:00:01" },
			[]string{"hardware address 01:00:5e:10:00:01", "cannot assign requested address"}},
		"an MTU": {func(_ *testing.T, m *machine) { m.device.MTU = 65536 }, []string{"MTU 65536", "greater than device maximum"}},
		"a sysctl that this kernel does not have": {func(_ *testing.T, m *machine) {
			m.device.Sysctls = map[string]string{"net/ipv4/conf/IFNAME/arp_mood": "1"}
		}, []string{`sysctl net/ipv4/conf/net1/arp_mood cannot be "1"`, "does not have it"}},
		"a value that a sysctl does not take": {func(_ *testing.T, m *machine) {
			m.device.Sysctls = map[string]string{"net/ipv4/conf/IFNAME/arp_ignore": "much"}
		}, []string{`sysctl net/ipv4/conf/net1/arp_ignore cannot be set to "much" (it is "0")`, "invalid argument"}},
		"a value that a sysctl changes": {func(_ *testing.T, m *machine) {
			m.device.Sysctls = map[string]string{"net/ipv4/neigh/IFNAME/unres_qlen": "-0"}
		}, []string{"net1/unres_qlen", "after it was set"}},
		"a sysctl of another kind": {func(_ *testing.T, m *machine) {
			m.device.Sysctls = map[string]string{"net/ipv4/conf/IFNAME/../all/forwarding": "1"}
		}, []string{"sysctl net/ipv4/conf/IFNAME/../all/forwarding is none of an interface"}},
		"IPv6 that it turns off itself": {func(_ *testing.T, m *machine) {
			m.device.Sysctls = map[string]string{"net/ipv6/conf/IFNAME/disable_ipv6": "1"}
		}, []string{"disable_ipv6 turns off what the IPv6 addresses"}},
		"a feature that no driver has": {func(_ *testing.T, m *machine) { m.device.Features = map[string]bool{"tx-magic": true} },
			[]string{`rail0 has no feature "tx-magic"`, "ethtool --show-features rail0"}},
		"a feature that this driver has fixed": {func(_ *testing.T, m *machine) { m.device.Features = map[string]bool{"hw-tc-offload": true} },
			[]string{"feature hw-tc-offload of net1 stays off", "does not let it be switched"}},
		"a private flag of a driver without any": {func(_ *testing.T, m *machine) { m.device.PrivateFlags = map[string]bool{"fast": true} },
			[]string{`rail0 has no private flag "fast"`}},
		"a neighbour whose address is a group's": {func(_ *testing.T, m *machine) {
			m.device.Neighbours = []netattach.Neighbour{{Address: addr("10.1.0.9"), HardwareAddress: "02:00"}}
		}, []string{"neighbour 10.1.0.9 at 02:00"}},
		"a gateway that nothing leads to": {func(_ *testing.T, m *machine) {
			m.device.Routes = []netattach.Route{{Destination: prefix("203.0.113.0/24"), Gateway: addr("172.16.0.1")}}
		}, []string{"route 203.0.113.0/24 via 172.16.0.1 table 254", "network is unreachable: Nexthop has invalid gateway", "or the route onLink"}},
		"a source that is nobody's": {func(_ *testing.T, m *machine) {
			m.device.Routes = []netattach.Route{{Destination: prefix("203.0.113.0/24"), Source: addr("10.1.0.99")}}
		}, []string{"route 203.0.113.0/24 src 10.1.0.99", "invalid argument", "must be an address of the interface"}},
		"an IPv6 route that the cluster has": {func(t *testing.T, m *machine) {
			m.withCluster(t)
			m.device.Routes = []netattach.Route{{Destination: prefix("::/0"), Gateway: addr("2001:db8:9::1")}}
		}, []string{"table 254 has another route to ::/0 with metric 1024", "give this one another metric"}},
		"a rule whose priority is taken": {func(t *testing.T, m *machine) {
			rule := netlink.NewRule()
			rule.Priority, rule.Table, rule.Src = 1000, 9, ipNet(prefix("10.9.0.0/24"))
			if err := m.pod.Handle.RuleAdd(rule); err != nil {
				t.Fatal(err)
			}
			m.device.Rules = []netattach.Rule{{Priority: 1000, Source: prefix("10.1.0.5/32"), Table: 100}}
		}, []string{"routing rule 1000: from 10.1.0.5/32 lookup 100: the pod has another of this priority already", "10.9.0.0/24"}},
	} {
		t.Run(name, func(t *testing.T) {
			m, ctx := newMachine(t), context.Background()
			test.change(t, m)
			host, pod := m.host.Snapshot(t), m.pod.Snapshot(t)
			device, err := m.links.Remember(m.device)
			if err == nil {
				m.device = device
				m.device.PodIndex, err = m.links.Into(ctx, m.pod.FD, m.device)
			}
			if err == nil {
				if err = m.links.Up(ctx, m.pod.FD, m.device); err != nil {
					_, undone := m.links.Home(ctx, m.pod.FD, m.device)
					if undone != nil {
						t.Error(undone)
					}
				}
			}
			for _, want := range append(test.says, "(nic-0000-18-00-0)") {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("%v; want it to say %q", err, want)
				}
			}
			m.host.Same(t, "after the failure", host)
			m.pod.Same(t, "after the failure", pod)
		})
	}
}

// What somebody else made in the pod is not the agent's to remove, though it be
// what the claim asks for, too.
func TestRuleOfAnotherIsLeft(t *testing.T) {
	m := newMachine(t)
	rule := netlink.NewRule()
	rule.Priority, rule.Table, rule.Src = 1000, 100, ipNet(prefix("10.1.0.5/32"))
	if err := m.pod.Handle.RuleAdd(rule); err != nil {
		t.Fatal(err)
	}
	before := m.pod.Snapshot(t)
	m.device.Rules = []netattach.Rule{{Priority: 1000, Source: prefix("10.1.0.5/32"), Table: 100}}
	if _, err := m.links.Home(context.Background(), m.pod.FD, m.device); err != nil {
		t.Fatal(err)
	}
	m.pod.Same(t, "after a device that never came left,", before)
}

// A thread that was in another namespace is never given to anybody else in it.
func TestNoThreadStaysInThePod(t *testing.T) {
	m := newMachine(t)
	there, err := open(m.pod.FD)
	if err != nil {
		t.Fatal(err)
	}
	defer there.Close()
	m.pod.Sysctl(t, "net/ipv4/conf/all/log_martians", "1")
	results := make(chan error)
	for i := range 64 {
		go func() {
			results <- there.inside(func() error {
				if got, err := readSysctl(sysctls + "net/ipv4/conf/all/log_martians"); err != nil || got != "1" {
					return fmt.Errorf("inside the pod, run %d read %q, %w", i, got, err)
				}
				return nil
			})
		}()
		go func() {
			got, err := readSysctl(sysctls + "net/ipv4/conf/all/log_martians")
			if got == "1" && err == nil {
				err = errors.New("outside the pod, the pod's setting was read")
			}
			results <- err
		}()
	}
	for range 128 {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
}
