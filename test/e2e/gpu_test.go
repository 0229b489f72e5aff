package e2e

// GPUs: a container sees the device nodes of its claim and can open no other.

import (
	"fmt"
	"strings"
	"testing"

	resourceapi "k8s.io/api/resource/v1"
)

const oneGPU = "gpu.hostler.dev"

// listGPUs prints the GPU device nodes that a container sees.
const listGPUs = "ls /dev | grep -E '^nvidia[0-9]+$' || true"

func TestOneGPU(t *testing.T) {
	s := newScenario(t)
	s.apply(template("one-gpu", requests(request("gpu", oneGPU))), pod("one-gpu", "one-gpu", ""), pod("without-claim", "", ""))
	s.awaitReady("one-gpu", "without-claim")

	claim := s.claimOf("one-gpu")
	allocated := claim.Status.Allocation.Devices.Results[0]
	gpu := s.node.gpu(t, allocated.Device)

	if seen := s.sh("one-gpu", listGPUs); seen != fmt.Sprintf("nvidia%d", gpu.Minor) {
		t.Errorf("the pod sees GPU nodes %q, want only nvidia%d of its claim's %s", seen, gpu.Minor, allocated.Device)
	}
	if uuid := attribute(s.device(allocated.Device), "hostler.dev/uuid"); uuid != gpu.UUID {
		t.Errorf("%s is published with UUID %s, the machine says %s", allocated.Device, uuid, gpu.UUID)
	}
	// The driver's own tool, which nvcdi mounted, lists what is in the container.
	if list := s.sh("one-gpu", "/usr/bin/nvidia-smi -L"); strings.Count(list, "GPU-") != 1 || !strings.Contains(list, gpu.UUID) {
		t.Errorf("nvidia-smi -L in the pod: %q, want only %s", list, gpu.UUID)
	}
	// No driver stands behind the simulated nodes: ENXIO is the device cgroup's yes, EPERM its no.
	if out, _ := s.trySh("one-gpu", fmt.Sprintf("cat /dev/nvidia%d", gpu.Minor)); !strings.Contains(out, "No such device or address") {
		t.Errorf("opening the pod's own GPU: %q, want ENXIO", out)
	}
	neighbour := (gpu.Minor + 1) % 8
	if out, _ := s.trySh("one-gpu", fmt.Sprintf("mknod /tmp/n c 195 %d && cat /tmp/n", neighbour)); !strings.Contains(out, "Operation not permitted") {
		t.Errorf("opening the neighbour's GPU by its number: %q, want EPERM", out)
	}
	if seen := s.sh("without-claim", listGPUs); seen != "" {
		t.Errorf("a pod without a claim sees %q", seen)
	}
	if out, _ := s.trySh("without-claim", "mknod /tmp/n c 195 0 && cat /tmp/n"); !strings.Contains(out, "Operation not permitted") {
		t.Errorf("a pod without a claim opening a GPU by its number: %q, want EPERM", out)
	}
}

func TestEveryGPUIsGivenOnce(t *testing.T) {
	s := newScenario(t)
	s.apply(template("one-gpu", requests(request("gpu", oneGPU))))
	var names []string
	for i := range 8 {
		names = append(names, fmt.Sprintf("gpu-%d", i))
		s.apply(pod(names[i], "one-gpu", ""))
	}
	s.awaitReady(names...)
	holder := map[string]string{}
	for _, name := range names {
		node := s.sh(name, listGPUs)
		if other, taken := holder[node]; taken {
			t.Errorf("%s is in %s and in %s", node, other, name)
		}
		holder[node] = name
	}
	s.apply(pod("gpu-9", "one-gpu", ""))
	s.eventually("the ninth pod waits with the scheduler's reason", func() error { return s.unschedulable("gpu-9", "cannot allocate all claims") })
}

func TestGPUWithNICUnderOneRoot(t *testing.T) {
	s := newScenario(t)
	pair := requests(request("gpu", oneGPU), request("nic", "nic.hostler.dev"))
	s.apply(template("pair", pair+samePCIeRoot), pod("pair", "pair", ""))
	s.awaitReady("pair")
	claim := s.claimOf("pair")
	roots := map[string]bool{}
	for _, result := range claim.Status.Allocation.Devices.Results {
		roots[attribute(s.device(result.Device), "resource.kubernetes.io/pcieRoot")] = true
	}
	if len(claim.Status.Allocation.Devices.Results) != 2 || len(roots) != 1 {
		t.Errorf("allocated %v under roots %v, want a GPU and a NIC under one root", claim.Status.Allocation.Devices.Results, roots)
	}
	if nodes := s.sh("pair", "ls /dev/infiniband"); !strings.Contains(nodes, "uverbs") || !strings.Contains(nodes, "rdma_cm") {
		t.Errorf("the pod's RDMA devices: %q, want its NIC's uverbs and rdma_cm", nodes)
	}

	// The storage NICs hang under roots of their own: no GPU shares one with them.
	storage := firstNICWithoutGPU(s)
	s.apply(template("impossible", requests(request("gpu", oneGPU),
		request("nic", "nic.hostler.dev", fmt.Sprintf(`device.attributes["resource.kubernetes.io"].pciBusID == %q`, storage)))+samePCIeRoot),
		pod("impossible", "impossible", ""))
	s.eventually("the impossible claim stays pending with the scheduler's reason", func() error { return s.unschedulable("impossible", "cannot allocate all claims") })
}

// unschedulable is nil once the scheduler has said reason about the pod.
func (s *scenario) unschedulable(pod, reason string) error {
	out, err := s.try("get", "pod", pod, "-o", `jsonpath={.status.phase} {.status.conditions[?(@.type=="PodScheduled")].message}`)
	if err != nil {
		return err
	}
	if !strings.HasPrefix(out, "Pending") || !strings.Contains(out, reason) {
		return fmt.Errorf("pod %s: %q", pod, out)
	}
	return nil
}

// firstNICWithoutGPU returns the PCI address of an offered NIC whose root complex has no GPU.
func firstNICWithoutGPU(s *scenario) string {
	s.Helper()
	const root = "resource.kubernetes.io/pcieRoot"
	withGPU := map[string]bool{}
	for _, d := range s.devices() {
		if attribute(d, "hostler.dev/type") == "gpu" {
			withGPU[attribute(d, root)] = true
		}
	}
	for _, d := range s.devices() {
		if attribute(d, "hostler.dev/type") == "nic" && !withGPU[attribute(d, root)] && len(d.Taints) == 0 {
			return attribute(d, "resource.kubernetes.io/pciBusID")
		}
	}
	s.Fatal("the machine has no NIC away from all GPUs")
	return ""
}

// attribute is a string attribute's value, "" if the device lacks it.
func attribute(d resourceapi.Device, name resourceapi.QualifiedName) string {
	if value := d.Attributes[name].StringValue; value != nil {
		return *value
	}
	return ""
}
