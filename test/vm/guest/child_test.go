package guest

// Children of a real PF: every mode of macvlan and ipvlan, with traffic between two
// pods' namespaces and over the wire to the other PF, limited by tc.

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/types"

	"github.com/hostler-dev/hostler/netattach"
	"github.com/hostler-dev/hostler/netattach/link"
)

// pods are two namespaces, and the host that their children's parent is on.
type pods struct {
	host       *link.Host
	descriptor [2]int
	device     [2]netattach.DeviceIntent
}

// attachChildren gives two namespaces a child each of the first PF, with the addresses
// 10.9.0.1 and 10.9.0.2, the first one held to a bandwidth unless that is 0.
func attachChildren(t *testing.T, child netattach.ChildIntent, bandwidth uint64) *pods {
	t.Helper()
	host, err := link.NewHost(link.HostConfig{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := host.Close(); err != nil {
			t.Error(err)
		}
	})
	parent := find(t, discover(t, "uplink"), pf0) // the machine has none
	p := &pods{host: host}
	for i, name := range []string{"pod-a", "pod-b"} {
		p.descriptor[i] = namespace(t, name)
		id, own := types.UID(name), child
		device, err := host.Remember(netattach.DeviceIntent{
			Pool: "node/nic", Device: parent.Name, ShareID: &id, PCI: pf0, HostName: parent.Link.Name, PodName: "share0", HostMAC: parent.Link.MAC,
			Child: &own, Addresses: []netip.Prefix{netip.MustParsePrefix([]string{"10.9.0.1/24", "10.9.0.2/24"}[i])},
		})
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			device.Bandwidth = bandwidth
		}
		// As often as a restarted agent may do it.
		for range 2 {
			if device.PodIndex, err = host.Into(t.Context(), p.descriptor[i], device); err != nil {
				t.Fatal(err)
			}
			if err := host.Up(t.Context(), p.descriptor[i], device); err != nil {
				t.Fatal(err)
			}
		}
		p.device[i] = device
		t.Cleanup(func() {
			if found, err := host.Home(context.Background(), p.descriptor[i], device); err != nil || !found {
				t.Errorf("Home: %v, %v", found, err)
			}
			if left := said(t, "/opt/ip", "netns", "exec", name, "/opt/ip", "-brief", "link"); len(strings.Split(strings.TrimSpace(left), "\n")) != 1 {
				t.Errorf("%s still has\n%s", name, left)
			}
		})
	}
	return p
}

// parentAsBefore fails the test at its end unless the PF is as it is now.
func parentAsBefore(t *testing.T) {
	t.Helper()
	parent := netdev(t, pf0)
	look := func() string {
		return carrier.ReplaceAllString(said(t, "/opt/ip", "-details", "link", "show", parent)+
			said(t, "/opt/ip", "-oneline", "address", "show", "dev", parent, "scope", "global")+
			said(t, "/opt/ip", "-6", "route", "show", "dev", parent), "")
	}
	before := look()
	t.Cleanup(func() {
		eventually(t, func() string { return cmp.Diff(before, look()) })
	})
}

