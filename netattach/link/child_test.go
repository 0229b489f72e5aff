package link

// Children of a NIC that stays where it is.

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/types"

	"github.com/hostler-dev/hostler/netattach"
	"github.com/hostler-dev/hostler/netattach/internal/nettest"
)

// sharedMachine is a host whose NIC rail0 serves two pods, and a peer that it is joined to.
type sharedMachine struct {
	host, pod, other, peer *nettest.Namespace
	links                  *Host
	before                 string
}

func newSharedMachine(t *testing.T) *sharedMachine {
	m := &sharedMachine{host: nettest.New(t), pod: nettest.New(t), other: nettest.New(t), peer: nettest.New(t)}
	nettest.Join(t, m.host, "rail0", m.peer, "peer0")
	m.host.Up(t, "rail0", "10.1.0.9/24")
	m.peer.Up(t, "peer0", "10.1.0.1/24")
	links, err := NewHost(HostConfig{Namespace: &m.host.FD})
	if err != nil {
		t.Fatal(err)
	}
	m.links = links
	m.before = m.hostState(t)
	return m
}

// hostState is all of the host's links with what children could change of them,
// without the carrier, which comes in its own time.
func (m *sharedMachine) hostState(t *testing.T) string {
	t.Helper()
	links, err := m.host.Handle.LinkList()
	if err != nil {
		t.Fatal(err)
	}
	var state []string
	for _, link := range links {
		a := link.Attrs()
		qdiscs, err := m.host.Handle.QdiscList(link)
		if err != nil {
			t.Fatal(err)
		}
		var kinds []string
		for _, qdisc := range qdiscs {
			kinds = append(kinds, qdisc.Type())
		}
		state = append(state, fmt.Sprintf("%d %s %s mtu %d flags %x promiscuous %d alias %q %s %v", a.Index, a.Name, a.HardwareAddr, a.MTU, a.RawFlags&^(unix.IFF_RUNNING|unix.IFF_LOWER_UP), a.Promisc, a.Alias, addresses(t, m.host, a.Name), kinds))
	}
	return strings.Join(state, "\n")
}

func (m *sharedMachine) asItWas(t *testing.T) {
	t.Helper()
	if now := m.hostState(t); now != m.before {
		t.Errorf("the host was\n%s\nand is\n%s", m.before, now)
	}
}

// share is a device intent for a macvlan child, remembered.
func (m *sharedMachine) share(t *testing.T, id types.UID, name, address string) netattach.DeviceIntent {
	t.Helper()
	device, err := m.links.Remember(netattach.DeviceIntent{
		Request: "nic", Pool: "node-a/nic", Device: "nic-0000-18-00-0", ShareID: &id,
		HostName: "rail0", PodName: name, HostMAC: m.host.Link(t, "rail0").Attrs().HardwareAddr.String(),
		Child:     &netattach.ChildIntent{Kind: "macvlan", Mode: "bridge"},
		Addresses: []netip.Prefix{netip.MustParsePrefix(address)},
	})
	if err != nil {
		t.Fatal(err)
	}
	return device
}

// attach also records the index, as the attacher does.
func (m *sharedMachine) attach(t *testing.T, pod *nettest.Namespace, device netattach.DeviceIntent) netattach.DeviceIntent {
	t.Helper()
	index, err := m.links.Into(context.Background(), pod.FD, device)
	if err != nil {
		t.Fatal(err)
	}
	device.PodIndex = index
	if err := m.links.Up(context.Background(), pod.FD, device); err != nil {
		t.Fatal(err)
	}
	return device
}

// home takes the child back and sees that nothing is left of it. The host is as it
// was once the last child is gone: until then a NIC that cannot filter hears everything.
func (m *sharedMachine) home(t *testing.T, pod *nettest.Namespace, device netattach.DeviceIntent) {
	t.Helper()
	if found, err := m.links.Home(context.Background(), pod.FD, device); err != nil || !found {
		t.Errorf("Home: %v, %v", found, err)
	}
	if left := linkNames(t, pod); !slices.Equal(left, []string{"lo"}) {
		t.Errorf("the pod still has %v", left)
	}
}

func linkNames(t *testing.T, n *nettest.Namespace) []string {
	t.Helper()
	links, err := n.Handle.LinkList()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, link := range links {
		names = append(names, link.Attrs().Name)
	}
	return names
}

