package attach

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/hostler-dev/hostler/netattach/internal/nettest"
)

// withDefault is a claim of a network that is to be the default of a pod that the
// cluster's network gave an interface.
func (n *node) withDefault(t *testing.T) {
	t.Helper()
	n.plugin(t, "first", "")
	nettest.Join(t, n.pod, "eth0", n.peer, "cluster")
	n.peer.Up(t, "cluster")
	n.pod.Up(t, "eth0", "192.0.2.5/24")
	everything := &net.IPNet{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)}
	if err := n.pod.Handle.RouteAdd(&netlink.Route{Dst: everything, Gw: netip.MustParseAddr("192.0.2.1").AsSlice(), MTU: 1400}); err != nil {
		t.Fatal(err)
	}
	rail := network("a", "", "first")
	rail.DefaultRoute = []netip.Addr{netip.MustParseAddr("10.1.0.1")}
	n.claim("claim-1", nil, n.withNetworks(t, "rail0", "net1", "10.1.0.5/24", rail))
}

func (n *node) defaults(t *testing.T) (lines []string) {
	t.Helper()
	routes, err := n.pod.Handle.RouteList(nil, netlink.FAMILY_V4)
	if err != nil {
		t.Fatal(err)
	}
	for _, route := range routes {
		if ones, _ := route.Dst.Mask.Size(); ones == 0 {
			lines = append(lines, route.String())
		}
	}
	return lines
}

// The claim goes and its pod lives on, with the way out that it had before, whatever
// became of the agent and however often the pod was attached.
func TestPodHasItsDefaultRouteAgain(t *testing.T) {
	for name, taken := range map[string]func(t *testing.T, n *node) error{
		"the claim is released": func(_ *testing.T, n *node) error { return n.attacher.Release(context.Background(), "claim-1") },
		"by the next agent": func(t *testing.T, n *node) error {
			n.restart(t)
			return n.attacher.Release(context.Background(), "claim-1")
		},
		"the claim was unprepared while the agent was away": func(t *testing.T, n *node) error {
			n.restart(t)
			delete(n.intents, "claim-1")
			return n.attacher.Reconcile(context.Background())
		},
		"the sandbox stops": func(_ *testing.T, n *node) error {
			return n.attacher.DetachSandbox(context.Background(), "pod-1", "sandbox-1")
		},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			n.withDefault(t)
			before := n.defaults(t)
			for range 2 {
				n.attach(t)
			}
			if now := n.defaults(t); len(now) != 1 || !strings.Contains(now[0], "10.1.0.1") {
				t.Fatalf("default routes while it is attached: %v", now)
			}
			if err := taken(t, n); err != nil {
				t.Fatal(err)
			}
			if after := n.defaults(t); !slices.Equal(after, before) || n.recordCount(t) != 0 {
				t.Errorf("default routes %v, want %v; %d records", after, before, n.recordCount(t))
			}
		})
	}
}

// An agent that is killed once it has replaced the route knows the former one, and one
// that was killed before it wrote it down has replaced nothing.
func TestDefaultRouteOfAnAttachmentThatWasCutShort(t *testing.T) {
	n := newNode(t)
	n.withDefault(t)
	before := n.defaults(t)
	n.attach(t)
	record, _, err := n.attacher.records.read("claim-1", "pod-1")
	if err != nil {
		t.Fatal(err)
	}
	record.State = StateAttaching
	if err := n.attacher.records.write(record); err != nil {
		t.Fatal(err)
	}
	n.restart(t)
	n.attach(t)
	if err := n.attacher.Release(context.Background(), "claim-1"); err != nil {
		t.Fatal(err)
	}
	if after := n.defaults(t); !slices.Equal(after, before) {
		t.Errorf("default routes %v, want %v", after, before)
	}
}

// What fails behind it takes the default route back as it takes back all else.
func TestFailureBehindTheDefaultRouteGivesItBack(t *testing.T) {
	n := newNode(t)
	n.withDefault(t)
	before := n.defaults(t)
	second := network("b", "", "first")
	second.DefaultRoute = []netip.Addr{netip.MustParseAddr("198.51.100.1")} // which is on no network
	n.claim("claim-2", nil, n.withNetworks(t, "rail1", "net2", "10.2.0.5/24", second))
	if err := n.attacher.Attach(context.Background(), n.sandbox); err == nil || !strings.Contains(err.Error(), "198.51.100.1") {
		t.Fatalf("%v; want an error that names the gateway", err)
	}
	if after := n.defaults(t); !slices.Equal(after, before) {
		t.Errorf("default routes %v, want %v", after, before)
	}
}
