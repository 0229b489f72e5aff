package attach

// What is found after the agent was away.

import (
	"context"
	"errors"
	"net"
	"os"
	"testing"

	"k8s.io/apimachinery/pkg/types"

	"github.com/hostler-dev/hostler/netattach/egress"
	"github.com/hostler-dev/hostler/netattach/internal/nettest"
)

// A kill between any two steps leaves an Attaching record and a part of the
// work; the next attempt completes it.
func TestAttachIsCompletedAfterAKill(t *testing.T) {
	n := newNode(t)
	device, err := n.attacher.host.Remember(n.device(t, "rail0", "net1", "10.1.0.5/24"))
	if err != nil {
		t.Fatal(err)
	}
	n.claim("claim-1", scope("10.1.0.0/24", 80), device)
	space, err := openNamespace(n.sandbox.NetNS)
	if err != nil {
		t.Fatal(err)
	}
	defer space.Close()
	if err := n.attacher.records.write(newRecord(n.sandbox, space, n.intents["claim-1"], "", StateAttaching)); err != nil {
		t.Fatal(err)
	}
	if _, err := n.attacher.host.Into(context.Background(), n.pod.FD, device); err != nil {
		t.Fatal(err)
	}
	n.restart(t)
	if err := n.attacher.Reconcile(context.Background()); err != nil {
		t.Fatal(err)
	}
	if err := n.attacher.Admit(context.Background(), Container{Sandbox: n.sandbox, Claim: "claim-1"}, n.pod.FD); err != nil {
		t.Fatal(err)
	}
	if err := n.attacher.Check(context.Background(), "pod-1", "claim-1", n.pod.FD); err != nil {
		t.Error(err)
	}
}

func TestReconcile(t *testing.T) {
	ctx := context.Background()
	for name, test := range map[string]struct {
		happens func(t *testing.T, n *node)
		expect  func(t *testing.T, n *node)
	}{
		"the claim was unprepared while the agent was away": {
			func(_ *testing.T, n *node) { delete(n.intents, "claim-1") },
			func(t *testing.T, n *node) {
				if !n.host.Has(t, "rail0") || n.recordCount(t) != 0 {
					t.Error("the stray did not come home")
				}
			}},
		"the namespace died and the kernel returned the device under its pod name": {
			func(t *testing.T, n *node) {
				if err := errors.Join(os.Remove(n.sandbox.NetNS), n.giveBack(t)); err != nil {
					t.Fatal(err)
				}
			},
			func(t *testing.T, n *node) {
				if !n.host.Has(t, "rail0") || n.recordCount(t) != 0 {
					t.Error("the device did not get its name back")
				}
			}},
		"the namespace died and took a veth along": {
			func(t *testing.T, n *node) {
				if err := errors.Join(os.Remove(n.sandbox.NetNS), n.pod.Handle.LinkDel(n.pod.Link(t, "net1"))); err != nil {
					t.Fatal(err)
				}
				n.lost = true
			},
			func(t *testing.T, n *node) {
				if n.recordCount(t) != 1 {
					t.Error("forgotten before the kernel had time to return it")
				}
				n.now = n.now.Add(missingFor)
				if err := n.attacher.Reconcile(ctx); err != nil || n.recordCount(t) != 0 {
					t.Errorf("not forgotten after %s: %v", missingFor, err)
				}
			}},
		"the egress rules were flushed": {
			func(t *testing.T, n *node) {
				if err := egress.Enforce(ctx, n.pod.FD, egress.Ruleset{}); err != nil {
					t.Fatal(err)
				}
			},
			func(t *testing.T, n *node) {
				if err := n.attacher.Check(ctx, "pod-1", "claim-1", n.pod.FD); err != nil {
					t.Errorf("not mended: %v", err)
				}
			}},
		"nothing": {
			func(*testing.T, *node) {},
			func(t *testing.T, n *node) {
				if err := n.attacher.Check(ctx, "pod-1", "claim-1", n.pod.FD); err != nil {
					t.Error(err)
				}
			}},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			n.claim("claim-1", scope("10.1.0.0/24", 80), n.device(t, "rail0", "net1", "10.1.0.5/24"))
			n.attach(t)
			test.happens(t, n)
			n.restart(t)
			if err := n.attacher.Reconcile(ctx); err != nil {
				t.Fatal(err)
			}
			test.expect(t, n)
		})
	}
}

// giveBack does to net1 what the kernel does to a physical device.
func (n *node) giveBack(t *testing.T) error {
	link := n.pod.Link(t, "net1")
	return errors.Join(n.pod.Handle.LinkSetDown(link), n.pod.Handle.LinkSetNsFd(link, n.host.FD), func() error {
		_, err := n.host.Handle.LinkByName("net1")
		return err
	}())
}

func TestReleaseBringsHomeWhatDetachMissed(t *testing.T) {
	n := newNode(t)
	n.claim("claim-1", nil, n.device(t, "rail0", "net1", "10.1.0.5/24"))
	n.claim("claim-2", nil, n.device(t, "rail1", "net2", "10.2.0.5/24"))
	n.attach(t)
	n.restart(t)
	if err := n.attacher.Release(context.Background(), "claim-1"); err != nil {
		t.Fatal(err)
	}
	if !n.host.Has(t, "rail0") {
		t.Error("the released claim's device is not home")
	}
	if !n.pod.Has(t, "net2") {
		t.Error("the other claim's device was taken")
	}
	if err := n.attacher.Release(context.Background(), "claim-1"); err != nil {
		t.Errorf("a second release: %v", err)
	}
}

