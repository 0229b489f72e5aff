package attach

// What has changed in a pod since its claims were attached takes nothing from its others.

import (
	"context"
	"testing"

	"k8s.io/apimachinery/pkg/types"

	"github.com/hostler-dev/hostler/netattach"
	"github.com/hostler-dev/hostler/netattach/internal/nettest"
)

func TestInterfaceThatAPodLostTakesNothingFromItsOtherClaims(t *testing.T) {
	n := newNode(t)
	nettest.Join(t, n.host, "rail2", n.peer, "peer2")
	n.claim("claim-1", nil, n.device(t, "rail0", "net1", "10.1.0.5/24"))
	n.claim("claim-2", nil, n.device(t, "rail1", "net2", "10.2.0.5/24"))
	n.attach(t)
	record, _, err := n.attacher.records.read("claim-2", "pod-1")
	if err != nil {
		t.Fatal(err)
	}
	record.Devices[0].Networks = []netattach.NetworkState{{Namespace: "ns", Name: "nad", Interfaces: []netattach.InterfaceState{{Name: "gone0", Index: 77}}}}
	if err := n.attacher.records.write(record); err != nil {
		t.Fatal(err)
	}
	n.restart(t)
	for _, when := range []string{"when a container starts", "when another one does"} {
		if err := n.attacher.Admit(context.Background(), Container{Sandbox: n.sandbox, Claim: "claim-2"}, n.pod.FD); err == nil {
			t.Errorf("%s: it was let start without an interface of its claim", when)
		}
		if err := n.attacher.Admit(context.Background(), Container{Sandbox: n.sandbox, Claim: "claim-1"}, n.pod.FD); err != nil {
			t.Errorf("%s: %v; the other claim has all that is its own", when, err)
		}
		for _, claim := range []types.UID{"claim-1", "claim-2"} {
			if record, _, err := n.attacher.records.read(claim, "pod-1"); err != nil || record.State != StateAttached {
				t.Errorf("%s: %s is %s, %v", when, claim, record.State, err)
			}
		}
	}
	n.claim("claim-3", nil, n.device(t, "rail2", "net3", "10.3.0.5/24"))
	if err := n.attacher.Attach(context.Background(), n.sandbox); err != nil || !n.pod.Has(t, "net3") {
		t.Errorf("a claim that joins the pod: %v", err)
	}
	if !n.pod.Has(t, "net1") || !n.pod.Has(t, "net2") {
		t.Error("a device was taken from the pod")
	}
}

// What a repeat cannot do for a complete claim is no reason to take its device from the
// containers that work with it.
func TestClaimThatJoinsTakesNothingFromACompleteOneThatIsNotAsItWas(t *testing.T) {
	n := newNode(t)
	n.claim("claim-1", nil, n.device(t, "rail0", "net1", "10.1.0.5/24"))
	n.attach(t)
	changed := n.intents["claim-1"]
	changed.Devices[0].MTU = 65536 // of which its driver allows less by now
	n.intents["claim-1"] = changed
	n.claim("claim-2", nil, n.device(t, "rail1", "net2", "10.2.0.5/24"))
	if err := n.attacher.Attach(context.Background(), n.sandbox); err == nil {
		t.Fatal("the MTU can be set; the test is void")
	}
	if !n.pod.Has(t, "net1") || n.pod.Has(t, "net2") {
		t.Errorf("net1 of the complete claim is in the pod: %v; net2 of the other: %v", n.pod.Has(t, "net1"), n.pod.Has(t, "net2"))
	}
	if err := n.attacher.Check(context.Background(), "pod-1", "claim-1", n.pod.FD); err != nil {
		t.Error(err)
	}
}
