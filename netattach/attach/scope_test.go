package attach

// What a pod with a scope may not have beside it.

import (
	"context"
	"strings"
	"sync"
	"testing"

	"k8s.io/apimachinery/pkg/types"

	"github.com/hostler-dev/hostler/api/v1alpha1"
	"github.com/hostler-dev/hostler/netattach"
	"github.com/hostler-dev/hostler/netattach/internal/nettest"
)

// The driver compares claims of the pods that it knows when it prepares them; who
// joins a shared scope later is first seen at the gate.
func TestPodWithRDMAMayNotJoinAScopeThatDeniesIt(t *testing.T) {
	for name, test := range map[string]struct {
		bypass  v1alpha1.KernelBypass
		rdma    bool
		refused bool
	}{
		"RDMA beside a scope":                  {"", true, true},
		"RDMA beside a scope that accepts it":  {v1alpha1.KernelBypassAllow, true, false},
		"a NIC without RDMA beside a scope":    {"", false, false},
		"a NIC without RDMA, bypass permitted": {v1alpha1.KernelBypassAllow, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			n, ctx := newNode(t), context.Background()
			n.claim("claim-1", nil, n.device(t, "rail0", "net1", "10.1.0.5/24"))
			verbs := n.intents["claim-1"]
			verbs.RDMA = test.rdma
			n.intents["claim-1"] = verbs
			shared := scope("10.1.0.0/24", 80)
			shared.KernelBypass = test.bypass
			n.claim("claim-2", shared)
			prepared := n.intents["claim-2"]
			prepared.Pods = []netattach.PodReference{{UID: "pod-0", Namespace: "ns", Name: "first"}}
			n.intents["claim-2"] = prepared

			n.attach(t)
			err := n.attacher.Admit(ctx, Container{Sandbox: n.sandbox, Claim: "claim-2"}, n.pod.FD)
			if !test.refused && err != nil {
				t.Error(err)
			}
			if test.refused && (err == nil || !strings.Contains(err.Error(), "claim ns/claim-1 brings RDMA devices, whose verbs bypass the egress scope of claim ns/claim-2")) {
				t.Errorf("%v; want a refusal that names both claims", err)
			}
			if !n.pod.Has(t, "net1") {
				t.Error("the pod lost the device that it had")
			}
		})
	}
}

// A container that could undo the scope does not start, though its claim be in
// order and though it use only another claim of the pod.
func TestContainerThatCouldUndoTheScopeIsRefused(t *testing.T) {
	unlimited := newNode(t)
	unlimited.claim("claim-1", nil, unlimited.device(t, "rail0", "net1", "10.1.0.5/24"))
	unlimited.attach(t)
	if err := unlimited.attacher.Admit(t.Context(), Container{Sandbox: unlimited.sandbox, Claim: "claim-1", Capabilities: []string{"CAP_NET_ADMIN", "CAP_SYS_ADMIN"}}, unlimited.pod.FD); err != nil {
		t.Errorf("in a pod without a scope: %v", err)
	}
	n := newNode(t)
	n.claim("claim-1", nil, n.device(t, "rail0", "net1", "10.1.0.5/24"))
	with := func(claim types.UID, capabilities ...string) error {
		return n.attacher.Admit(t.Context(), Container{Sandbox: n.sandbox, Claim: claim, Capabilities: capabilities}, n.pod.FD)
	}
	n.claim("claim-2", scope("10.1.0.0/24", 80))
	n.attach(t)
	for _, claim := range []types.UID{"claim-1", "claim-2"} {
		if err := with(claim, "CAP_CHOWN", "CAP_NET_RAW"); err != nil {
			t.Errorf("%s, a container with the usual capabilities: %v", claim, err)
		}
		for _, capability := range []string{"CAP_NET_ADMIN", "CAP_SYS_ADMIN"} {
			err := with(claim, "CAP_CHOWN", capability)
			if err == nil || !strings.Contains(err.Error(), "claim ns/claim-2") || !strings.Contains(err.Error(), "it has "+capability) || !strings.Contains(err.Error(), "remove that from securityContext.capabilities") {
				t.Errorf("%s: %v; want a refusal that names %s, the scope's claim and the remedy", claim, err, capability)
			}
		}
	}
}

// A shared scope is known to the gate only, at the first container that names it.
func TestContainerThatCouldUndoASharedScopeIsRefused(t *testing.T) {
	n := newNode(t)
	n.claim("claim-1", scope("10.1.0.0/24", 80))
	later := Sandbox{ID: "sandbox-2", NetNS: n.sandbox.NetNS, Pod: netattach.PodReference{UID: "pod-2", Namespace: "ns", Name: "later"}}
	err := n.attacher.Admit(context.Background(), Container{Sandbox: later, Claim: "claim-1", Capabilities: []string{"CAP_NET_ADMIN"}}, n.pod.FD)
	if err == nil || !strings.Contains(err.Error(), "CAP_NET_ADMIN") || n.recordCount(t) != 0 {
		t.Errorf("%v, %d records; want a refusal", err, n.recordCount(t))
	}
}

