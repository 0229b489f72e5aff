package e2e

// Extended resources: a pod that knows nothing of DRA asks for GPUs in its limits.
// The scheduler makes its claim, and from there on it is one like any other.

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
)

// limited is a container that asks for GPUs as frameworks that have no word for claims do.
func limited(name string, gpus int) string {
	return fmt.Sprintf(`  - name: %s
    image: %s
    imagePullPolicy: Never
    command: [sh, -c, "exec sleep 1000000"]
    resources: {limits: {hostler.dev/gpu: %d}}
`, name, testImage, gpus)
}

func podOf(name string, containers ...string) string {
	return fmt.Sprintf("apiVersion: v1\nkind: Pod\nmetadata: {name: %s}\nspec:\n  terminationGracePeriodSeconds: 0\n  containers:\n%s", name, strings.Join(containers, ""))
}

func TestGPUsInLimits(t *testing.T) {
	s := newScenario(t)
	s.apply(podOf("plain", limited("one", 1), limited("two", 2)), pod("without", "", ""))
	s.awaitReady("plain", "without")

	var plain corev1.Pod
	s.getJSON(&plain, "pod", "plain")
	if plain.Status.ExtendedResourceClaimStatus == nil {
		t.Fatal("the scheduler made no claim for the pod: does class gpu.hostler.dev name the extended resource?")
	}
	var claim resourceapi.ResourceClaim
	s.getJSON(&claim, "resourceclaim", plain.Status.ExtendedResourceClaimStatus.ResourceClaimName)
	if n := len(claim.Status.Allocation.Devices.Results); n != 3 {
		t.Fatalf("%d devices are allocated, want 3", n)
	}
	want := map[string][]string{}
	for _, mapping := range plain.Status.ExtendedResourceClaimStatus.RequestMappings {
		for _, result := range claim.Status.Allocation.Devices.Results {
			if result.Request == mapping.RequestName {
				want[mapping.ContainerName] = append(want[mapping.ContainerName], fmt.Sprintf("nvidia%d", s.node.gpu(t, result.Device).Minor))
			}
		}
	}
	for container, count := range map[string]int{"one": 1, "two": 2} {
		slices.Sort(want[container])
		seen := strings.Fields(s.kubectl("exec", "plain", "-c", container, "--", "sh", "-c", listGPUs))
		if slices.Sort(seen); len(seen) != count || !slices.Equal(seen, want[container]) {
			t.Errorf("container %s sees %q, want its own %q", container, seen, want[container])
		}
	}
	if seen := s.sh("without", listGPUs); seen != "" {
		t.Errorf("a pod without limits sees %q", seen)
	}
	s.apply(podOf("greedy", limited("all", 6)))
	s.eventually("a pod that asks for more than is left waits", func() error { return s.unschedulable("greedy", "cannot allocate all claims") })
	s.kubectl("delete", "pod", "plain", "--wait=true")
	s.awaitReady("greedy")
}