// reaches says over TCP whether one namespace reaches an address of another.
func reaches(t *testing.T, from, to *nettest.Namespace, address string) bool {
	t.Helper()
	var conn net.Conn
	var err error
	to.Do(t, func() {
		var listener net.Listener
		if listener, err = net.Listen("tcp", address+":0"); err != nil {
			return
		}
		defer listener.Close()
		from.Do(t, func() { conn, err = net.Dial("tcp", listener.Addr().String()) })
	})
	if err != nil {
		t.Logf("to %s: %v", address, err)
		return false
	}
	conn.Close()
	return true
}

func TestChildrenOfOneNICServeTwoPods(t *testing.T) {
	m := newSharedMachine(t)
	first := m.share(t, "share-1", "net1", "10.1.0.5/24")
	first.MTU, first.HardwareAddress = 1400, "02:00:5e:10:00:05"
	second := m.share(t, "share-2", "rail0", "10.1.0.6/24") // the parent's own name

	index, err := m.links.Into(context.Background(), m.pod.FD, first)
	if err != nil {
		t.Fatal(err)
	}
	attrs := m.pod.Link(t, "net1").Attrs()
	if attrs.RawFlags&unix.IFF_UP != 0 {
		t.Error("the child is up before anyone could put rules on it")
	}
	if attrs.Index != index || attrs.MTU != 1400 || attrs.HardwareAddr.String() != "02:00:5e:10:00:05" {
		t.Errorf("the child is %+v", attrs)
	}
	first, second = m.attach(t, m.pod, first), m.attach(t, m.other, second)

	for _, to := range []struct {
		namespace *nettest.Namespace
		address   string
	}{{m.peer, "10.1.0.1"}, {m.other, "10.1.0.6"}} {
		if !reaches(t, m.pod, to.namespace, to.address) {
			t.Errorf("the first pod does not reach %s", to.address)
		}
	}
	if !reaches(t, m.peer, m.other, "10.1.0.6") {
		t.Error("the peer does not reach the second pod")
	}
	if state, err := State(m.pod.FD, first); err != nil || state.Interface != "net1" || state.MAC != "02:00:5e:10:00:05" {
		t.Errorf("State: %+v, %v", state, err)
	}
	m.home(t, m.pod, first)
	if present, err := Present(m.other.FD, second); err != nil || !present {
		t.Errorf("the second pod's child went with the first's: %v, %v", present, err)
	}
	m.home(t, m.other, second)
	m.asItWas(t)
}

func TestEveryStepOfAChildMayBeRepeated(t *testing.T) {
	m := newSharedMachine(t)
	device := m.share(t, "share-1", "net1", "10.1.0.5/24")
	device.Bandwidth = 20e6
	attached := m.attach(t, m.pod, device)
	before := linkNames(t, m.pod)
	for _, again := range []netattach.DeviceIntent{device, attached} { // before and after the index was recorded
		if repeated := m.attach(t, m.pod, again); repeated.PodIndex != attached.PodIndex {
			t.Errorf("it was made again: index %d, then %d", attached.PodIndex, repeated.PodIndex)
		}
	}
	if after := linkNames(t, m.pod); !slices.Equal(before, after) {
		t.Errorf("the pod had %v and has %v", before, after)
	}
	for range 2 {
		m.home(t, m.pod, attached)
		m.asItWas(t)
	}
}

