package link

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"github.com/hostler-dev/hostler/netattach/internal/nettest"
)

// podWithEth0 is a pod that the cluster's network gave two interfaces, and a claim net1.
func podWithEth0(t *testing.T) *nettest.Namespace {
	pod, far := nettest.New(t), nettest.New(t)
	for i, name := range []string{"eth0", "eth1", "net1"} {
		nettest.Join(t, pod, name, far, name)
		far.Up(t, name)
		pod.Up(t, name, fmt.Sprintf("192.0.%d.5/24", i), fmt.Sprintf("2001:db8:%d::5/64", i))
	}
	return pod
}

func defaultRoutes(t interface{ Fatal(...any) }, pod *nettest.Namespace) (all []netlink.Route) {
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		routes, err := pod.Handle.RouteListFiltered(family, &netlink.Route{Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_TABLE)
		if err != nil {
			t.Fatal(err)
		}
		for _, route := range routes {
			if ones, _ := route.Dst.Mask.Size(); ones == 0 {
				all = append(all, route)
			}
		}
	}
	return all
}

// A pod that outlives the claim has again what its cluster's network gave it,
// whatever that was.
func TestDefaultRouteIsGivenBack(t *testing.T) {
	pod := podWithEth0(t)
	in, err := open(pod.FD)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	rapid.Check(t, func(t *rapid.T) {
		index := func(name string) int {
			link, err := pod.Handle.LinkByName(name)
			if err != nil {
				t.Fatal(err)
			}
			return link.Attrs().Index
		}
		hop := func(i int, six bool) (gateway net.IP, link int) {
			gateway = net.ParseIP(fmt.Sprintf("192.0.%d.%d", i, rapid.IntRange(1, 4).Draw(t, "gateway")))
			if six {
				gateway = net.ParseIP(fmt.Sprintf("2001:db8:%d::%d", i, rapid.IntRange(1, 4).Draw(t, "gateway")))
			}
			return gateway, index([]string{"eth0", "eth1"}[i])
		}
		for i := range rapid.IntRange(0, 3).Draw(t, "routes") {
			six := rapid.Bool().Draw(t, "IPv6")
			route := &netlink.Route{
				Priority: rapid.SampledFrom([]int{0, 0, 100, 200}).Draw(t, "metric"), Protocol: netlink.RouteProtocol(rapid.SampledFrom([]int{0, unix.RTPROT_STATIC, 80}).Draw(t, "protocol")),
				MTU: rapid.SampledFrom([]int{0, 1400}).Draw(t, "MTU"), Dst: everything(netip.IPv4Unspecified()),
			}
			if six { // of which the kernel makes one of those with one metric, whatever else they have
				route.Dst, route.Priority = everything(netip.IPv6Unspecified()), 1000*i
			}
			switch rapid.IntRange(0, 3).Draw(t, "kind") {
			case 0: // over two interfaces
				for i := range 2 {
					gateway, link := hop(i, six)
					route.MultiPath = append(route.MultiPath, &netlink.NexthopInfo{LinkIndex: link, Gw: gateway, Hops: rapid.IntRange(0, 5).Draw(t, "weight")})
				}
			case 1: // to a gateway outside of every prefix
				_, route.LinkIndex = hop(0, six)
				route.Gw, route.Flags = net.ParseIP("198.51.100.1"), int(netlink.FLAG_ONLINK)
				if six {
					route.Gw = net.ParseIP("fe80::1")
				}
			case 2: // without a gateway
				_, route.LinkIndex = hop(1, six)
			default:
				route.Gw, route.LinkIndex = hop(rapid.IntRange(0, 1).Draw(t, "interface"), six)
				if !six && rapid.Bool().Draw(t, "source") {
					route.Src = net.ParseIP("192.0.0.5")
				}
			}
			if err := pod.Handle.RouteAppend(route); err != nil && !errors.Is(err, unix.EEXIST) {
				t.Fatalf("%+v: %v", route, err)
			}
		}
		before := defaultRoutes(t, pod)
		defer func() {
			for _, family := range []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()} {
				routes, err := in.defaults(family)
				for _, route := range routes {
					err = errors.Join(err, in.removeDefault(route))
				}
				if err != nil {
					t.Fatal(err)
				}
			}
		}()

		gateways := rapid.SampledFrom([][]netip.Addr{{netip.MustParseAddr("192.0.2.1")}, {netip.MustParseAddr("2001:db8:2::1")},
			{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8:2::1")}}).Draw(t, "gateways")
		former, err := OtherDefaultRoutes(pod.FD, "net1", gateways)
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := SetDefaultRoute(pod.FD, "net1", gateways); err != nil {
				t.Fatal(err)
			}
		}
		for _, gateway := range gateways {
			all := defaultRoutes(t, pod)
			of := slices.DeleteFunc(all, func(r netlink.Route) bool { return (r.Family == netlink.FAMILY_V6) != gateway.Is6() })
			if len(of) != 1 || !of[0].Gw.Equal(gateway.AsSlice()) || of[0].LinkIndex != index("net1") {
				t.Fatalf("default routes of %s: %v", gateway, of)
			}
		}
		if again, err := OtherDefaultRoutes(pod.FD, "net1", gateways); err != nil || len(again) != 0 {
			t.Fatalf("%v; there would be %d others to replace", err, len(again))
		}
		for range 2 { // an undoing that was cut short is repeated
			if err := RestoreDefaultRoutes(context.Background(), pod.FD, "net1", gateways, former); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(describeRoutes(before), describeRoutes(defaultRoutes(t, pod))); diff != "" {
				t.Fatalf("default routes (-before +after):\n%s", diff)
			}
		}
	})
}

func describeRoutes(routes []netlink.Route) (lines []string) {
	for _, route := range routes {
		lines = append(lines, fmt.Sprintf("%s mtu %d protocol %s flags %d", route, route.MTU, route.Protocol, route.Flags))
	}
	return lines
}

func TestDefaultRoutesThatAreNotGivenBack(t *testing.T) {
	gateways := []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8:2::1")}
	for name, test := range map[string]struct {
		happens func(t *testing.T, pod *nettest.Namespace)
		want    []string
	}{
		"nothing happened": {func(*testing.T, *nettest.Namespace) {}, []string{"192.0.0.1", "2001:db8::1"}},
		"the claim's interface is gone": {func(t *testing.T, pod *nettest.Namespace) {
			if err := pod.Handle.LinkDel(pod.Link(t, "net1")); err != nil {
				t.Fatal(err)
			}
		}, []string{"192.0.0.1", "2001:db8::1"}},
		"the way that they led is gone": {func(t *testing.T, pod *nettest.Namespace) {
			if err := pod.Handle.LinkDel(pod.Link(t, "eth0")); err != nil {
				t.Fatal(err)
			}
		}, nil},
		"the way that they led is down": {func(t *testing.T, pod *nettest.Namespace) {
			if err := pod.Handle.LinkSetDown(pod.Link(t, "eth0")); err != nil {
				t.Fatal(err)
			}
		}, nil},
		"the pod has made one itself": {func(t *testing.T, pod *nettest.Namespace) {
			if err := pod.Handle.RouteReplace(&netlink.Route{Dst: everything(netip.IPv4Unspecified()), Gw: net.ParseIP("192.0.1.1"), LinkIndex: pod.Link(t, "eth1").Attrs().Index}); err != nil {
				t.Fatal(err)
			}
		}, []string{"192.0.1.1", "2001:db8::1"}},
	} {
		t.Run(name, func(t *testing.T) {
			pod := podWithEth0(t)
			pod.Route(t, "0.0.0.0/0", "192.0.0.1")
			pod.Route(t, "::/0", "2001:db8::1")
			former, err := OtherDefaultRoutes(pod.FD, "net1", gateways)
			if err := errors.Join(err, SetDefaultRoute(pod.FD, "net1", gateways)); err != nil {
				t.Fatal(err)
			}
			test.happens(t, pod)
			if err := RestoreDefaultRoutes(t.Context(), pod.FD, "net1", gateways, former); err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, route := range defaultRoutes(t, pod) {
				got = append(got, route.Gw.String())
			}
			if !slices.Equal(got, test.want) {
				t.Errorf("default routes by %v, want %v", got, test.want)
			}
		})
	}
}

// What was taken apart once stays as it is when it is taken apart again.
func FuzzDecodeDefault(f *testing.F) {
	f.Add([]byte{2, 0, 0, 0, 254, 3, 0, 1, 0, 0, 0, 0, 8, 0, 5, 0, 192, 0, 0, 1, 8, 0, 4, 0, 2, 0, 0, 0})
	f.Add([]byte{2, 0, 0, 0, 254, 3, 0, 1, 1, 0, 0, 0, 12, 0, 9, 0, 8, 0, 255, 0, 2, 0, 0, 0})
	f.Fuzz(func(t *testing.T, told []byte) {
		route, isDefault, err := decodeDefault(told)
		if err != nil {
			return
		}
		again, still, err := decodeDefault(route.message)
		if diff := cmp.Diff(route, again, cmp.AllowUnexported(defaultRoute{})); diff != "" || still != isDefault || err != nil {
			t.Errorf("%v, %t then %t (-first +second):\n%s", err, isDefault, still, diff)
		}
	})
}
