package link

// VRFs, on kernels that have them: the emulated machine's does (test/vm).

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/hostler-dev/hostler/netattach"
	"github.com/hostler-dev/hostler/netattach/internal/nettest"
)

// needVRF makes the first VRF of each namespace, with which the kernel adds a rule
// that it never takes away again (vrf_add_fib_rules).
func needVRF(t *testing.T, namespaces ...*nettest.Namespace) {
	t.Helper()
	for _, n := range namespaces {
		makeVRF(t, n, "probe", 9)
		if err := n.Handle.LinkDel(n.Link(t, "probe")); err != nil {
			t.Fatal(err)
		}
	}
}

func makeVRF(t *testing.T, n *nettest.Namespace, name string, table uint32) {
	t.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	err := n.Handle.LinkAdd(&netlink.Vrf{LinkAttrs: attrs, Table: table})
	if errors.Is(err, unix.EOPNOTSUPP) {
		t.Skip("needs a kernel with VRFs; the emulated machine runs it: make test-vm")
	}
	if err != nil {
		t.Fatal(err)
	}
}

func newVRFMachine(t *testing.T) *machine {
	m := newMachine(t)
	needVRF(t, m.pod)
	m.device.VRF = &netattach.VRF{Name: "rails", Table: 500}
	m.device.Routes = []netattach.Route{
		{Destination: prefix("0.0.0.0/0"), Gateway: addr("10.1.0.1")},
		{Destination: prefix("::/0"), Gateway: addr("2001:db8:9::1")},
	}
	return m
}

func TestVRFKeepsTheNICsRoutesApart(t *testing.T) {
	m := newVRFMachine(t)
	m.withCluster(t)
	host, pod := m.host.Snapshot(t), m.pod.Snapshot(t)
	m.remember(t)
	m.attach(t)
	m.attachAgain(t)
	for _, test := range []struct{ source, to, from string }{
		{"", "203.0.113.1:81", "10.9.0.5"},
		{"", "[2001:db8:99::1]:81", "2001:db8:c::5"},
	} {
		if from, err := m.dial(t, test.source, test.to); err != nil || from != test.from {
			t.Errorf("to %s: went from %q, %v", test.to, from, err)
		}
	}
	m.pod.Do(t, func() {
		for family, to := range map[int]unix.Sockaddr{
			unix.AF_INET:  &unix.SockaddrInet4{Port: 80, Addr: netip.MustParseAddr("203.0.113.1").As4()},
			unix.AF_INET6: &unix.SockaddrInet6{Port: 80, Addr: netip.MustParseAddr("2001:db8:99::1").As16()},
		} {
			socket, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Close(socket)
			if err := errors.Join(unix.BindToDevice(socket, "rails"), unix.Connect(socket, to)); err != nil {
				t.Errorf("in the VRF, family %d: %v", family, err)
			}
		}
	})
	if routes, err := m.pod.Handle.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Table: 500, LinkIndex: m.device.PodIndex}, netlink.RT_FILTER_TABLE|netlink.RT_FILTER_OIF); err != nil || len(routes) == 0 {
		t.Errorf("routes in the VRF's table: %v, %v", routes, err)
	}
	m.home(t)
	m.pod.Same(t, "without its device,", pod)
	m.host.Same(t, "home again,", host)
}

// Two devices share a VRF; the last of them takes it along.
func TestVRFStaysForTheOtherDevice(t *testing.T) {
	m := newVRFMachine(t)
	pod := m.pod.Snapshot(t)
	nettest.Join(t, m.host, "rail1", m.peer, "peer1")
	other := netattach.DeviceIntent{Device: "nic-rail1", HostName: "rail1", PodName: "net2", VRF: m.device.VRF, HostMAC: m.host.Link(t, "rail1").Attrs().HardwareAddr.String()}
	m.remember(t)
	m.attach(t)
	ctx := context.Background()
	index, err := m.links.Into(ctx, m.pod.FD, other)
	if err != nil {
		t.Fatal(err)
	}
	other.PodIndex = index
	m.home(t)
	if !m.pod.Has(t, "rails") || m.pod.Link(t, "net2").Attrs().MasterIndex != m.pod.Link(t, "rails").Attrs().Index {
		t.Error("the other device lost its VRF")
	}
	if _, err := m.links.Home(ctx, m.pod.FD, other); err != nil {
		t.Fatal(err)
	}
	m.pod.Same(t, "without its devices,", pod)
}

func TestVRFOfAnotherIsUsedAndLeft(t *testing.T) {
	m := newVRFMachine(t)
	makeVRF(t, m.pod, "rails", 500)
	m.pod.Up(t, "rails")
	pod := m.pod.Snapshot(t)
	m.remember(t)
	m.attach(t)
	m.home(t)
	m.pod.Same(t, "without its device,", pod)
}

func TestVRFThatCannotBeIsRefused(t *testing.T) {
	for name, test := range map[string]struct {
		before func(t *testing.T, m *machine)
		says   string
	}{
		"of that name, with another table":   {func(t *testing.T, m *machine) { makeVRF(t, m.pod, "rails", 501) }, "has a VRF rails with table 501, not 500"},
		"of that name, and something else":   {func(t *testing.T, m *machine) { nettest.Join(t, m.pod, "rails", m.peer, "x") }, "has an interface rails that is no VRF (veth)"},
		"of another name, and of that table": {func(t *testing.T, m *machine) { makeVRF(t, m.pod, "taken", 500) }, "VRF taken has the table 500 already"},
	} {
		t.Run(name, func(t *testing.T) {
			m := newVRFMachine(t)
			test.before(t, m)
			host, pod := m.host.Snapshot(t), m.pod.Snapshot(t)
			m.remember(t)
			_, err := m.links.Into(context.Background(), m.pod.FD, m.device)
			if err == nil || !strings.Contains(err.Error(), test.says) || !strings.Contains(err.Error(), "net1 (nic-0000-18-00-0)") {
				t.Errorf("%v; want it to say %q", err, test.says)
			}
			m.host.Same(t, "after the failure", host)
			m.pod.Same(t, "after the failure", pod)
		})
	}
}

// Without the module the claim's pod does not start, and its event says what is missing.
func TestVRFOnAKernelWithout(t *testing.T) {
	m := newMachine(t)
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "probe"
	if err := m.pod.Handle.LinkAdd(&netlink.Vrf{LinkAttrs: attrs, Table: 9}); !errors.Is(err, unix.EOPNOTSUPP) {
		t.Skipf("needs a kernel without VRFs: %v", err)
	}
	host := m.host.Snapshot(t)
	m.device.VRF = &netattach.VRF{Name: "rails", Table: 500}
	m.remember(t)
	_, err := m.links.Into(context.Background(), m.pod.FD, m.device)
	if err == nil || !strings.Contains(err.Error(), "VRF rails of table 500 cannot be made") || !strings.Contains(err.Error(), "the kernel needs the module vrf") {
		t.Error(err)
	}
	m.host.Same(t, "after the failure", host)
}
