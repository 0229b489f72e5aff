package link

// Devices that their pod has changed, and others that look like them.

import (
	"context"
	"errors"
	"net"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/hostler-dev/hostler/netattach"
	"github.com/hostler-dev/hostler/netattach/internal/nettest"
)

func (m *machine) setMAC(t *testing.T, in *nettest.Namespace, name, mac string) {
	t.Helper()
	address, err := net.ParseMAC(mac)
	if err != nil {
		t.Fatal(err)
	}
	if err := in.Handle.LinkSetHardwareAddr(in.Link(t, name), address); err != nil {
		t.Fatal(err)
	}
}

func (m *machine) rename(t *testing.T, in *nettest.Namespace, from, to string) {
	t.Helper()
	link := in.Link(t, from)
	if err := errors.Join(in.Handle.LinkSetDown(link), in.Handle.LinkSetName(link, to)); err != nil {
		t.Fatal(err)
	}
}

func (m *machine) home(t *testing.T) {
	t.Helper()
	found, err := m.links.Home(context.Background(), m.pod.FD, m.device)
	if err != nil || !found {
		t.Fatalf("Home: %v, %v", found, err)
	}
	m.asItWas(t)
	if peer := m.host.Link(t, "rail0").Attrs().ParentIndex; peer != m.peer.Link(t, "peer0").Attrs().Index {
		t.Errorf("rail0 leads to interface %d of the peer, it is another device", peer)
	}
}

func TestDeviceWhoseMACThePodChangedComesHomeWithItsOwn(t *testing.T) {
	m := newMachine(t)
	m.attach(t)
	m.setMAC(t, m.pod, "net1", "02:00:00:00:00:77")
	if present, err := Present(m.pod.FD, m.device); err != nil || !present {
		t.Errorf("Present: %v, %v", present, err)
	}
	if _, err := m.links.Into(context.Background(), m.pod.FD, m.device); err != nil {
		t.Errorf("a repeated Into: %v", err)
	}
	m.home(t)
}

func TestDecoyIsNotTakenHome(t *testing.T) {
	for name, happens := range map[string]func(t *testing.T, m *machine){
		"while the device has another name": func(t *testing.T, m *machine) { m.rename(t, m.pod, "net1", "hidden") },
		"while the device has another MAC too": func(t *testing.T, m *machine) {
			m.rename(t, m.pod, "net1", "hidden")
			m.setMAC(t, m.pod, "hidden", "02:00:00:00:00:77")
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			m.attach(t)
			happens(t, m)
			nettest.Join(t, m.pod, "net1", m.peer, "decoy")
			m.setMAC(t, m.pod, "net1", m.device.HostMAC)
			if present, err := Present(m.pod.FD, m.device); err != nil || present {
				t.Errorf("Present takes the decoy for it: %v, %v", present, err)
			}
			m.home(t)
			if !m.pod.Has(t, "net1") {
				t.Error("the decoy has left the pod")
			}
		})
	}
}

func TestDecoyIsNotTakenForADeviceThatIsGone(t *testing.T) {
	m := newMachine(t)
	m.attach(t)
	nettest.Join(t, m.pod, "decoy", m.peer, "to-decoy")
	m.setMAC(t, m.pod, "decoy", m.device.HostMAC)
	if err := m.pod.Handle.LinkDel(m.pod.Link(t, "net1")); err != nil {
		t.Fatal(err)
	}
	m.lost = true
	m.rename(t, m.pod, "decoy", "net1")
	if found, err := m.links.Home(context.Background(), m.pod.FD, m.device); err != nil || found {
		t.Errorf("Home: %v, %v; want it missed", found, err)
	}
	if m.host.Has(t, "rail0") {
		t.Error("the decoy is on the host")
	}
}

// A process may lie in wait in a pod that the runtime's hook missed.
func TestDecoyThatIsThereBeforeTheDevice(t *testing.T) {
	m := newMachine(t)
	nettest.Join(t, m.pod, "net9", m.peer, "decoy")
	m.setMAC(t, m.pod, "net9", m.device.HostMAC)
	m.attach(t)
	if m.host.Has(t, "rail0") || !m.pod.Has(t, "net9") {
		t.Error("the decoy was taken for the device")
	}
	m.home(t)
}

// What only hardware has: no test machine can move that.
func TestPickHardware(t *testing.T) {
	link := func(index int, name, mac, pci, burnt string) netlink.Link {
		address, err := net.ParseMAC(mac)
		if err != nil {
			t.Fatal(err)
		}
		permanent, _ := net.ParseMAC(burnt) // "" is none
		return &netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: index, Name: name, HardwareAddr: address, ParentDev: pci, PermHWAddr: permanent}}
	}
	const mac, other, pci = "02:00:00:00:00:01", "02:00:00:00:00:02", "0000:18:00.0"
	device := netattach.DeviceIntent{PCI: pci, HostName: "rail0", PodName: "net1", HostMAC: mac}
	for name, test := range map[string]struct {
		index int
		links []netlink.Link
		want  int // 0 if it is not there
	}{
		"returned by the kernel with another MAC":         {0, []netlink.Link{link(3, "net1", other, "0000:19:00.0", other), link(4, "dev0", other, pci, mac)}, 4},
		"a decoy on the host beside it":                   {0, []netlink.Link{link(3, "rail0", mac, "", ""), link(4, "dev0", other, pci, mac)}, 4},
		"taken by another index":                          {5, []netlink.Link{link(5, "net1", mac, "", ""), link(9, "x", other, pci, mac)}, 9},
		"its representor alone":                           {0, []netlink.Link{link(7, "rail0r0", other, pci, "")}, 0},
		"beside its representor":                          {0, []netlink.Link{link(7, "rail0r0", other, pci, ""), link(4, "rail0", mac, pci, mac)}, 4},
		"on a kernel that tells no function, by index":    {5, []netlink.Link{link(5, "x", other, "", "")}, 5},
		"on a kernel that tells no function, and away":    {5, []netlink.Link{link(6, "net1", mac, "", "")}, 0},
		"on a kernel that tells no function, on the host": {0, []netlink.Link{link(6, "dev0", mac, "", "")}, 6},
	} {
		t.Run(name, func(t *testing.T) {
			found, err := pick(test.links, device, test.index)
			switch {
			case test.want == 0 && !errors.Is(err, ErrNotFound):
				t.Errorf("%v, %v; want ErrNotFound", found, err)
			case test.want != 0 && (err != nil || found.Attrs().Index != test.want):
				t.Errorf("%+v, %v; want index %d", found, err, test.want)
			}
		})
	}
}
