package attach

// Agents are killed, one at a time, at every moment at which they change anything:
// records, netdevs, and all that these are given. What the next agent makes of it is
// either the whole attachment or none, and then the machine is as it was before.

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"
	"k8s.io/apimachinery/pkg/types"

	"github.com/hostler-dev/hostler/netattach"
	"github.com/hostler-dev/hostler/netattach/internal/killing"
	"github.com/hostler-dev/hostler/netattach/internal/nettest"
)

// hostFD is the host's namespace in a doomed process, after the socket by which it is killed.
const hostFD = 4

// doomed is what an agent in a process of its own is told.
type doomed struct {
	Run     string
	Bin     string
	Act     string
	Sandbox Sandbox
	Intents journal
}

// TestDoomedAgent is that agent, when TestKilledAtEveryMoment starts it.
func TestDoomedAgent(t *testing.T) {
	raw, err := os.ReadFile(os.Getenv("HOSTLER_DOOMED"))
	if err != nil {
		t.Skip("only TestKilledAtEveryMoment runs this")
	}
	var told doomed
	if err := json.Unmarshal(raw, &told); err != nil {
		t.Fatal(err)
	}
	host := hostFD
	attacher, err := New(Config{Intents: told.Intents, Run: told.Run, HostNamespace: &host, CNIBin: told.Bin, CNICache: filepath.Join(told.Run, "cni")})
	if err != nil {
		t.Fatal(err)
	}
	if err := killing.Begin(); err != nil {
		t.Fatal(err)
	}
	switch told.Act {
	case "attach":
		err = attacher.Attach(context.Background(), told.Sandbox)
	case "detach":
		err = attacher.DetachSandbox(context.Background(), told.Sandbox.Pod.UID, told.Sandbox.ID)
	case "restore":
		err = attacher.Reconcile(context.Background())
	}
	if err != nil {
		t.Error(err)
	}
}

