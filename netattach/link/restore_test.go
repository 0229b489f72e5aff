package link

// All that a netdev can have on the host, and every way in which it comes home.

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"unsafe"

	"github.com/safchain/ethtool"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/hostler-dev/hostler/netattach"
	"github.com/hostler-dev/hostler/netattach/internal/nettest"
)

// furnish gives rail0 what an administrator can give a NIC.
func (m *machine) furnish(t *testing.T) {
	t.Helper()
	h, link := m.host.Handle, m.host.Link(t, "rail0")
	index := link.Attrs().Index
	network := func(text string) *net.IPNet {
		_, prefix, err := net.ParseCIDR(text)
		if err != nil {
			t.Fatal(err)
		}
		return prefix
	}
	address := func(text string, change func(*netlink.Addr)) error {
		addr, err := netlink.ParseAddr(text)
		if err != nil {
			return err
		}
		change(addr)
		return h.AddrAdd(link, addr)
	}
	for setting, value := range map[string]string{
		"net/ipv4/conf/rail0/arp_ignore": "2", "net/ipv4/conf/rail0/rp_filter": "2", "net/ipv6/conf/rail0/accept_ra": "0",
		"net/ipv6/conf/rail0/addr_gen_mode": "1", "net/ipv4/neigh/rail0/base_reachable_time_ms": "45000", "net/ipv6/neigh/rail0/gc_stale_time": "120",
	} {
		m.host.Sysctl(t, setting, value)
	}
	m.host.Ethtool(t, func(tool *ethtool.Ethtool) error {
		return tool.Change("rail0", map[string]bool{"tx-checksum-ip-generic": false, "rx-gro": false})
	})
	if err := errors.Join(
		h.LinkSetMTU(link, 1450), h.LinkSetTxQLen(link, 777), h.LinkSetAlias(link, "rail to leaf 3"), h.LinkSetGroup(link, 42),
		h.LinkAddAltName(link, "enp24s0f0np0"), h.LinkSetAllmulticastOn(link),
		address("192.0.2.7/24", func(a *netlink.Addr) { a.Label, a.Broadcast = "rail0:1", net.IPv4(192, 0, 2, 255).To4() }),
		address("192.0.2.8/32", func(a *netlink.Addr) { a.Peer = network("192.0.2.128/32") }),
		address("2001:db8:7::7/64", func(a *netlink.Addr) { a.Flags = unix.IFA_F_NOPREFIXROUTE | unix.IFA_F_NODAD }),
		address("fe80::7/64", func(a *netlink.Addr) { a.Scope = unix.RT_SCOPE_LINK }), // the kernel makes none with that addr_gen_mode
		address("198.51.100.9/24", func(a *netlink.Addr) { a.ValidLft, a.PreferedLft = 40000, 20000 }),
		h.NeighSet(&netlink.Neigh{LinkIndex: index, State: netlink.NUD_PERMANENT, IP: net.IPv4(10, 1, 0, 77), HardwareAddr: net.HardwareAddr{2, 0, 0, 0, 0, 1}}),
		h.NeighSet(&netlink.Neigh{LinkIndex: index, State: netlink.NUD_PERMANENT, IP: net.ParseIP("2001:db8:9::77"), HardwareAddr: net.HardwareAddr{2, 0, 0, 0, 0, 2}}),
		h.RouteAdd(&netlink.Route{LinkIndex: index, Dst: network("203.0.113.0/24"), Gw: net.IPv4(10, 1, 0, 1), Src: net.IPv4(10, 1, 0, 9), Priority: 50, Table: 100, Protocol: 16}),
		h.RouteAdd(&netlink.Route{LinkIndex: index, Dst: network("203.0.113.0/25"), Gw: net.IPv4(10, 250, 0, 1), Flags: int(netlink.FLAG_ONLINK)}),
		h.RouteAdd(&netlink.Route{LinkIndex: index, Dst: network("198.18.0.0/24"), Scope: netlink.SCOPE_LINK, Table: 70000}),
		h.RouteAdd(&netlink.Route{LinkIndex: index, Dst: network("2001:db8:99::/48"), Gw: net.ParseIP("2001:db8:9::1"), Src: net.ParseIP("2001:db8:9::9"), Priority: 7, Table: 100}),
		h.RouteAdd(&netlink.Route{LinkIndex: index, Dst: network("0.0.0.0/0"), Gw: net.IPv4(10, 1, 0, 1), Priority: 900}),
		h.RouteAdd(&netlink.Route{LinkIndex: index, Dst: network("::/0"), Gw: net.ParseIP("2001:db8:9::1"), Priority: 900}),
		h.RouteAdd(&netlink.Route{LinkIndex: index, Dst: network("198.18.1.0/24"), Via: &netlink.Via{AddrFamily: unix.AF_INET6, Addr: net.ParseIP("2001:db8:9::1")}}),
	); err != nil {
		t.Fatal(err)
	}
}

