package nic

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// inNamespace gives the test a network namespace of its own, with the real kernel in it.
func inNamespace(t *testing.T) netns.NsHandle {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root to make a network namespace")
	}
	runtime.LockOSThread() // never unlocked: the thread goes away with the test's goroutine
	before, err := netns.Get()
	if err != nil {
		t.Fatal(err)
	}
	own, err := netns.New()
	if err != nil {
		t.Skipf("cannot make a network namespace: %v", err)
	}
	t.Cleanup(func() {
		if err := errors.Join(netns.Set(before), own.Close(), before.Close()); err != nil {
			t.Error(err)
		}
	})
	return own
}

func add(t *testing.T, link netlink.Link) netlink.Link {
	t.Helper()
	if err := netlink.LinkAdd(link); err != nil {
		t.Fatalf("add %s: %v", link.Attrs().Name, err)
	}
	made, err := netlink.LinkByName(link.Attrs().Name)
	if err != nil {
		t.Fatal(err)
	}
	return made
}

func veth(t *testing.T, name string) netlink.Link {
	return add(t, &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: name + "peer"})
}

func up(t *testing.T, link netlink.Link) {
	t.Helper()
	if err := netlink.LinkSetUp(link); err != nil {
		t.Fatal(err)
	}
}

func TestTheKernelTellsStacksRoutesAndAddresses(t *testing.T) {
	inNamespace(t)
	port, bridge := veth(t, "port"), add(t, &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br0"}})
	upper := add(t, &netlink.Macvlan{LinkAttrs: netlink.LinkAttrs{Name: "up0", ParentIndex: bridge.Attrs().Index}, Mode: netlink.MACVLAN_MODE_BRIDGE})
	peer, err := netlink.LinkByName("portpeer")
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkSetMaster(port, bridge); err != nil {
		t.Fatal(err)
	}
	for _, link := range []netlink.Link{port, peer, bridge, upper} {
		up(t, link)
	}
	address, _ := netlink.ParseAddr("192.0.2.7/24")
	if err := netlink.AddrAdd(upper, address); err != nil {
		t.Fatal(err)
	}
	gateway := netip.MustParseAddr("192.0.2.1")
	if err := netlink.RouteAdd(&netlink.Route{LinkIndex: upper.Attrs().Index, Gw: gateway.AsSlice(), Priority: 7}); err != nil {
		t.Fatal(err)
	}

	n, err := observe(Netlink{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]LinkState{
		"port": {Kind: "veth", Type: "ethernet", Master: bridge.Attrs().Index},
		"br0":  {Kind: "bridge", Type: "ethernet"},
		"up0":  {Kind: "macvlan", Type: "ethernet", Lower: bridge.Attrs().Index},
	} {
		got := n.byName[name]
		if got.Kind != want.Kind || got.Type != want.Type || got.Master != want.Master || got.Lower != want.Lower {
			t.Errorf("%s is %+v, want %+v", name, got, want)
		}
	}
	route := Route{Destination: netip.MustParsePrefix("0.0.0.0/0"), Links: []int{upper.Attrs().Index}, Metric: 7}
	if !slices.ContainsFunc(n.routes, func(r chosenRoute) bool {
		return cmp.Equal(r.Links, route.Links) && r.Destination == route.Destination && r.Metric == 7 && slices.Equal(r.Gateways, []netip.Addr{gateway})
	}) {
		t.Errorf("the default route is not among %+v", n.routes)
	}
	if want := []netip.Prefix{netip.MustParsePrefix("192.0.2.7/24")}; !slices.Equal(n.addresses[upper.Attrs().Index], want) {
		t.Errorf("up0 has the addresses %v", n.addresses[upper.Attrs().Index])
	}
	reasons := judge(n, New(Config{Sys: "/nonexistent"}).stackOf(n), interests{}).reasons
	if reasons[port.Attrs().Index] == "" || reasons[peer.Attrs().Index] != "" {
		t.Errorf("below a macvlan on a bridge, the bridge's port carries the default route and the port's peer does not: %v", reasons)
	}
}

func TestWatchHintsAtChangesAndEnds(t *testing.T) {
	own := inNamespace(t)
	ctx, cancel := context.WithCancel(t.Context())
	hints := make(chan struct{}, 1)
	ended := make(chan error, 1)
	go func() {
		// The subscription's sockets belong to the namespace of the thread that opens them.
		runtime.LockOSThread()
		if err := netns.Set(own); err != nil {
			ended <- err
			return
		}
		ended <- Watch(ctx, func() {
			select {
			case hints <- struct{}{}:
			default:
			}
		})
	}()
	wait := func(what string) {
		t.Helper()
		select {
		case <-hints:
		case err := <-ended:
			t.Fatalf("watching ended: %v", err)
		case <-time.After(10 * time.Second):
			t.Fatalf("no hint at %s", what)
		}
	}
	wait("the beginning")
	link := veth(t, "fresh")
	wait("a new link")
	up(t, link)
	wait("a link that is set up")
	cancel()
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("watching ended with %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Error("watching did not end")
	}
}
