package attach

import (
	"context"
	"errors"
	"os"
	"testing"

	"github.com/hostler-dev/hostler/netattach"
	"github.com/hostler-dev/hostler/netattach/internal/nettest"
)

// The kernel takes its time to return a device from a namespace that died. It may be
// claimed by the next pod by then, and what it has when that pod gets it is not
// what it had on the host.
func TestDeviceThatIsClaimedBeforeItWasPutInOrder(t *testing.T) {
	n, ctx := furnished(t), context.Background()
	delete(n.intents, "claim-2")
	before, limbo := n.host.Snapshot(t), nettest.New(t)
	n.attach(t)
	link := n.pod.Link(t, "net1")
	if err := errors.Join(n.pod.Handle.LinkSetNsFd(link, limbo.FD), os.Remove(n.sandbox.NetNS)); err != nil {
		t.Fatal(err)
	}
	if err := n.attacher.Release(ctx, "claim-1"); err != nil {
		t.Fatal(err)
	}
	link = limbo.Link(t, "net1")
	if err := errors.Join(limbo.Handle.LinkSetName(link, "dev9"), limbo.Handle.LinkSetNsFd(link, n.host.FD)); err != nil {
		t.Fatal(err)
	}

	next := nettest.New(t)
	n.sandbox = Sandbox{ID: "sandbox-2", NetNS: next.Path, Pod: netattach.PodReference{UID: "pod-2", Namespace: "ns", Name: "next"}}
	again := n.intents["claim-1"].Devices[0]
	delete(n.intents, "claim-1")
	n.claim("claim-2", nil, again)
	n.attach(t)
	if !next.Has(t, "net1") {
		t.Error("the next pod has no device")
	}
	if err := n.attacher.DetachSandbox(ctx, "pod-2", "sandbox-2"); err != nil {
		t.Error(err)
	}
	n.host.Same(t, "home from the next pod,", before)
}

// A device that was nowhere when its pod was first attached has no state to come
// home to: it is read when the device is found.
func TestStateOfADeviceThatWasMissingFirstIsReadWhenItIsThere(t *testing.T) {
	n, ctx := furnished(t), context.Background()
	delete(n.intents, "claim-2")
	before := n.host.Snapshot(t)
	limbo := nettest.New(t)
	// What the kernel takes off the device on this way is put back by the test.
	rail := n.host.Link(t, "rail1")
	n.claim("claim-1", nil, n.device(t, "rail1", "net2", "10.2.0.5/24"))
	if err := n.host.Handle.LinkSetNsFd(rail, limbo.FD); err != nil {
		t.Fatal(err)
	}
	if err := n.attacher.Attach(ctx, n.sandbox); err == nil {
		t.Fatal("attached without its device")
	}
	if n.recordCount(t) != 1 {
		t.Errorf("%d records of what has yet to be put in order, want 1", n.recordCount(t))
	}
	if err := limbo.Handle.LinkSetNsFd(limbo.Link(t, "rail1"), n.host.FD); err != nil {
		t.Fatal(err)
	}
	n.host.Up(t, "rail1")
	n.host.Same(t, "with its device again,", before)
	n.attach(t)
	if err := n.attacher.DetachSandbox(ctx, "pod-1", "sandbox-1"); err != nil {
		t.Fatal(err)
	}
	n.host.Same(t, "after all,", before)
}