// begin has a doomed agent act, killed at that moment.
func (n *node) begin(t *testing.T, act string, at int) (moments int, last string, killed bool) {
	t.Helper()
	raw, err := json.Marshal(doomed{Run: n.run, Bin: n.bin, Act: act, Sandbox: n.sandbox, Intents: n.intents})
	if err != nil {
		t.Fatal(err)
	}
	told := filepath.Join(t.TempDir(), "told")
	if err := os.WriteFile(told, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	host, err := os.Open(n.host.Path)
	if err != nil {
		t.Fatal(err)
	}
	defer host.Close()
	command := exec.Command("/proc/self/exe", "-test.run=^TestDoomedAgent$")
	command.Env, command.ExtraFiles = append(os.Environ(), "HOSTLER_DOOMED="+told), []*os.File{host}
	output, err := os.Create(filepath.Join(t.TempDir(), "output"))
	if err != nil {
		t.Fatal(err)
	}
	defer output.Close()
	command.Stdout, command.Stderr = output, output
	moments, last, killed, err = killing.Run(command, at)
	if err != nil {
		said, _ := os.ReadFile(output.Name())
		t.Fatalf("%s, to be killed at moment %d: %v\n%s", act, at, err, said)
	}
	return moments, last, killed
}

// furnished is a node whose NICs have what an administrator can give them, and a
// claim that wants other things of them.
func furnished(t *testing.T) *node {
	t.Helper()
	n := newNode(t)
	n.host.Up(t, "rail0", "192.0.2.7/24", "2001:db8:7::7/64")
	n.host.Sysctl(t, "net/ipv4/conf/rail0/arp_ignore", "2")
	n.host.Route(t, "198.51.100.0/24", "192.0.2.1")
	if err := errors.Join(n.host.Handle.LinkSetAlias(n.host.Link(t, "rail0"), "rail"), n.host.Handle.LinkSetMTU(n.host.Link(t, "rail1"), 1450)); err != nil {
		t.Fatal(err)
	}
	rich := n.device(t, "rail0", "net1", "10.1.0.5/24")
	rich.MTU, rich.HardwareAddress = 1400, "02:00:5e:10:00:01"
	rich.Sysctls = map[string]string{"net/ipv4/conf/IFNAME/arp_ignore": "1"}
	rich.Features = map[string]bool{"tx-scatter-gather": false}
	rich.Neighbours = []netattach.Neighbour{{Address: netip.MustParseAddr("10.1.0.77"), HardwareAddress: "02:00:00:00:00:77"}}
	rich.Routes = []netattach.Route{{Destination: netip.MustParsePrefix("0.0.0.0/0"), Gateway: netip.MustParseAddr("10.1.0.1"), Table: 100}}
	rich.Rules = []netattach.Rule{{Priority: 1000, Source: netip.MustParsePrefix("10.1.0.5/32"), Table: 100}}
	n.claim("claim-1", nil, rich)
	n.claim("claim-2", nil, n.device(t, "rail1", "net2", "10.2.0.5/24"))
	return n
}

// returned does what the kernel does when the pod's namespace dies without a hook.
func (n *node) returned(t *testing.T) {
	t.Helper()
	if err := os.Remove(n.sandbox.NetNS); err != nil {
		t.Fatal(err)
	}
	links, err := n.pod.Handle.LinkList()
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range links {
		if link.Type() != "veth" {
			continue
		}
		if n.host.Has(t, link.Attrs().Name) { // the kernel's fall-back
			err = errors.Join(n.pod.Handle.LinkSetDown(link), n.pod.Handle.LinkSetName(link, fmt.Sprintf("dev%d", link.Attrs().Index)))
		}
		if err = errors.Join(err, n.pod.Handle.LinkSetNsFd(link, n.host.FD)); err != nil {
			t.Fatal(err)
		}
	}
}

type succession struct {
	name     string
	goOn     func(t *testing.T, n *node) error
	complete bool
}

// successions are what may come after the kill. Those that are not complete end with
// nothing left.
var successions = []succession{
	{"the same is asked for again", func(_ *testing.T, n *node) error {
		return n.attacher.Attach(context.Background(), n.sandbox)
	}, true},
	{"reconciliation comes first", func(_ *testing.T, n *node) error {
		return errors.Join(n.attacher.Reconcile(context.Background()), n.attacher.Attach(context.Background(), n.sandbox))
	}, true},
	{"the sandbox ends", func(_ *testing.T, n *node) error {
		return n.attacher.DetachSandbox(context.Background(), "pod-1", "sandbox-1")
	}, false},
	{"its claims are released", func(_ *testing.T, n *node) error {
		return errors.Join(n.attacher.Release(context.Background(), "claim-1"), n.attacher.Release(context.Background(), "claim-2"))
	}, false},
	{"its claims have gone, and nobody says so", func(_ *testing.T, n *node) error {
		maps.DeleteFunc(n.intents, func(types.UID, netattach.Intent) bool { return true })
		return n.attacher.Reconcile(context.Background())
	}, false},
	{"the namespace has gone", func(t *testing.T, n *node) error {
		n.returned(t)
		return n.attacher.Reconcile(context.Background())
	}, false},
}

func TestKilledAtEveryMoment(t *testing.T) {
	for _, test := range []struct {
		act     string
		before  func(t *testing.T, n *node)
		atLeast int
		// from is the first of the successions that can come after it.
		from int
	}{
		{"attach", func(*testing.T, *node) {}, 25, 0},
		{"detach", func(t *testing.T, n *node) { n.attach(t) }, 20, 2},
		{"restore", func(t *testing.T, n *node) { n.attach(t); n.returned(t) }, 15, 4},
	} {
		t.Run(test.act, func(t *testing.T) {
			moments, each := 1, 1
			if raceDetector { // which makes processes slow to start; the others pass without it
				each = 5
			}
			for at := 0; at <= moments; at += each { // 0 counts the moments
				n := furnished(t)
				host, pod := n.host.Snapshot(t), n.pod.Snapshot(t)
				test.before(t, n)
				lived, last, killed := n.begin(t, test.act, at)
				if at == 0 {
					moments = lived
				} else if !killed {
					t.Fatalf("the agent outlived moment %d of %d", at, moments)
				}
				choice := successions[test.from:]
				next := choice[at%len(choice)]
				if test.act == "restore" {
					next = successions[4] // the namespace has gone already
				}
				n.restart(t)
				name := fmt.Sprintf("%s, killed at moment %d of %d (%s), then %s:", test.act, at, moments, last, next.name)
				if err := next.goOn(t, n); err != nil {
					t.Fatalf("%s %v", name, err)
				}
				n.settled(t, name, next.complete, host, pod)
				if t.Failed() {
					return
				}
			}
			if t.Logf("%d moments", moments); moments < test.atLeast {
				t.Errorf("only %d moments to be killed at, want %d", moments, test.atLeast)
			}
		})
	}
}

// settled sees that the attachment is whole, if it is to be, and in any case that
// there is nothing of it once it is over.
func (n *node) settled(t *testing.T, name string, complete bool, host, pod nettest.Snapshot) {
	t.Helper()
	if complete {
		for _, claim := range []types.UID{"claim-1", "claim-2"} {
			if err := n.attacher.Check(context.Background(), "pod-1", claim, n.pod.FD); err != nil {
				t.Errorf("%s %v", name, err)
			}
		}
		n.whole(t, name)
		if err := n.attacher.DetachSandbox(context.Background(), "pod-1", "sandbox-1"); err != nil {
			t.Errorf("%s taken back: %v", name, err)
		}
	}
	n.host.Same(t, name, host)
	if _, err := os.Lstat(n.sandbox.NetNS); err == nil {
		n.pod.Same(t, name, pod)
	}
	if count := n.recordCount(t); count != 0 {
		t.Errorf("%s %d records are left", name, count)
	}
}

// whole sees that the pod has all that furnished's claim wants.
func (n *node) whole(t *testing.T, name string) {
	t.Helper()
	attrs := n.pod.Link(t, "net1").Attrs()
	rules, err := n.pod.Handle.RuleList(netlink.FAMILY_V4)
	if err != nil {
		t.Fatal(err)
	}
	routes, err := n.pod.Handle.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Table: 100}, netlink.RT_FILTER_TABLE)
	if err != nil {
		t.Fatal(err)
	}
	mine := slices.ContainsFunc(rules, func(r netlink.Rule) bool { return r.Priority == 1000 && r.Table == 100 })
	if attrs.MTU != 1400 || attrs.HardwareAddr.String() != "02:00:5e:10:00:01" || len(routes) != 1 || !mine || n.pod.ReadSysctl(t, "net/ipv4/conf/net1/arp_ignore") != "1" {
		t.Errorf("%s the pod has not all of it: %+v, routes %v, rules %v", name, attrs, routes, rules)
	}
}