// The next agent knows the device by its index in the pod, from the record.
func TestDeviceWhoseMACThePodChangedComesHomeAfterARestart(t *testing.T) {
	n := newNode(t)
	device := n.device(t, "rail0", "net1", "10.1.0.5/24")
	n.claim("claim-1", nil, device)
	n.attach(t)
	if err := n.pod.Handle.LinkSetHardwareAddr(n.pod.Link(t, "net1"), net.HardwareAddr{2, 0, 0, 0, 0, 0x77}); err != nil {
		t.Fatal(err)
	}
	n.restart(t)
	if err := n.attacher.Check(context.Background(), "pod-1", "claim-1", n.pod.FD); err != nil {
		t.Errorf("while it is in the pod: %v", err)
	}
	if err := n.attacher.DetachSandbox(context.Background(), "pod-1", n.sandbox.ID); err != nil {
		t.Fatal(err)
	}
	if mac := n.host.Link(t, "rail0").Attrs().HardwareAddr.String(); mac != device.HostMAC || n.recordCount(t) != 0 {
		t.Errorf("home with MAC address %s, want %s; %d records left", mac, device.HostMAC, n.recordCount(t))
	}
}

// A pod's sandbox is replaced, and nobody said that the old one ended.
func TestNewSandboxTakesTheDevicesOver(t *testing.T) {
	n := newNode(t)
	n.claim("claim-1", nil, n.device(t, "rail0", "net1", "10.1.0.5/24"))
	n.attach(t)
	second := nettest.New(t)
	n.sandbox = Sandbox{ID: "sandbox-2", NetNS: second.Path, Pod: n.sandbox.Pod}
	n.attach(t)
	if !second.Has(t, "net1") || n.pod.Has(t, "net1") {
		t.Error("the device is not in the new sandbox")
	}
	if err := n.attacher.DetachSandbox(context.Background(), "pod-1", n.sandbox.ID); err != nil {
		t.Error(err)
	}
}

// What an agent cannot know is no reason to take anything from a pod.
func TestClaimThatMayBePreparedKeepsItsDevices(t *testing.T) {
	n := newNode(t)
	n.claim("claim-1", nil, n.device(t, "rail0", "net1", "10.1.0.5/24"))
	if err := n.attacher.Attach(t.Context(), n.sandbox); err != nil {
		t.Fatal(err)
	}
	delete(n.intents, "claim-1")
	withheld := true
	n.attacher.cfg.Withheld = func(types.UID) bool { return withheld }
	if err := n.attacher.Reconcile(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !n.pod.Has(t, "net1") {
		t.Error("the device was taken out of the pod of a claim that may be prepared")
	}
	withheld = false
	if err := n.attacher.Reconcile(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !n.host.Has(t, "rail0") {
		t.Error("the device of a claim that is not prepared did not come home")
	}
}

// One device that is gone holds up the record of its claim, and nothing else.
func TestRecordThatWaitsIsOfTheMissingDeviceAlone(t *testing.T) {
	n := newNode(t)
	n.claim("claim-1", nil, n.device(t, "rail0", "net1", "10.1.0.5/24"), n.device(t, "rail1", "net2", "10.2.0.5/24"))
	if err := n.attacher.Attach(t.Context(), n.sandbox); err != nil {
		t.Fatal(err)
	}
	if err := n.pod.Handle.LinkDel(n.pod.Link(t, "net1")); err != nil {
		t.Fatal(err)
	}
	if err := n.attacher.Release(t.Context(), "claim-1"); err != nil {
		t.Fatal(err)
	}
	if err := n.host.Handle.LinkSetMTU(n.host.Link(t, "rail1"), 1400); err != nil {
		t.Fatal(err)
	}
	if err := n.attacher.Reconcile(t.Context()); err != nil {
		t.Fatal(err)
	}
	if mtu := n.host.Link(t, "rail1").Attrs().MTU; mtu != 1400 {
		t.Errorf("the MTU that an administrator set since is %d", mtu)
	}
}

// A pod's claims are each for itself: what fails of one is not the others'.
func TestFailureOfOneClaimLeavesTheOthersOfThePod(t *testing.T) {
	n := newNode(t)
	n.claim("claim-1", nil, n.device(t, "rail0", "net1", "10.1.0.5/24"))
	n.claim("claim-2", nil, n.device(t, "rail1", "net2", "10.2.0.5/24"))
	if err := n.attacher.Attach(t.Context(), n.sandbox); err != nil {
		t.Fatal(err)
	}
	if err := n.pod.Handle.LinkDel(n.pod.Link(t, "net1")); err != nil {
		t.Fatal(err)
	}
	if err := n.attacher.Admit(t.Context(), Container{Sandbox: n.sandbox, Claim: "claim-1"}, n.pod.FD); err == nil {
		t.Error("a container starts without its device")
	}
	if err := n.attacher.Check(t.Context(), "pod-1", "claim-2", n.pod.FD); err != nil {
		t.Errorf("the pod's other claim: %v", err)
	}
}
