package main

// The kubelet's side of the agent's socket, and allocated claims as the
// scheduler would leave them.

import (
	"context"
	"fmt"
	"path/filepath"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	corev1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	drapb "k8s.io/kubelet/pkg/apis/dra/v1"
	"k8s.io/utils/ptr"

	"github.com/hostler-dev/hostler/test/cluster/images"
)

// kubelet calls the agent over one connection, as the real one does.
type kubelet struct {
	connection *grpc.ClientConn
	client     drapb.DRAPluginClient
}

func newKubelet(b *bed) (*kubelet, error) {
	socket := filepath.Join(b.node.KubeletRoot, "plugins", driverName, "dra.sock")
	connection, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, fmt.Errorf("connect to the agent's socket %s: %w", socket, err)
	}
	return &kubelet{connection, drapb.NewDRAPluginClient(connection)}, nil
}

// prepare prepares claims in one call.
func (k *kubelet) prepare(ctx context.Context, claims ...*drapb.Claim) error {
	answer, err := k.client.NodePrepareResources(ctx, &drapb.NodePrepareResourcesRequest{Claims: claims})
	if err != nil {
		return fmt.Errorf("prepare: %w", err)
	}
	for _, claim := range claims {
		result := answer.Claims[claim.Uid]
		if result == nil || result.Error != "" || len(result.Devices) == 0 {
			return fmt.Errorf("prepare claim %s: the agent answered %v", claim.Name, result)
		}
	}
	return nil
}

func (k *kubelet) unprepare(ctx context.Context, claims ...*drapb.Claim) error {
	answer, err := k.client.NodeUnprepareResources(ctx, &drapb.NodeUnprepareResourcesRequest{Claims: claims})
	if err != nil {
		return fmt.Errorf("unprepare: %w", err)
	}
	for _, claim := range claims {
		if result := answer.Claims[claim.Uid]; result == nil || result.Error != "" {
			return fmt.Errorf("unprepare claim %s: the agent answered %v", claim.Name, result)
		}
	}
	return nil
}

// gpuClaims makes a claim for each of the node's first n GPUs, allocated and
// reserved for a pod, and a function that removes them.
func (b *bed) gpuClaims(ctx context.Context, n int) ([]*drapb.Claim, func(context.Context) error, error) {
	var gpus []string
	if err := eventually(ctx, fmt.Sprintf("the node offers %d GPUs", n), func() (offered bool, err error) {
		gpus, err = b.offeredGPUs(ctx)
		return len(gpus) >= n, err
	}); err != nil {
		return nil, nil, err
	}
	// The controller takes reservations of pods that do not exist away. A gated
	// pod exists and does nothing.
	pod, err := b.client.CoreV1().Pods(namespace).Create(ctx, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "holder-"},
		Spec: corev1.PodSpec{
			SchedulingGates: []corev1.PodSchedulingGate{{Name: "bench.hostler.dev/never"}},
			Containers:      []corev1.Container{{Name: "main", Image: images.Busybox}},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		return nil, nil, fmt.Errorf("make the pod that claims are reserved for: %w", err)
	}
	remove := func(ctx context.Context) error {
		if err := b.client.CoreV1().Pods(namespace).Delete(ctx, pod.Name, metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](0)}); err != nil {
			return fmt.Errorf("remove the pod that claims were reserved for: %w", err)
		}
		return b.client.ResourceV1().ResourceClaims(namespace).DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{})
	}
	var claims []*drapb.Claim
	for _, gpu := range gpus[:n] {
		claim, err := b.allocated(ctx, gpu, pod)
		if err != nil {
			return nil, nil, err
		}
		claims = append(claims, &drapb.Claim{Namespace: namespace, Name: claim.Name, Uid: string(claim.UID)})
	}
	return claims, remove, nil
}

// offeredGPUs are the names of the node's GPUs in the API server.
func (b *bed) offeredGPUs(ctx context.Context) ([]string, error) {
	slices, err := b.client.ResourceV1().ResourceSlices().List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, fmt.Errorf("list slices: %w", err)
	}
	var gpus []string
	for _, slice := range slices.Items {
		if slice.Spec.Driver == driverName && slice.Spec.Pool.Name == nodeName+"/gpu" {
			for _, device := range slice.Spec.Devices {
				gpus = append(gpus, device.Name)
			}
		}
	}
	return gpus, nil
}

// allocated makes a claim and gives it a GPU.
func (b *bed) allocated(ctx context.Context, gpu string, pod *corev1.Pod) (*resourceapi.ResourceClaim, error) {
	api := b.client.ResourceV1().ResourceClaims(namespace)
	claim, err := api.Create(ctx, &resourceapi.ResourceClaim{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "gpu-"},
		Spec: resourceapi.ResourceClaimSpec{Devices: resourceapi.DeviceClaim{Requests: []resourceapi.DeviceRequest{
			{Name: "gpu", Exactly: &resourceapi.ExactDeviceRequest{DeviceClassName: "gpu." + driverName}},
		}}},
	}, metav1.CreateOptions{})
	if err != nil {
		return nil, fmt.Errorf("make a claim: %w", err)
	}
	claim.Status.Allocation = &resourceapi.AllocationResult{Devices: resourceapi.DeviceAllocationResult{
		Results: []resourceapi.DeviceRequestAllocationResult{{Request: "gpu", Driver: driverName, Pool: nodeName + "/gpu", Device: gpu}},
	}}
	claim.Status.ReservedFor = []resourceapi.ResourceClaimConsumerReference{{Resource: "pods", Name: pod.Name, UID: pod.UID}}
	if claim, err = api.UpdateStatus(ctx, claim, metav1.UpdateOptions{}); err != nil {
		return nil, fmt.Errorf("allocate %s to a claim: %w", gpu, err)
	}
	return claim, nil
}
