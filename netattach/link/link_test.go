package link

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/hostler-dev/hostler/netattach"
	"github.com/hostler-dev/hostler/netattach/internal/nettest"
)

// machine is a host whose NIC rail0 is joined to a peer that echoes.
type machine struct {
	host, pod, peer *nettest.Namespace
	links           *Host
	device          netattach.DeviceIntent
	// watched: the host is compared with what it was before the device left it. Lost
	// devices cannot come home.
	watched, lost bool
}

func newMachine(t *testing.T) *machine {
	nettest.NeedBPF(t)
	m := &machine{host: nettest.New(t), pod: nettest.New(t), peer: nettest.New(t)}
	nettest.Join(t, m.host, "rail0", m.peer, "peer0")
	m.host.Up(t, "rail0", "10.1.0.9/24", "2001:db8:9::9/64")
	m.peer.Up(t, "peer0", "10.1.0.1/24", "2001:db8:9::1/64")
	links, err := NewHost(HostConfig{Namespace: &m.host.FD})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { links.Close() })
	m.links = links
	m.device = netattach.DeviceIntent{
		Device: "nic-0000-18-00-0", HostName: "rail0", PodName: "net1",
		HostMAC: m.host.Link(t, "rail0").Attrs().HardwareAddr.String(),
		HostMTU: 1500, HostUp: true,
		HostAddresses: []netip.Prefix{netip.MustParsePrefix("10.1.0.9/24"), netip.MustParsePrefix("2001:db8:9::9/64")},
		MTU:           1400,
		Addresses:     []netip.Prefix{netip.MustParsePrefix("10.1.0.5/24"), netip.MustParsePrefix("2001:db8:9::5/64")},
		Routes: []netattach.Route{{Destination: netip.MustParsePrefix("203.0.113.0/24"), Gateway: netip.MustParseAddr("10.9.9.9")},
			{Destination: netip.MustParsePrefix("10.9.9.9/32")}},
	}
	return m
}

// attach also has every test end with the device at home and the host as it was.
func (m *machine) attach(t *testing.T) {
	t.Helper()
	ctx := context.Background()
	if m.device.HostState == nil {
		m.remember(t)
	}
	if !m.watched {
		m.watched = true
		m.host.AsBefore(t, func() bool {
			if m.lost {
				return false
			}
			if found, err := m.links.Home(ctx, m.pod.FD, m.device); err != nil || !found {
				t.Errorf("Home: %v, %v", found, err)
			}
			return true
		})
	}
	index, err := m.links.Into(ctx, m.pod.FD, m.device)
	if err != nil {
		t.Fatal(err)
	}
	m.device.PodIndex = index
	if m.pod.Link(t, "net1").Attrs().Flags&1 != 0 {
		t.Error("the device is up before anyone could put rules on it")
	}
	if err := m.links.Up(ctx, m.pod.FD, m.device); err != nil {
		t.Fatal(err)
	}
}

// asItWas checks the host's view of rail0.
func (m *machine) asItWas(t *testing.T) {
	t.Helper()
	attrs := m.host.Link(t, "rail0").Attrs()
	if attrs.MTU != 1500 || attrs.Flags&1 == 0 || attrs.HardwareAddr.String() != m.device.HostMAC {
		t.Errorf("rail0 came home as %+v", attrs)
	}
	if got := addresses(t, m.host, "rail0"); got != "10.1.0.9/24 2001:db8:9::9/64" {
		t.Errorf("rail0 has addresses %q", got)
	}
}

func addresses(t *testing.T, n *nettest.Namespace, name string) string {
	t.Helper()
	list, err := n.Handle.AddrList(n.Link(t, name), netlink.FAMILY_ALL)
	if err != nil {
		t.Fatal(err)
	}
	var global []string
	for _, addr := range list {
		if !addr.IP.IsLinkLocalUnicast() {
			global = append(global, addr.IPNet.String())
		}
	}
	return strings.Join(global, " ")
}

func TestThereAndBackAgain(t *testing.T) {
	m := newMachine(t)
	m.attach(t)
	if m.host.Has(t, "rail0") {
		t.Error("rail0 is still on the host")
	}
	if mtu := m.pod.Link(t, "net1").Attrs().MTU; mtu != 1400 {
		t.Errorf("MTU in the pod is %d", mtu)
	}
	if got := addresses(t, m.pod, "net1"); got != "10.1.0.5/24 2001:db8:9::5/64" {
		t.Errorf("net1 has addresses %q", got)
	}
	routes, err := m.pod.Handle.RouteGet(m.device.Routes[0].Destination.Addr().Next().AsSlice())
	if err != nil || !routes[0].Gw.Equal(m.device.Routes[0].Gateway.AsSlice()) {
		t.Errorf("route to 203.0.113.1: %v, %v", routes, err)
	}
	if present, err := Present(m.pod.FD, m.device); err != nil || !present {
		t.Errorf("Present: %v, %v", present, err)
	}
	found, err := m.links.Home(context.Background(), m.pod.FD, m.device)
	if err != nil || !found {
		t.Fatalf("Home: %v, %v", found, err)
	}
	m.asItWas(t)
	if present, err := Present(m.pod.FD, m.device); err != nil || present {
		t.Errorf("Present after Home: %v, %v", present, err)
	}
}

