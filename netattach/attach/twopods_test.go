package attach

// Two pods of one claim with a NIC that only one of them can have. The scheduler lets
// both use the claim.

import (
	"strings"
	"testing"

	"github.com/hostler-dev/hostler/netattach"
	"github.com/hostler-dev/hostler/netattach/internal/nettest"
)

func TestSecondPodOfANICWaitsAndTakesNothingFromTheFirst(t *testing.T) {
	n := newNode(t)
	n.claim("claim-1", nil, n.device(t, "rail0", "net1", "10.1.0.5/24"))
	space := nettest.New(t)
	first, second := n.sandbox, Sandbox{ID: "sandbox-2", NetNS: space.Path, Pod: netattach.PodReference{UID: "pod-2", Namespace: "ns", Name: "second"}}
	both := n.intents["claim-1"]
	both.Pods = append(both.Pods, second.Pod)
	n.intents["claim-1"] = both
	n.attach(t)
	for range 2 { // the kubelet tries again
		err := n.attacher.Attach(t.Context(), second)
		for _, word := range []string{"ns/second", "nic-rail0", "is in pod ns/p", "ResourceClaimTemplate"} {
			if err == nil || !strings.Contains(err.Error(), word) {
				t.Errorf("%v; want a refusal that says %q", err, word)
			}
		}
		if err := n.attacher.Admit(t.Context(), Container{Sandbox: second, Claim: "claim-1"}, space.FD); err == nil {
			t.Error("a container of the second pod starts without the device")
		}
		if err := n.attacher.Reconcile(t.Context()); err != nil {
			t.Error(err)
		}
		if err := n.attacher.Check(t.Context(), first.Pod.UID, "claim-1", n.pod.FD); err != nil {
			t.Errorf("the first pod: %v", err)
		}
	}
	if err := n.attacher.DetachSandbox(t.Context(), second.Pod.UID, second.ID); err != nil {
		t.Fatal(err)
	}
	if err := n.attacher.Check(t.Context(), first.Pod.UID, "claim-1", n.pod.FD); err != nil {
		t.Errorf("the first pod, after the second's sandbox has ended: %v", err)
	}
	if err := n.attacher.DetachSandbox(t.Context(), first.Pod.UID, first.ID); err != nil {
		t.Fatal(err)
	}
	if err := n.attacher.Attach(t.Context(), second); err != nil || !space.Has(t, "net1") {
		t.Errorf("the second pod, after the first's end: %v", err)
	}
}
