package main

// Chapters about pods: GPUs with their NICs, an egress scope, and metrics that
// say whose GPU is busy.

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
)

const (
	podsReady = "kubectl -n " + namespace + " wait --for=condition=Ready pod --all --timeout=60s"
	// The world outside, as test/cluster lays it out.
	allowedAddress  = "203.0.113.10"
	deniedAddress   = "198.51.100.10"
	metadataAddress = "169.254.169.254"
)

func (s *story) podsTalk(ctx context.Context) error {
	trainers := filepath.Join(manifests, "trainers.yaml")
	s.chapter("Two pods, each with a GPU and the NIC next to it", `A claim asks for a GPU and a NIC and says that
		their PCIe roots must match; the scheduler finds such pairs. When a pod starts, its NIC moves into the pod
		with the name and address that the claim gives.`)
	for _, command := range []string{
		`sed -n '/^spec:/,/^---/{/^---/q;p}' ` + trainers,
		"kubectl -n " + namespace + " apply -f " + trainers, podsReady,
		"kubectl -n " + namespace + ` get resourceclaims \
  -o custom-columns='POD:.status.reservedFor[*].name,DEVICES:.status.allocation.devices.results[*].device'`,
	} {
		if _, err := s.run(ctx, command); err != nil {
			return err
		}
	}
	s.line("")
	s.say("What the pods see: their GPU and no other, the RDMA devices of their NIC, and the NIC itself.")
	var seen []string
	for _, pod := range []string{"trainer-0", "trainer-1"} {
		out, err := s.run(ctx, inPod(pod)+`sh -c 'ls -x /dev/nvidia[0-9]* /dev/infiniband
  /usr/bin/nvidia-smi -L; ip -4 addr show rdma0 | grep inet'`)
		if err != nil {
			return err
		}
		if strings.Count(out, "GPU-") != 1 || slices.Contains(seen, out) {
			return fmt.Errorf("%s should see one GPU, and one that no other pod sees", pod)
		}
		seen = append(seen, out)
		if err := s.neighbours(ctx, pod); err != nil {
			return err
		}
	}
	out, err := s.run(ctx, inPod("trainer-0")+"ping -c 3 -I rdma0 10.1.0.11")
	if err != nil {
		return err
	}
	if err := expect(out, " 0% packet loss", "the pods reach each other over their NICs"); err != nil {
		return err
	}
	if s.gpu, s.index, err = s.gpuOf(ctx, "trainer-0"); err != nil {
		return err
	}
	s.held("Two pods, two pairs of neighbours, talking over their own NICs. It was Hostler that moved the NICs into the pods; no further network plugin is needed.")
	return nil
}

func (s *story) egressIsScoped(ctx context.Context) error {
	s.chapter("An agent that may talk to one place only", fmt.Sprintf(`Where a pod may connect to is a claim as well. This one
		allows 203.0.113.0/24 on TCP port 80 and the cluster's resolver. All else is refused in the kernel, from the
		container's first packet on, at once instead of after a timeout, and the cloud's metadata address
		%s with it.`, metadataAddress))
	for _, command := range []string{"kubectl -n " + namespace + " apply -f " + filepath.Join(manifests, "agent.yaml"), podsReady} {
		if _, err := s.run(ctx, command); err != nil {
			return err
		}
	}
	get := func(pod, address string) string {
		return inPod(pod) + "time -f 'after %e s' timeout 3 wget -qO- http://" + address
	}
	if _, err := s.run(ctx, get("agent", allowedAddress)); err != nil {
		return err
	}
	for _, address := range []string{deniedAddress, metadataAddress} {
		out, err := s.refused(ctx, get("agent", address))
		if err != nil {
			return err
		}
		if err := expect(out, "refused", "a denied address is refused at once"); err != nil {
			return err
		}
	}
	s.line("")
	s.say("A pod without a scope reaches the same address, so it is the scope that refused:")
	if _, err := s.run(ctx, get("trainer-0", deniedAddress)); err != nil {
		return err
	}
	s.held("The agent reaches what its claim names, and no other address.")
	return nil
}

func (s *story) metricsNameThePod(ctx context.Context) error {
	const busy = "0.73"
	s.chapter("Who uses which GPU", `The agent measures the devices every 5 seconds and serves one page for Prometheus.
		hostler_claim_info says which pod holds a device. Let the simulated driver report that the GPU of trainer-0
		is 73 % busy:`)
	if _, err := s.run(ctx, fmt.Sprintf(`echo 73 > "$NVML_CONTROL/gpu%d/utilization"`, s.index)); err != nil {
		return err
	}
	s.aside("(waiting for the next measurement)")
	scrape := fmt.Sprintf(`%s "$HOSTLER_METRICS" \
  | grep -E '^(hw_gpu_utilization_ratio|hostler_claim_info).*%s' | sed 's/,/,\n    /g'`, s.fetch, s.gpu)
	if err := eventually(ctx, "the page says "+busy, func() error {
		out, err := s.shell(ctx, scrape)
		if err == nil && !strings.Contains(out, "} "+busy) {
			err = errors.New(out)
		}
		return err
	}); err != nil {
		return err
	}
	out, err := s.run(ctx, scrape)
	if err != nil {
		return err
	}
	if err := expect(out, `pod="trainer-0"`, "the metrics name the pod"); err != nil {
		return err
	}
	s.line("")
	s.say("In Prometheus, the two join to utilization by pod (more queries: docs/metrics.md):")
	s.output(`avg by (namespace, pod) (
  max by (instance, device, namespace, pod) (hostler_claim_info)
  * on (instance, device) group_left () hw_gpu_utilization_ratio
)`)
	s.held("%s is 73 %% busy, and pod trainer-0 is the one that holds it.", s.gpu)
	return nil
}

func inPod(pod string) string { return "kubectl -n " + namespace + " exec " + pod + " -- " }