// demanding asks in the pod for something else of everything that was furnished.
func (m *machine) demanding() {
	m.device.HardwareAddress = "02:00:5e:10:00:01"
	m.device.Sysctls = map[string]string{"net/ipv4/conf/IFNAME/arp_ignore": "1", "net/ipv6/conf/IFNAME/accept_ra": "2", "net/ipv4/neigh/IFNAME/gc_stale_time": "33"}
	m.device.Features = map[string]bool{"tx-checksum-ip-generic": true, "rx-gro": true, "tx-scatter-gather": false}
	m.device.Neighbours = []netattach.Neighbour{{Address: netip.MustParseAddr("10.1.0.88"), HardwareAddress: "02:00:00:00:00:88"}}
	m.device.Rules = []netattach.Rule{{Priority: 1000, Source: netip.MustParsePrefix("10.1.0.5/32"), Table: 100}}
}

func (m *machine) remember(t *testing.T) {
	t.Helper()
	device, err := m.links.Remember(m.device)
	if err != nil {
		t.Fatal(err)
	}
	m.device = device
}

// spoil changes what a pod with CAP_NET_ADMIN can change of its netdev.
func (m *machine) spoil(t *testing.T) {
	t.Helper()
	h, link := m.pod.Handle, m.pod.Link(t, "net1")
	if err := errors.Join(
		h.SetPromiscOn(link), h.LinkSetTxQLen(link, 5), h.LinkSetAlias(link, "mine"), h.LinkSetGroup(link, 7), h.LinkSetMulticastOff(link),
		h.LinkDelAltName(link, "enp24s0f0np0"), h.LinkAddAltName(link, "podsown"), h.LinkSetMTU(link, 1300),
	); err != nil {
		t.Fatal(err)
	}
	m.pod.Sysctl(t, "net/ipv4/conf/net1/arp_ignore", "8")
	if program := loadBPF(t, 6); program != 0 { // BPF_PROG_TYPE_XDP
		m.pod.Do(t, func() {
			if err := netlink.LinkSetXdpFdWithFlags(link, program, unix.XDP_FLAGS_SKB_MODE); err != nil {
				t.Fatal(err)
			}
			request := bpfAttach{interfaceIndex: uint32(link.Attrs().Index), program: uint32(loadBPF(t, 3)), hook: 46} // 3 is BPF_PROG_TYPE_SCHED_CLS
			if _, err := bpf(unix.BPF_PROG_ATTACH, unsafe.Pointer(&request), unsafe.Sizeof(request)); err != nil && !errors.Is(err, unix.EINVAL) {
				t.Fatalf("attach a BPF program to packets on their way in: %v", err)
			}
		})
	}
}

// loadBPF loads a program of that type that drops everything. It returns 0 on kernels
// without BPF, where there is nothing to leave.
func loadBPF(t *testing.T, kind uint32) (descriptor int) {
	t.Helper()
	instructions := []uint64{0x1_0000_00b7, 0x95} // r0 = 1, which is XDP_DROP; exit
	license := []byte("GPL\x00")
	var pinner runtime.Pinner
	defer pinner.Unpin()
	pinner.Pin(&instructions[0])
	pinner.Pin(&license[0])
	attributes := struct {
		kind, count           uint32
		instructions, license uint64
		logLevel, logSize     uint32
		log                   uint64
		version, flags        uint32
	}{kind: kind, count: 2, instructions: uint64(uintptr(unsafe.Pointer(&instructions[0]))), license: uint64(uintptr(unsafe.Pointer(&license[0])))}
	loaded, err := bpf(unix.BPF_PROG_LOAD, unsafe.Pointer(&attributes), unsafe.Sizeof(attributes))
	if errors.Is(err, unix.ENOSYS) {
		return 0
	}
	if err != nil {
		t.Fatalf("load a BPF program: %v", err)
	}
	t.Cleanup(func() { unix.Close(loaded) })
	return loaded
}

