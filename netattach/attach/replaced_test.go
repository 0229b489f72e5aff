package attach

// Sandboxes that follow one another, and containers that come at once: what one of them
// found is not what the next one finds.

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/hostler-dev/hostler/api/v1alpha1"
	"github.com/hostler-dev/hostler/netattach"
	"github.com/hostler-dev/hostler/netattach/egress"
	"github.com/hostler-dev/hostler/netattach/internal/nettest"
)

// dies lets the sandbox's namespace die without a hook. Its device net1 is on its way home
// until it is let go.
func (n *node) dies(t *testing.T) (letGo func()) {
	t.Helper()
	limbo := nettest.New(t)
	if err := errors.Join(n.pod.Handle.LinkSetNsFd(n.pod.Link(t, "net1"), limbo.FD), os.Remove(n.sandbox.NetNS)); err != nil {
		t.Fatal(err)
	}
	return func() {
		t.Helper()
		if err := limbo.Handle.LinkSetNsFd(limbo.Link(t, "net1"), n.host.FD); err != nil {
			t.Fatal(err)
		}
	}
}

func (n *node) replace(in *nettest.Namespace) {
	n.sandbox = Sandbox{ID: "sandbox-2", NetNS: in.Path, Pod: n.sandbox.Pod}
}

// The pod's next sandbox comes before one of its two devices is home. It fails, and what
// the device had on the host is not forgotten for that.
func TestNextSandboxComesBeforeADeviceIsHome(t *testing.T) {
	second := nettest.New(t)
	n, ctx := furnished(t), context.Background()
	n.intents["claim-1"] = netattach.Intent{ClaimUID: "claim-1", ClaimNamespace: "ns", ClaimName: "claim-1", Pods: n.intents["claim-1"].Pods,
		Devices: append(n.intents["claim-1"].Devices, n.intents["claim-2"].Devices...)}
	delete(n.intents, "claim-2")
	before := n.host.Snapshot(t)
	n.attach(t)
	letGo := n.dies(t)
	if err := n.pod.Handle.LinkSetNsFd(n.pod.Link(t, "net2"), n.host.FD); err != nil {
		t.Fatal(err)
	}
	n.replace(second)
	for range 2 {
		if err := n.attacher.Attach(ctx, n.sandbox); err == nil {
			t.Fatal("attached without one of its devices")
		}
	}
	letGo()
	n.attach(t)
	if !second.Has(t, "net1") || !second.Has(t, "net2") {
		t.Error("the next sandbox does not have both devices")
	}
	if err := n.attacher.DetachSandbox(ctx, "pod-1", n.sandbox.ID); err != nil {
		t.Fatal(err)
	}
	n.host.Same(t, "home from the next sandbox,", before)
}

// Of an attachment that is over but for its device no chain is left to take back; of the
// next one's there is one to run.
func TestNextSandboxHasItsChainsThoughItsDeviceCameHomeLate(t *testing.T) {
	second := nettest.New(t)
	n, ctx := newNode(t), context.Background()
	n.plugin(t, "first", "")
	n.claim("claim-1", nil, n.withNetworks(t, "rail0", "net1", "10.1.0.5/24", network("a", "", "first")))
	if err := n.attacher.Attach(ctx, n.sandbox); err != nil {
		t.Fatal(err)
	}
	letGo := n.dies(t)
	if err := n.attacher.Reconcile(ctx); err != nil || n.recordCount(t) != 1 {
		t.Fatalf("%v, %d records", err, n.recordCount(t))
	}
	letGo()
	n.called(t)
	n.replace(second)
	if err := n.attacher.Attach(ctx, n.sandbox); err != nil {
		t.Fatal(err)
	}
	equal(t, "for the next sandbox", n.called(t), "first ADD net1")
	if err := n.attacher.DetachSandbox(ctx, "pod-1", n.sandbox.ID); err != nil {
		t.Fatal(err)
	}
}

