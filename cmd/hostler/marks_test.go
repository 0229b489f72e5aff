package main

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	resourceapi "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"

	corev1 "k8s.io/api/core/v1"

	"github.com/hostler-dev/hostler/driver/claim"
	"github.com/hostler-dev/hostler/netattach"
	"github.com/hostler-dev/hostler/topology"
)

func TestFaultsAreTheTaintsThatNameOne(t *testing.T) {
	slice := func(pool string, generation int64, device string, taints ...resourceapi.DeviceTaint) *resourceapi.ResourceSlice {
		return &resourceapi.ResourceSlice{
			ObjectMeta: metav1.ObjectMeta{Name: pool + device},
			Spec: resourceapi.ResourceSliceSpec{Driver: "hostler.dev", Pool: resourceapi.ResourcePool{Name: pool, Generation: generation},
				Devices: []resourceapi.Device{{Name: device, Taints: taints}}},
		}
	}
	xid := resourceapi.DeviceTaint{Key: "hostler.dev/xid", Value: "79", Effect: resourceapi.DeviceTaintEffectNoExecute}
	client := fake.NewClientset(
		&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}, Status: corev1.NodeStatus{Addresses: []corev1.NodeAddress{{Address: "192.0.2.7"}, {Address: "n1.example"}}}},
		slice("n1/gpu", 2, "gpu-a", xid, resourceapi.DeviceTaint{Key: "hostler.dev/mig-mode"}),
		slice("n1/gpu", 1, "gpu-left-from-before", xid),
		slice("n1/nic", 1, "nic-a", resourceapi.DeviceTaint{Key: "hostler.dev/uplink", Value: "default-route"}),
		slice("n1/nic", 1, "nic-b", resourceapi.DeviceTaint{Key: "example.com/recabling"}),
		slice("n1/device", 7, "pair-a", xid),
	)
	var m marks
	if err := m.read(t.Context(), client, "n1"); err != nil {
		t.Fatal(err)
	}
	want := map[string][]string{"gpu-a": {"xid 79"}, "nic-b": {"example.com/recabling"}, "pair-a": {"xid 79"}}
	if diff := cmp.Diff(want, m.faults); diff != "" {
		t.Error(diff)
	}
	if len(m.nodeIPs) != 1 || m.nodeIPs[0].String() != "192.0.2.7" {
		t.Errorf("the node's addresses are %v", m.nodeIPs)
	}
}

func TestHoldersAreClaimsWithTheirPods(t *testing.T) {
	got := holdersByDevice([]claim.Holder{
		{Device: "gpu-a", ClaimNamespace: "ml", ClaimName: "shared", Pods: []netattach.PodReference{{Namespace: "ml", Name: "b"}, {Namespace: "ml", Name: "a"}}},
		{Device: "gpu-a", ClaimNamespace: "ops", ClaimName: "probe", AdminAccess: true},
		{Device: "gpu-a-mig-1g-5gb-0", ClaimNamespace: "ml", ClaimName: "small"},
	})
	want := map[string][]topology.Holder{
		"gpu-a":              {{Claim: "ml/shared", Pods: []string{"ml/a", "ml/b"}}, {Claim: "ops/probe (admin access)"}},
		"gpu-a-mig-1g-5gb-0": {{Claim: "ml/small"}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
