package attach

import (
	"context"
	"errors"
	"net"
	"os"
	"testing"

	"k8s.io/apimachinery/pkg/types"

	"github.com/hostler-dev/hostler/netattach"
	"github.com/hostler-dev/hostler/netattach/internal/nettest"
)

const claimsMAC = "02:00:5e:77:00:01"

// unprepare does to rail0 what the driver does to a VF when its claim is unprepared: it
// has the pod's network taken back, and then gives the netdev its address back, if that is
// on the host.
func (n *node) unprepare(t *testing.T, claim types.UID, mac string) {
	t.Helper()
	if err := n.attacher.Release(context.Background(), claim); err != nil {
		t.Fatal(err)
	}
	delete(n.intents, claim)
	if n.host.Has(t, "rail0") {
		n.setMAC(t, n.host, "rail0", mac)
	}
}

func (n *node) setMAC(t *testing.T, in *nettest.Namespace, name, address string) {
	t.Helper()
	mac, err := net.ParseMAC(address)
	if err != nil {
		t.Fatal(err)
	}
	if err := in.Handle.LinkSetHardwareAddr(in.Link(t, name), mac); err != nil {
		t.Fatal(err)
	}
}

// A claim that sets a VF's address is over, and however the VF's netdev comes home, it
// has the address that it had before the claim. While the claim is prepared it keeps
// that of the claim: its pod may get another sandbox.
func TestAddressOfAVFsNetdevWhenItsClaimIsOver(t *testing.T) {
	die := func(t *testing.T, n *node) (comeHome func()) {
		limbo := nettest.New(t)
		if err := errors.Join(n.pod.Handle.LinkSetNsFd(n.pod.Link(t, "net1"), limbo.FD), os.Remove(n.sandbox.NetNS)); err != nil {
			t.Fatal(err)
		}
		return func() {
			if err := limbo.Handle.LinkSetNsFd(limbo.Link(t, "net1"), n.host.FD); err != nil {
				t.Fatal(err)
			}
		}
	}
	reconcile := func(t *testing.T, n *node) {
		if err := n.attacher.Reconcile(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	nextPod := func(t *testing.T, n *node, device netattach.DeviceIntent) {
		n.sandbox = Sandbox{ID: "sandbox-2", NetNS: nettest.New(t).Path, Pod: netattach.PodReference{UID: "pod-2", Namespace: "ns", Name: "next"}}
		device.Device, device.HostName, device.PodName = "nic-rail0", "rail0", "net1"
		n.claim("claim-2", nil, device)
		if err := n.attacher.Attach(context.Background(), n.sandbox); err != nil {
			t.Fatal(err)
		}
	}
	for name, test := range map[string]struct {
		happens func(t *testing.T, n *node, before string)
		claims  bool // address of the claim, rather than the former one
	}{
		"the sandbox ends, and its claim is prepared": {func(t *testing.T, n *node, _ string) {
			if err := n.attacher.DetachSandbox(context.Background(), "pod-1", "sandbox-1"); err != nil {
				t.Fatal(err)
			}
		}, true},
		"the namespace dies, and its claim is prepared": {func(t *testing.T, n *node, _ string) {
			die(t, n)()
			reconcile(t, n)
		}, true},
		"the claim is unprepared": {func(t *testing.T, n *node, before string) { n.unprepare(t, "claim-1", before) }, false},
		"the namespace dies, and the claim is unprepared before the netdev comes home": {func(t *testing.T, n *node, before string) {
			comeHome := die(t, n)
			n.unprepare(t, "claim-1", before)
			reconcile(t, n)
			comeHome()
			n.restart(t)
			reconcile(t, n)
		}, false},
		"that, and the VF's driver has given the netdev its address back": {func(t *testing.T, n *node, before string) {
			comeHome := die(t, n)
			n.unprepare(t, "claim-1", before)
			comeHome()
			n.setMAC(t, n.host, "net1", before)
			reconcile(t, n)
		}, false},
		"the namespace died while the agent was away, and the claim is not known any more": {func(t *testing.T, n *node, _ string) {
			die(t, n)()
			delete(n.intents, "claim-1")
			n.restart(t)
			reconcile(t, n)
		}, false},
		"the claim is not known any more, and its pod lives on": {func(t *testing.T, n *node, _ string) {
			delete(n.intents, "claim-1")
			n.restart(t)
			reconcile(t, n)
		}, false},
		"it is claimed again before it was put in order": {func(t *testing.T, n *node, before string) {
			comeHome := die(t, n)
			n.unprepare(t, "claim-1", before)
			comeHome()
			nextPod(t, n, netattach.DeviceIntent{HostMAC: before})
			if err := n.attacher.DetachSandbox(context.Background(), "pod-2", "sandbox-2"); err != nil {
				t.Fatal(err)
			}
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			before := n.attachWithMAC(t)
			test.happens(t, n, before)
			want := before
			if test.claims {
				want = claimsMAC
			}
			if got := n.host.Link(t, "rail0").Attrs().HardwareAddr.String(); got != want {
				t.Errorf("home with %s, want %s (before the claim: %s)", got, want, before)
			}
		})
	}
	t.Run("the next claim sets an address, too", func(t *testing.T) {
		n := newNode(t)
		before := n.attachWithMAC(t)
		comeHome := die(t, n)
		n.unprepare(t, "claim-1", before)
		comeHome()
		const next = "02:00:5e:77:00:03"
		n.setMAC(t, n.host, "net1", next)
		nextPod(t, n, netattach.DeviceIntent{HostMAC: next, UnclaimedMAC: before})
		namespace, err := openNamespace(n.sandbox.NetNS)
		if err != nil {
			t.Fatal(err)
		}
		defer namespace.Close()
		states, err := n.attacher.InPods("claim-2")
		if err != nil || len(states) != 1 || states[0].MAC != next {
			t.Errorf("%v; the next pod has %+v, want the address %s", err, states, next)
		}
		if err := n.attacher.DetachSandbox(context.Background(), "pod-2", "sandbox-2"); err != nil {
			t.Fatal(err)
		}
	})
}

// attachWithMAC attaches a NIC that got claimsMAC for its claim, and returns the address that it had before.
func (n *node) attachWithMAC(t *testing.T) (before string) {
	t.Helper()
	before = n.host.Link(t, "rail0").Attrs().HardwareAddr.String()
	n.setMAC(t, n.host, "rail0", claimsMAC)
	device := n.device(t, "rail0", "net1", "10.1.0.5/24")
	device.UnclaimedMAC, device.PCI = before, "0000:1d:00.1"
	n.claim("claim-1", nil, device)
	if err := n.attacher.Attach(context.Background(), n.sandbox); err != nil {
		t.Fatal(err)
	}
	return before
}
