package attach

// What a pod with a scope may not have beside it.

import (
	"context"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/types"

	"github.com/hostler-dev/hostler/api/v1alpha1"
	"github.com/hostler-dev/hostler/netattach"
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
	n, ctx := newNode(t), context.Background()
	n.claim("claim-1", nil, n.device(t, "rail0", "net1", "10.1.0.5/24"))
	n.attach(t)
	with := func(claim types.UID, capabilities ...string) error {
		return n.attacher.Admit(ctx, Container{Sandbox: n.sandbox, Claim: claim, Capabilities: capabilities}, n.pod.FD)
	}
	if err := with("claim-1", "CAP_NET_ADMIN", "CAP_SYS_ADMIN"); err != nil {
		t.Errorf("in a pod without a scope: %v", err)
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
