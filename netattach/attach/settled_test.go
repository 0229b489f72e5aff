package attach

// The address that a VF's netdev has of its own, when the next claim notes it.

import (
	"context"
	"errors"
	"os"
	"testing"

	"github.com/hostler-dev/hostler/netattach/internal/nettest"
)

func TestDeviceIsInOrderBeforeTheNextClaimNotesHowItIs(t *testing.T) {
	n, ctx := newNode(t), context.Background()
	const pci = "0000:1d:00.1"
	settled := func(when, function string, want bool) {
		t.Helper()
		if got, err := n.attacher.Settled(ctx, function); err != nil || got != want {
			t.Errorf("%s: %v, %v; want %v", when, got, err, want)
		}
	}
	before := n.attachWithMAC(t)
	settled("while its claim has it", pci, true)
	if !n.pod.Has(t, "net1") {
		t.Error("it was taken from its pod")
	}
	limbo := nettest.New(t)
	if err := errors.Join(n.pod.Handle.LinkSetNsFd(n.pod.Link(t, "net1"), limbo.FD), os.Remove(n.sandbox.NetNS)); err != nil {
		t.Fatal(err)
	}
	n.unprepare(t, "claim-1", before)
	settled("on its way home", pci, false)
	settled("another function", "0000:1d:00.2", true)
	if err := limbo.Handle.LinkSetNsFd(limbo.Link(t, "net1"), n.host.FD); err != nil {
		t.Fatal(err)
	}
	if mac := n.host.Link(t, "net1").Attrs().HardwareAddr.String(); mac != claimsMAC {
		t.Fatalf("it came home with %s; the test is void", mac)
	}
	settled("home", pci, true)
	if mac := n.host.Link(t, "rail0").Attrs().HardwareAddr.String(); mac != before {
		t.Errorf("the next claim notes %s as its address, want %s", mac, before)
	}
	// What is in order stays the next claim's.
	n.setMAC(t, n.host, "rail0", "02:00:5e:77:00:03")
	if err := n.attacher.Reconcile(ctx); err != nil || n.host.Link(t, "rail0").Attrs().HardwareAddr.String() != "02:00:5e:77:00:03" {
		t.Errorf("the next claim's address was taken back: %v", err)
	}
}