func TestChildrenOfAPFInEveryMode(t *testing.T) {
	for name, test := range map[string]struct {
		child netattach.ChildIntent
		// apart: the children do not reach each other. With vepa that is the switch's to
		// say, and igb's own sends frames back.
		apart bool
	}{
		"macvlan, bridge":  {netattach.ChildIntent{Kind: "macvlan", Mode: "bridge"}, false},
		"macvlan, private": {netattach.ChildIntent{Kind: "macvlan", Mode: "private"}, true},
		"macvlan, vepa":    {netattach.ChildIntent{Kind: "macvlan", Mode: "vepa"}, false},
		"ipvlan, l2":       {netattach.ChildIntent{Kind: "ipvlan", Mode: "l2"}, false},
		"ipvlan, l3":       {netattach.ChildIntent{Kind: "ipvlan", Mode: "l3"}, false},
		"ipvlan, l3s":      {netattach.ChildIntent{Kind: "ipvlan", Mode: "l3s"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			asBefore(t)
			parentAsBefore(t)
			p := attachChildren(t, test.child, 0)
			for i, descriptor := range p.descriptor {
				if present, err := link.Present(descriptor, p.device[i]); err != nil || !present {
					t.Errorf("Present: %v, %v", present, err)
				}
			}
			if shown := said(t, "/opt/ip", "netns", "exec", "pod-a", "/opt/ip", "-details", "link", "show", "share0"); !strings.Contains(shown, test.child.Kind+" ") || !strings.Contains(shown, " mode "+test.child.Mode) {
				t.Errorf("want a %s in mode %s:\n%s", test.child.Kind, test.child.Mode, shown)
			}
			out, err := exec.Command("/opt/ip", "netns", "exec", "pod-a", "ping", "-c", "2", "-W", "2", "10.9.0.2").CombinedOutput()
			if reached := err == nil; reached == test.apart {
				t.Errorf("the pods reach each other: %v\n%s", reached, out)
			}
		})
	}
}

// The second PF is at the other end of the first one's wire.
func TestChildOfAPFReachesTheWire(t *testing.T) {
	asBefore(t)
	for _, child := range []netattach.ChildIntent{{Kind: "macvlan", Mode: "bridge"}, {Kind: "ipvlan", Mode: "l2"}} {
		t.Run(child.Kind, func(t *testing.T) {
			parentAsBefore(t)
			far := netdev(t, pf1)
			ip(t, "address add 10.9.0.9/24 dev "+far)
			t.Cleanup(func() { ip(t, "address delete 10.9.0.9/24 dev "+far) })
			attachChildren(t, child, 0)
			eventually(t, func() string {
				out, err := exec.Command("/opt/ip", "netns", "exec", "pod-a", "ping", "-c", "1", "-W", "2", "10.9.0.9").CombinedOutput()
				if err != nil {
					return string(out)
				}
				return ""
			})
		})
	}
}

func TestChildrenOfAPFMoveWhatTheyAskedFor(t *testing.T) {
	const limit = 20e6
	asBefore(t)
	for _, child := range []netattach.ChildIntent{{Kind: "macvlan", Mode: "bridge"}, {Kind: "ipvlan", Mode: "l2"}} {
		t.Run(child.Kind, func(t *testing.T) {
			parentAsBefore(t)
			p := attachChildren(t, child, limit)
			for name, direction := range map[string][2]int{"sends": {0, 1}, "receives": {1, 0}} {
				moved := flow(t, p.descriptor[direction[0]], p.descriptor[direction[1]], []string{"10.9.0.1", "10.9.0.2"}[direction[1]])
				t.Logf("a child limited to %.0f Mbit/s %s %.1f", limit/1e6, name, moved/1e6)
				if moved > 2*limit {
					t.Errorf("a child limited to %.0f Mbit/s %s %.1f", limit/1e6, name, moved/1e6)
				}
			}
		})
	}
}

// flow moves bytes over TCP for two seconds and returns how many bits per second arrived.
func flow(t *testing.T, from, to int, address string) float64 {
	t.Helper()
	var listener net.Listener
	var sender net.Conn
	if err := inNamespace(t, to, func() (err error) { listener, err = net.Listen("tcp", address+":0"); return err }); err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	if err := inNamespace(t, from, func() (err error) { sender, err = net.Dial("tcp", listener.Addr().String()); return err }); err != nil {
		t.Fatal(err)
	}
	defer sender.Close()
	receiver, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer receiver.Close()
	go func() {
		for payload := make([]byte, 64<<10); ; {
			if _, err := sender.Write(payload); err != nil {
				return // the test closes the connection
			}
		}
	}()
	// What arrives first may have been waiting in the bucket.
	if _, err := io.CopyN(io.Discard, receiver, 512<<10); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if err := receiver.SetReadDeadline(began.Add(2 * time.Second)); err != nil {
		t.Fatal(err)
	}
	count, err := io.Copy(io.Discard, receiver)
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal(err)
	}
	return float64(count) * 8 / time.Since(began).Seconds()
}