// returned does what the kernel does with a physical device whose namespace dies.
func (m *machine) returned(t *testing.T, as string) {
	t.Helper()
	link := m.pod.Link(t, "net1")
	if err := errors.Join(m.pod.Handle.LinkSetDown(link), m.pod.Handle.LinkSetName(link, as), m.pod.Handle.LinkSetNsFd(link, m.host.FD)); err != nil {
		t.Fatal(err)
	}
}

func TestNetdevComesHomeWithAllThatItHad(t *testing.T) {
	ctx := context.Background()
	home := func(_ *testing.T, m *machine) (bool, error) { return m.links.Home(ctx, m.pod.FD, m.device) }
	restored := func(_ *testing.T, m *machine) (bool, error) { return m.links.Restore(ctx, m.device) }
	for name, test := range map[string]struct {
		happens func(t *testing.T, m *machine)
		home    func(t *testing.T, m *machine) (bool, error)
		// lives says that the pod does, and is to be as it was, too.
		lives bool
	}{
		"by the hook":                              {func(*testing.T, *machine) {}, home, true},
		"after its pod spoilt it":                  {func(t *testing.T, m *machine) { m.spoil(t) }, home, true},
		"by the kernel, under its name in the pod": {func(t *testing.T, m *machine) { m.spoil(t); m.returned(t, "net1") }, restored, false},
		"by the kernel, under another name":        {func(t *testing.T, m *machine) { m.returned(t, "dev7") }, restored, false},
		"by the kernel, and the hook comes after":  {func(t *testing.T, m *machine) { m.returned(t, "net1") }, home, true},
		"by an agent that was killed on the way": {func(t *testing.T, m *machine) {
			there, err := open(m.pod.FD)
			if err != nil {
				t.Fatal(err)
			}
			defer there.Close()
			if err := there.transfer(m.pod.Link(t, "net1"), m.host.FD, "rail0", 0, nil); err != nil {
				t.Fatal(err)
			}
		}, restored, false},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			m.furnish(t)
			before := m.host.Snapshot(t)
			pod := m.pod.Snapshot(t)
			m.demanding()
			m.remember(t)
			m.attach(t)
			test.happens(t, m)
			for range 2 { // the second time, there is nothing left to be done
				if found, err := test.home(t, m); err != nil || !found {
					t.Fatalf("%v, %v", found, err)
				}
				m.host.Same(t, "home again,", before)
				if left, err := m.links.here.tcxIDs(m.host.Link(t, "rail0").Attrs().Index); err != nil || len(left) > 0 {
					t.Errorf("BPF programs are left on it: %v, %v", left, err)
				}
			}
			if test.lives {
				m.pod.Same(t, "without its device,", pod)
			}
		})
	}
}

func TestNetdevThatWasDownComesHomeDown(t *testing.T) {
	m := newMachine(t)
	if err := m.host.Handle.LinkSetDown(m.host.Link(t, "rail0")); err != nil {
		t.Fatal(err)
	}
	before := m.host.Snapshot(t)
	m.remember(t)
	m.attach(t)
	if found, err := m.links.Home(context.Background(), m.pod.FD, m.device); err != nil || !found {
		t.Fatalf("%v, %v", found, err)
	}
	m.host.Same(t, "home again,", before)
}

// A record of an agent that wrote down no more than name, MTU, addresses and MAC
// still brings these home, and touches nothing else.
func TestNetdevOfAnEarlierAgentComesHomeWithWhatThatWroteDown(t *testing.T) {
	m := newMachine(t)
	index, err := m.links.Into(context.Background(), m.pod.FD, m.device)
	if err != nil {
		t.Fatal(err)
	}
	m.device.PodIndex = index
	if found, err := m.links.Home(context.Background(), m.pod.FD, m.device); err != nil || !found {
		t.Fatalf("%v, %v", found, err)
	}
	m.asItWas(t)
}