func TestEveryStepMayBeRepeated(t *testing.T) {
	m := newMachine(t)
	m.attach(t)
	for range 2 {
		if _, err := m.links.Into(context.Background(), m.pod.FD, m.device); err != nil {
			t.Fatal(err)
		}
		if err := m.links.Up(context.Background(), m.pod.FD, m.device); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		if found, err := m.links.Home(context.Background(), m.pod.FD, m.device); err != nil || !found {
			t.Fatalf("Home: %v, %v", found, err)
		}
	}
	m.asItWas(t)
}

func TestFailureBringsTheDeviceHome(t *testing.T) {
	for name, test := range map[string]struct {
		spoil func(m *machine)
		says  string
	}{
		"the name is taken in the pod": {func(m *machine) { nettest.Join(t, m.pod, "net1", m.peer, "other") }, "has an interface net1 already"},
		"an MTU the device refuses":    {func(m *machine) { m.device.MTU = 65536 }, "MTU 65536"},
		"an address the kernel refuses": {func(m *machine) {
			m.device.Addresses = append(m.device.Addresses, netip.MustParsePrefix("ff02::1/128"))
		}, "ff02::1/128"},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			test.spoil(m)
			_, err := m.links.Into(context.Background(), m.pod.FD, m.device)
			if err == nil || !strings.Contains(err.Error(), test.says) || !strings.Contains(err.Error(), "nic-0000-18-00-0") {
				t.Errorf("error does not say %q and the device: %v", test.says, err)
			}
			m.asItWas(t)
		})
	}
}

func TestDeviceThatIsGone(t *testing.T) {
	m := newMachine(t)
	if err := m.host.Handle.LinkDel(m.host.Link(t, "rail0")); err != nil {
		t.Fatal(err)
	}
	if _, err := m.links.Into(context.Background(), m.pod.FD, m.device); !errors.Is(err, ErrNotFound) {
		t.Errorf("Into: want ErrNotFound, got %v", err)
	}
	if found, err := m.links.Restore(context.Background(), m.device); err != nil || found {
		t.Errorf("Restore: %v, %v", found, err)
	}
}

// What the kernel does with a physical device whose namespace died: it returns
// it under its in-pod name, or devN, down and without addresses.
func TestDeviceThatTheKernelReturnedUnderAnotherName(t *testing.T) {
	m := newMachine(t)
	rail := m.host.Link(t, "rail0")
	for _, err := range []error{m.host.Handle.LinkSetDown(rail), m.host.Handle.LinkSetName(rail, "dev0"), m.host.Handle.LinkSetMTU(rail, 1300)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	found, err := m.links.Restore(context.Background(), m.device)
	if err != nil || !found {
		t.Fatalf("Restore: %v, %v", found, err)
	}
	m.asItWas(t)
}

func TestNameTakenOnTheHostMeanwhile(t *testing.T) {
	m := newMachine(t)
	m.attach(t)
	nettest.Join(t, m.host, "rail0", m.peer, "usurper")
	found, err := m.links.Home(context.Background(), m.pod.FD, m.device)
	if !found || err == nil || !strings.Contains(err.Error(), "is home but not as it was") {
		t.Fatalf("Home: %v, %v", found, err)
	}
	if err := m.host.Handle.LinkDel(m.host.Link(t, "rail0")); err != nil {
		t.Fatal(err)
	}
	if found, err := m.links.Restore(context.Background(), m.device); err != nil || !found {
		t.Fatalf("Restore once the name is free: %v, %v", found, err)
	}
	m.asItWas(t)
}

// A veth that stands beside with the same name but another MAC is not ours.
func TestAnotherDeviceUnderTheSameName(t *testing.T) {
	m := newMachine(t)
	m.device.HostMAC = "02:00:00:00:00:01"
	if _, err := m.links.Into(context.Background(), m.pod.FD, m.device); !errors.Is(err, ErrNotFound) {
		t.Errorf("want ErrNotFound, got %v", err)
	}
}