// The pod's containers are started in any order. One that could undo a scope and uses
// another claim may come before the one by which the agent hears of the scope.
func TestContainerThatCouldUndoAScopeWhoseClaimComesLater(t *testing.T) {
	limited := map[string]func(t *testing.T, n *node){
		"an egress scope": func(_ *testing.T, n *node) { n.claim("claim-2", scope("10.1.0.0/24", 80)) },
		"a share of a NIC": func(t *testing.T, n *node) {
			share := n.share(t, "share-2", "net1", "10.1.0.5/24", 20e6)
			share.Addresses = nil // each pod has a child of its own
			n.claim("claim-2", nil, share)
		},
	}
	first := map[string]func(t *testing.T, n *node){
		"a claim of a GPU": func(_ *testing.T, n *node) { n.claim("claim-1", nil) },
		"a claim of a NIC": func(t *testing.T, n *node) { n.claim("claim-1", nil, n.device(t, "rail1", "net2", "10.2.0.5/24")) },
	}
	for limit, join := range limited {
		for own, claim := range first {
			for _, capability := range []string{"CAP_NET_ADMIN", "CAP_SYS_ADMIN"} {
				t.Run(own+", then "+limit+", and "+capability, func(t *testing.T) {
					second := nettest.New(t)
					n, ctx := newNode(t), context.Background()
					claim(t, n)
					join(t, n)
					shared := n.intents["claim-2"]
					shared.Pods = []netattach.PodReference{{UID: "pod-0", Namespace: "ns", Name: "first"}}
					n.intents["claim-2"] = shared
					strong := Container{Sandbox: n.sandbox, Claim: "claim-1", Capabilities: []string{"CAP_CHOWN", capability}}
					joins := Container{Sandbox: n.sandbox, Claim: "claim-2", Capabilities: []string{"CAP_CHOWN"}}

					n.attach(t)
					for range 2 { // it may restart
						if err := n.attacher.Admit(ctx, strong, n.pod.FD); err != nil {
							t.Fatalf("before anything limits the pod: %v", err)
						}
					}
					n.restart(t)
					n.attach(t)
					err := n.attacher.Admit(ctx, joins, n.pod.FD)
					if err == nil || !strings.Contains(err.Error(), "claim ns/claim-2") || !strings.Contains(err.Error(), "with claim ns/claim-1") || !strings.Contains(err.Error(), capability) {
						t.Errorf("%v; want a refusal that names both claims and %s", err, capability)
					}
					if err := n.attacher.Check(ctx, "pod-1", "claim-2", n.pod.FD); err == nil {
						t.Error("the claim is attached nevertheless")
					}
					if err := n.attacher.Admit(ctx, strong, n.pod.FD); err != nil {
						t.Errorf("the container that was there first restarts: %v", err)
					}

					// In its next sandbox the pod's containers start in the other order.
					n.sandbox = Sandbox{ID: "sandbox-2", NetNS: second.Path, Pod: n.sandbox.Pod}
					n.attach(t)
					strong.Sandbox, joins.Sandbox = n.sandbox, n.sandbox
					if err := n.attacher.Admit(ctx, joins, second.FD); err != nil {
						t.Errorf("no container was started there before: %v", err)
					}
					if err := n.attacher.Admit(ctx, strong, second.FD); err == nil || !strings.Contains(err.Error(), "it has "+capability) {
						t.Errorf("%v; want a refusal of the container", err)
					}
				})
			}
		}
	}
}

// A container that is about to be let start and a limit that is about to come never
// both are: each looks for the other in the pod's turn.
func TestContainerAndLimitAtOnce(t *testing.T) {
	for range 8 {
		n, ctx := newNode(t), context.Background()
		n.claim("claim-1", nil)
		n.claim("claim-2", scope("10.1.0.0/24", 80))
		shared := n.intents["claim-2"]
		shared.Pods = nil
		n.intents["claim-2"] = shared
		n.attach(t)
		var both [2]error
		var wait sync.WaitGroup
		wait.Go(func() {
			both[0] = n.attacher.Admit(ctx, Container{Sandbox: n.sandbox, Claim: "claim-1", Capabilities: []string{"CAP_NET_ADMIN"}}, n.pod.FD)
		})
		wait.Go(func() { both[1] = n.attacher.Admit(ctx, Container{Sandbox: n.sandbox, Claim: "claim-2"}, n.pod.FD) })
		wait.Wait()
		if (both[0] == nil) == (both[1] == nil) {
			t.Fatalf("the container: %v; the limit: %v; want one of them refused", both[0], both[1])
		}
	}
}
