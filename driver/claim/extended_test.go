package claim

// A pod that asks for hostler.dev/gpu in resources.limits has no claim in its
// spec: the scheduler makes one, for all of its containers. To the driver that
// is a claim like any other; here it is as kube-scheduler 1.37 writes it
// (pkg/scheduler/framework/plugins/dynamicresources/extendeddynamicresources.go).

import (
	"slices"
	"strings"
	"testing"

	resourceapi "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/hostler-dev/hostler/driver/publish"
)

// schedulers is the claim of a pod whose first container asks for one GPU and
// whose second asks for another; the scheduler names requests after containers.
func schedulers() *resourceapi.ResourceClaim {
	claim := allocated("web-6b7f-extended-resources-x7k2p", onGPU("gpu-0000-17-00-0"), onGPU("gpu-0000-27-00-0"))
	claim.Annotations = map[string]string{resourceapi.ExtendedResourceClaimAnnotation: "true"}
	claim.GenerateName = "web-6b7f-extended-resources-"
	claim.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Pod", Name: "web-6b7f", UID: "pod-web", Controller: ptr.To(true)}}
	claim.Status.ReservedFor = []resourceapi.ResourceClaimConsumerReference{{Resource: "pods", Name: "web-6b7f", UID: "pod-web"}}
	for i, name := range []string{"container-0-request-0", "container-1-request-0"} {
		claim.Status.Allocation.Devices.Results[i].Request = name
		claim.Spec.Devices.Requests = append(claim.Spec.Devices.Requests, resourceapi.DeviceRequest{
			Name: name, Exactly: &resourceapi.ExactDeviceRequest{DeviceClassName: "gpu." + publish.DriverName, AllocationMode: resourceapi.DeviceAllocationModeExactCount, Count: 1},
		})
	}
	return claim
}

func TestExtendedResourcesAreAClaimLikeAnyOther(t *testing.T) {
	r := newRoom(t, t.TempDir(), boot)
	claim := schedulers()
	for range 2 { // the kubelet asks again when it restarts
		entry, err := r.prepare(claim)
		if err != nil {
			t.Fatal(err)
		}
		if len(entry.Pods) != 1 || entry.Pods[0].UID != "pod-web" || entry.Pods[0].Name != "web-6b7f" {
			t.Errorf("pods %+v", entry.Pods)
		}
		first, second := entry.CDIDeviceIDs(&entry.Devices[0]), entry.CDIDeviceIDs(&entry.Devices[1])
		if len(first) == 0 || len(second) == 0 || slices.Equal(first, second) {
			t.Errorf("containers get %q and %q", first, second)
		}
	}
	var held []string
	for _, holder := range NewLedger(r.journal).Holders() {
		held = append(held, holder.Request+" "+holder.Device+" "+holder.ClaimName+" "+holder.Pods[0].Name)
	}
	want := "container-0-request-0 gpu-0000-17-00-0 web-6b7f-extended-resources-x7k2p web-6b7f, container-1-request-0 gpu-0000-27-00-0 web-6b7f-extended-resources-x7k2p web-6b7f"
	if got := strings.Join(held, ", "); got != want {
		t.Errorf("the ledger says\n%s\nwant\n%s", got, want)
	}
	if intent := r.journal.Entry(claim.UID).Intent(); len(intent.Devices) > 0 || intent.Egress != nil || intent.RDMA {
		t.Errorf("a pod with GPUs alone is to get %+v", intent)
	}
}