// A part that cannot be given back is told, and keeps none of the others away.
func TestWhatCannotBeGivenBackIsToldAndHindersNothing(t *testing.T) {
	m := newMachine(t)
	m.furnish(t)
	m.demanding()
	m.remember(t)
	m.attach(t)
	m.device.HostState.Sysctls["net/ipv4/conf/IFNAME/arp_ignore"] = "nonsense"
	m.device.HostState.Routes = append(m.device.HostState.Routes, netattach.Route{Destination: netip.MustParsePrefix("203.0.113.128/25"), Gateway: netip.MustParseAddr("172.16.0.1"), Table: 254, Global: true})
	_, err := m.links.Home(context.Background(), m.pod.FD, m.device)
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{"rail0 (nic-0000-18-00-0) is home but not as it was", `net/ipv4/conf/rail0/arp_ignore cannot be set to "nonsense"`, "route 203.0.113.128/25 via 172.16.0.1", "set what is missing by hand"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not say %q", err, want)
		}
	}
	if got := m.host.ReadSysctl(t, "net/ipv4/conf/rail0/rp_filter"); got != "2" {
		t.Errorf("rp_filter is %s", got)
	}
	if routes, err := m.host.Handle.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Table: 100}, netlink.RT_FILTER_TABLE); err != nil || len(routes) != 1 {
		t.Errorf("routes of table 100: %v, %v", routes, err)
	}
	// What hindered it is over, and the next attempt gives the rest.
	m.device.HostState.Sysctls["net/ipv4/conf/IFNAME/arp_ignore"] = "2"
	m.device.HostState.Routes = m.device.HostState.Routes[:len(m.device.HostState.Routes)-1]
}

func TestNetdevWithAVLANOrOtherUseOnTheNodeIsNotMoved(t *testing.T) {
	for name, test := range map[string]struct {
		use  func(t *testing.T, m *machine)
		says string
	}{
		"a macvlan lies on it": {func(t *testing.T, m *machine) {
			attrs := netlink.NewLinkAttrs()
			attrs.Name, attrs.ParentIndex = "storage0", m.host.Link(t, "rail0").Attrs().Index
			if err := m.host.Handle.LinkAdd(&netlink.Macvlan{LinkAttrs: attrs, Mode: netlink.MACVLAN_MODE_BRIDGE}); err != nil {
				t.Skipf("needs a kernel with macvlan: %v", err)
			}
		}, "the macvlan storage0 lies on it"},
		"a VLAN lies on it": {func(t *testing.T, m *machine) {
			attrs := netlink.NewLinkAttrs()
			attrs.Name, attrs.ParentIndex = "rail0.7", m.host.Link(t, "rail0").Attrs().Index
			if err := m.host.Handle.LinkAdd(&netlink.Vlan{LinkAttrs: attrs, VlanId: 7}); err != nil {
				t.Skipf("needs a kernel with VLANs, as the emulated machine's: %v", err)
			}
		}, "the vlan rail0.7 lies on it"},
		"it is a bridge's port": {func(t *testing.T, m *machine) {
			attrs := netlink.NewLinkAttrs()
			attrs.Name = "br0"
			if err := m.host.Handle.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil {
				t.Skipf("needs a kernel with bridges: %v", err)
			}
			if err := m.host.Handle.LinkSetMaster(m.host.Link(t, "rail0"), m.host.Link(t, "br0")); err != nil {
				t.Fatal(err)
			}
		}, "it is a port of the bridge br0"},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			test.use(t, m)
			before := m.host.Snapshot(t)
			m.remember(t)
			_, err := m.links.Into(context.Background(), m.pod.FD, m.device)
			if err == nil || !strings.Contains(err.Error(), test.says) || !strings.Contains(err.Error(), "nic-0000-18-00-0") {
				t.Errorf("%v; want it to say %q and the device", err, test.says)
			}
			m.host.Same(t, "after the refusal", before)
		})
	}
}

// A veth of which both ends are on the host has no other device below it.
func TestVethWithBothEndsOnTheHostIsMoved(t *testing.T) {
	m := newMachine(t)
	nettest.Join(t, m.host, "end0", m.host, "end1")
	m.device = netattach.DeviceIntent{Device: "nic-end0", HostName: "end0", PodName: "net1", HostMAC: m.host.Link(t, "end0").Attrs().HardwareAddr.String()}
	before := m.host.Snapshot(t)
	m.remember(t)
	m.attach(t)
	if found, err := m.links.Home(context.Background(), m.pod.FD, m.device); err != nil || !found {
		t.Fatalf("%v, %v", found, err)
	}
	m.host.Same(t, "home again,", before)
}
