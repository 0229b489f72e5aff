package attach

// What a pod with a scope may not have beside it.

import (
	"context"
	"strings"
	"testing"

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
			err := n.attacher.Admit(ctx, n.sandbox, "claim-2", n.pod.FD)
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
