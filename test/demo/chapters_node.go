package main

// Chapters about the node: what the machine is, and what Kubernetes learns of it.

import (
	"context"

	"github.com/hostler-dev/hostler/test/cluster"
	"github.com/hostler-dev/hostler/topology"
)

const inAgent = "kubectl -n " + cluster.AgentNamespace + " exec ds/hostler -- "

func (s *story) machineIsDrawn(ctx context.Context) error {
	s.chapter("The machine", `Hostler's agent runs on each GPU node and reads how its GPUs and NICs are wired. PIX: both
		hang behind one PCIe switch, and data goes straight from GPU to NIC. SYS: it crosses the CPU sockets first.
		A training job loses much of its network that way, so GPU and NIC should be given out as neighbours.`)
	out, err := s.run(ctx, inAgent+`hostler topology \
  | sed -nE '1,9s/^(.{113}).*/\1/; 9s/$/\n/; 1,9p; /^NIC Legend/,$p'`)
	if err != nil {
		return err
	}
	if err := expect(out, "PIX", "a GPU and a NIC are neighbours"); err != nil {
		return err
	}
	if _, err := s.run(ctx, inAgent+"hostler topology -o svg > "+drawing); err != nil {
		return err
	}
	s.held("The same machine as a drawing: %s", drawing)
	return nil
}

func (s *story) devicesArePublished(ctx context.Context) error {
	s.chapter("What Kubernetes learns", `The agent publishes the devices as ResourceSlices, with the attributes that a
		claim can ask for. A GPU and a NIC with the same PCIe root or affinity group are neighbours. The NIC that
		carries the node's own traffic is listed too, but tainted with the reason: no pod gets it.`)
	if _, err := s.run(ctx, "kubectl get resourceslices"); err != nil {
		return err
	}
	out, err := s.run(ctx, `kubectl get resourceslices --sort-by=.spec.pool.name \
  -o go-template-file=`+deviceList)
	if err != nil {
		return err
	}
	for _, gpu := range s.profile.GPUs {
		if err := expect(out, topology.GPUName(gpu.PCI), "every GPU is published"); err != nil {
			return err
		}
	}
	if err := expect(out, "hostler.dev/uplink", "the uplink is tainted"); err != nil {
		return err
	}
	s.held("%d GPUs, %d NICs and the node's egress are published; the uplink %s is tainted.",
		len(s.profile.GPUs), len(s.profile.NICs), s.profile.UplinkName())
	return nil
}