// An agent may be killed between any two requests to the kernel. Then the record
// has no index yet.
func TestChildOfAKilledAgentIsFound(t *testing.T) {
	for name, then := range map[string]func(t *testing.T, m *sharedMachine, device netattach.DeviceIntent){
		"before it had its alias": func(t *testing.T, m *sharedMachine, device netattach.DeviceIntent) {
			if err := m.links.makeChild(context.Background(), m.pod.FD, device); err != nil {
				t.Fatal(err)
			}
		},
		"before it had its name": func(t *testing.T, m *sharedMachine, device netattach.DeviceIntent) {
			m.attach(t, m.pod, device)
			link := m.pod.Link(t, "net1")
			if err := m.pod.Handle.LinkSetDown(link); err != nil {
				t.Fatal(err)
			}
			if err := m.pod.Handle.LinkSetName(link, madeName(device)); err != nil {
				t.Fatal(err)
			}
		},
		"before its index was recorded": func(t *testing.T, m *sharedMachine, device netattach.DeviceIntent) {
			if _, err := m.links.Into(context.Background(), m.pod.FD, device); err != nil {
				t.Fatal(err)
			}
		},
		"before it was limited": func(t *testing.T, m *sharedMachine, device netattach.DeviceIntent) {
			m.attach(t, m.pod, device)
			if err := m.pod.Handle.LinkDel(m.pod.Link(t, ifbName(device))); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name+", by the next attachment", func(t *testing.T) {
			m := newSharedMachine(t)
			device := m.share(t, "share-1", "net1", "10.1.0.5/24")
			device.Bandwidth = 20e6
			then(t, m, device)
			device = m.attach(t, m.pod, device)
			if got := linkNames(t, m.pod); len(got) != 3 || !slices.Contains(got, "net1") || !slices.Contains(got, ifbName(device)) {
				t.Errorf("the pod has %v", got)
			}
			m.home(t, m.pod, device)
			m.asItWas(t)
		})
		t.Run(name+", on the way home", func(t *testing.T) {
			m := newSharedMachine(t)
			device := m.share(t, "share-1", "net1", "10.1.0.5/24")
			device.Bandwidth = 20e6
			then(t, m, device)
			m.home(t, m.pod, device)
			m.asItWas(t)
		})
	}
}

func TestSharesOfOneNICInOnePodAreTwo(t *testing.T) {
	m := newSharedMachine(t)
	first := m.attach(t, m.pod, m.share(t, "share-1", "net1", "10.1.0.5/24"))
	sameName := m.share(t, "share-2", "net1", "10.1.0.6/24")
	if _, err := m.links.Into(context.Background(), m.pod.FD, sameName); err == nil || !strings.Contains(err.Error(), "choose another interfaceName") {
		t.Errorf("%v; want a refusal of the name", err)
	}
	if got := linkNames(t, m.pod); !slices.Equal(got, []string{"lo", "net1"}) {
		t.Errorf("after a refusal the pod has %v", got)
	}
	second := m.attach(t, m.pod, m.share(t, "share-2", "net2", "10.1.0.6/24"))
	if _, err := m.links.Home(context.Background(), m.pod.FD, first); err != nil {
		t.Fatal(err)
	}
	m.home(t, m.pod, second)
	m.asItWas(t)
}

// A pod with CAP_NET_ADMIN can make children of the same parent upon its own.
func TestChildIsNotTakenForAnother(t *testing.T) {
	m := newSharedMachine(t)
	device := m.attach(t, m.pod, m.share(t, "share-1", "net1", "10.1.0.5/24"))
	own := &netlink.Macvlan{LinkAttrs: netlink.LinkAttrs{Name: "own", ParentIndex: device.PodIndex, TxQLen: -1}, Mode: netlink.MACVLAN_MODE_BRIDGE}
	if err := m.pod.Handle.LinkAdd(own); err != nil {
		t.Fatal(err)
	}
	if !isChildOf(m.pod.Link(t, "own"), device) {
		t.Fatal("the kernel made it a child of the pod's own device; the test is void")
	}
	for _, rename := range [][2]string{{"net1", "hidden"}, {"own", "net1"}} {
		link := m.pod.Link(t, rename[0])
		if err := m.pod.Handle.LinkSetDown(link); err != nil {
			t.Fatal(err)
		}
		if err := m.pod.Handle.LinkSetName(link, rename[1]); err != nil {
			t.Fatal(err)
		}
	}
	if present, err := Present(m.pod.FD, device); err != nil || present {
		t.Errorf("Present takes another for it: %v, %v", present, err)
	}
	if _, err := m.links.Home(context.Background(), m.pod.FD, device); err != nil {
		t.Fatal(err)
	}
	if got := linkNames(t, m.pod); !slices.Equal(got, []string{"lo", "net1"}) {
		t.Errorf("the pod has %v, want what it made itself", got)
	}
}

func TestChildDiesWithItsPod(t *testing.T) {
	m := newSharedMachine(t)
	m.attach(t, m.pod, m.share(t, "share-1", "net1", "10.1.0.5/24"))
	device := m.share(t, "share-1", "net1", "10.1.0.5/24")
	if found, err := m.links.Restore(context.Background(), device); err != nil || !found {
		t.Errorf("Restore: %v, %v; of a child nothing is missed", found, err)
	}
	if m.host.Has(t, "net1") {
		t.Error("it is on the host")
	}
}