// The kernel gives the number of a namespace that is gone to the next one. The pod's
// next sandbox has an interface where the device was in the last one.
func TestNextSandboxHasTheNumberOfTheLastOne(t *testing.T) {
	n, ctx := newNode(t), context.Background()
	n.claim("claim-1", nil, n.device(t, "rail0", "net1", "10.1.0.5/24"))
	if err := n.attacher.Attach(ctx, n.sandbox); err != nil {
		t.Fatal(err)
	}
	index := n.pod.Link(t, "net1").Attrs().Index
	if err := errors.Join(n.giveBack(t), os.Remove(n.sandbox.NetNS)); err != nil {
		t.Fatal(err)
	}
	eth0 := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth0", Index: index}, PeerName: "cluster", PeerNamespace: netlink.NsFd(n.peer.FD)}
	if err := n.pod.Handle.LinkAdd(eth0); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "netns")
	if err := os.Symlink(n.pod.Path, path); err != nil {
		t.Fatal(err)
	}
	n.sandbox.ID, n.sandbox.NetNS = "sandbox-2", path
	mac := n.pod.Link(t, "eth0").Attrs().HardwareAddr.String()
	n.restart(t)
	if err := n.attacher.Attach(ctx, n.sandbox); err != nil {
		t.Fatal(err)
	}
	if got := n.pod.Link(t, "eth0").Attrs(); got.Index != index || got.HardwareAddr.String() != mac {
		t.Errorf("eth0 is %d with %s, was %d with %s", got.Index, got.HardwareAddr, index, mac)
	}
	if !n.pod.Has(t, "net1") {
		t.Error("the next sandbox does not have the device")
	}
	if err := n.attacher.DetachSandbox(ctx, "pod-1", n.sandbox.ID); err != nil || !n.pod.Has(t, "eth0") || !n.host.Has(t, "rail0") {
		t.Errorf("%v; the pod has eth0: %t, rail0 is home: %t", err, n.pod.Has(t, "eth0"), n.host.Has(t, "rail0"))
	}
}

// Two containers of a pod start at once, and by each the pod joins a scope that was
// prepared for others. The pod may do what both allow from then on.
func TestTwoScopesAreJoinedAtOnce(t *testing.T) {
	n, ctx := newNode(t), context.Background()
	wide := scope("10.1.0.0/24", 80)
	wide.Allow[0].Ports = append(wide.Allow[0].Ports, v1alpha1.EgressPort{Port: 81})
	n.claim("claim-1", wide)
	other := scope("10.1.0.0/24", 81)
	other.Allow[0].Ports = append(other.Allow[0].Ports, v1alpha1.EgressPort{Port: 82})
	n.claim("claim-2", other)
	for claim, intent := range n.intents {
		intent.Pods = nil
		n.intents[claim] = intent
	}
	both := []netattach.Intent{n.intents["claim-1"], n.intents["claim-2"]}
	rules, _, err := scopeOf(both)
	if err != nil {
		t.Fatal(err)
	}
	letGo, answers := n.hold(t), make(chan error)
	for _, intent := range both {
		go func() {
			answers <- n.attacher.Admit(ctx, Container{Sandbox: n.sandbox, Claim: intent.ClaimUID}, n.pod.FD)
		}()
	}
	n.waits(5)
	letGo()
	if err := errors.Join(<-answers, <-answers); err != nil {
		t.Fatal(err)
	}
	if err := egress.Verify(ctx, n.pod.FD, rules); err != nil {
		t.Errorf("the pod's rules are not those of both scopes: %v", err)
	}
}

// What a hook found of a claim is no reason to attach it when that is over.
func TestClaimThatIsUnpreparedWhileItsPodWaits(t *testing.T) {
	n, ctx := newNode(t), context.Background()
	n.claim("claim-1", nil, n.device(t, "rail0", "net1", "10.1.0.5/24"))
	letGo, answer := n.hold(t), make(chan error, 1)
	go func() { answer <- n.attacher.Attach(ctx, n.sandbox) }()
	n.waits(3)
	delete(n.intents, "claim-1")
	letGo()
	if err := <-answer; err == nil || !strings.Contains(err.Error(), "ns/claim-1 was unprepared meanwhile") {
		t.Errorf("%v; want a refusal", err)
	}
	if !n.host.Has(t, "rail0") || n.recordCount(t) != 0 {
		t.Errorf("rail0 is on the host: %t, records: %d", n.host.Has(t, "rail0"), n.recordCount(t))
	}
}
