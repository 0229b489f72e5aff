package nic

import (
	"context"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

func TestWatchHintsAtChangesAndEnds(t *testing.T) {
	own := inNamespace(t)
	// No addresses of the kernel's own, which it announces seconds later, once it
	// has looked for duplicates.
	if err := os.WriteFile("/proc/sys/net/ipv6/conf/default/addr_gen_mode", []byte("1"), 0o644); err != nil {
		t.Skipf("cannot keep IPv6 quiet: %v", err)
	}
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
	// quiet waits until nothing is announced any more: a link that comes up has
	// several things to announce.
	quiet := func() {
		t.Helper()
		for {
			select {
			case <-hints:
			case err := <-ended:
				t.Fatalf("watching ended: %v", err)
			case <-time.After(300 * time.Millisecond):
				return
			}
		}
	}
	wait("the beginning")
	link := veth(t, "fresh")
	wait("a new link")
	up(t, link)
	wait("a link that is set up")
	quiet()
	address4(t, link, "192.0.2.7/24")
	wait("an address")
	for _, change := range []struct {
		what string
		make func()
	}{
		{"a route", func() { addRoute(t, link, "203.0.113.0/24") }},
		{"an IPv6 route", func() { addRoute(t, link, "2001:db8::/64") }},
		{"a rule", func() { addRule(t, netlink.FAMILY_V4, func(r *netlink.Rule) { r.Table = 100 }) }},
		{"an IPv6 rule", func() { addRule(t, netlink.FAMILY_V6, func(r *netlink.Rule) { r.Table = 100 }) }},
		{"a next-hop object", func() { gateway(t, 7, link, "192.0.2.1") }},
	} {
		quiet()
		change.make()
		wait(change.what)
	}
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

func addRoute(t *testing.T, link netlink.Link, destination string) {
	t.Helper()
	if err := netlink.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: cidr(destination)}); err != nil {
		t.Fatal(err)
	}
}
