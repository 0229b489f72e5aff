package attach

// The address that a VF's netdev has of its own, when the next claim notes it.

import (
	"context"
	"errors"
	"os"
	"testing"

	"k8s.io/apimachinery/pkg/types"

	"github.com/hostler-dev/hostler/api/v1alpha1"
	"github.com/hostler-dev/hostler/netattach"
	"github.com/hostler-dev/hostler/netattach/internal/nettest"
	"github.com/hostler-dev/hostler/netattach/rdma"
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

// What keeps an earlier claim's record from ending is no reason to keep the next claim
// from a netdev that is home.
func TestNetdevThatIsHomeIsTheNextClaims(t *testing.T) {
	const pci = "0000:1d:00.1"
	die := func(t *testing.T, n *node, name string) (comeHome func()) {
		limbo := nettest.New(t)
		if err := errors.Join(n.pod.Handle.LinkSetNsFd(n.pod.Link(t, name), limbo.FD), os.Remove(n.sandbox.NetNS)); err != nil {
			t.Fatal(err)
		}
		return func() {
			if err := limbo.Handle.LinkSetNsFd(limbo.Link(t, name), n.host.FD); err != nil {
				t.Fatal(err)
			}
		}
	}
	settled := func(t *testing.T, n *node, when string, want bool) {
		t.Helper()
		if got, err := n.attacher.Settled(t.Context(), pci); err != nil || got != want {
			t.Errorf("%s: %v, %v; want %v", when, got, err, want)
		}
	}

	t.Run("the journal was lost, so that nobody knows whether the earlier claim is over", func(t *testing.T) {
		n := newNode(t)
		before := n.attachWithMAC(t)
		comeHome := die(t, n, "net1")
		n.unprepare(t, "claim-1", before)
		n.attacher.cfg.Withheld = func(types.UID) bool { return true }
		settled(t, n, "on its way", false)
		comeHome()
		settled(t, n, "home", true)
	})
	t.Run("its RDMA device never comes back", func(t *testing.T) {
		n := newRDMANode(t, rdma.Exclusive)
		device := n.device(t, 0, v1alpha1.RDMAExclusive)
		device.PCI = pci
		n.claim("claim-1", nil, device)
		if err := n.attacher.Attach(t.Context(), n.sandbox); err != nil {
			t.Fatal(err)
		}
		comeHome := die(t, n.node, "net0")
		n.kernel.Unplug("mlx5_0")
		delete(n.intents, "claim-1")
		if err := n.attacher.Reconcile(t.Context()); err != nil {
			t.Fatal(err)
		}
		settled(t, n.node, "on its way", false)
		comeHome()
		settled(t, n.node, "home", true)
		if !n.host.Has(t, "rail0") {
			t.Error("the netdev did not get its name back")
		}
	})
	t.Run("its name is somebody else's by now", func(t *testing.T) {
		n := newNode(t)
		before := n.attachWithMAC(t)
		comeHome := die(t, n, "net1")
		n.unprepare(t, "claim-1", before)
		nettest.Join(t, n.host, "rail0", n.peer, "stranger")
		settled(t, n, "on its way", false)
		comeHome()
		settled(t, n, "home", true)
	})
}

// The plan is made when the netdev has just come home, under the name that it had in the
// earlier claim's pod.
func TestNameOfAPlanThatWasMadeTooEarlyDoesNotStay(t *testing.T) {
	n := newNode(t)
	before := n.attachWithMAC(t)
	limbo := nettest.New(t)
	if err := errors.Join(n.pod.Handle.LinkSetNsFd(n.pod.Link(t, "net1"), limbo.FD), os.Remove(n.sandbox.NetNS)); err != nil {
		t.Fatal(err)
	}
	n.unprepare(t, "claim-1", before)
	if err := limbo.Handle.LinkSetNsFd(limbo.Link(t, "net1"), n.host.FD); err != nil {
		t.Fatal(err)
	}
	n.sandbox = Sandbox{ID: "sandbox-2", NetNS: nettest.New(t).Path, Pod: netattach.PodReference{UID: "pod-2", Namespace: "ns", Name: "next"}}
	n.claim("claim-2", nil, netattach.DeviceIntent{Device: "nic-rail0", PCI: "0000:1d:00.1", HostName: "net1", HostMAC: before, PodName: "fabric0"}) // a veth has no PCI function to be found by
	if err := n.attacher.Attach(t.Context(), n.sandbox); err != nil {
		t.Fatal(err)
	}
	if err := n.attacher.DetachSandbox(t.Context(), "pod-2", "sandbox-2"); err != nil {
		t.Fatal(err)
	}
	if !n.host.Has(t, "rail0") {
		t.Error("it came home under the name that it had in the first claim's pod")
	}
}
