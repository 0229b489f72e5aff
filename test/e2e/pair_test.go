package e2e

// Pairs: a GPU and its nearest NIC as one device. They are an option of the chart,
// so the scenario upgrades the release as an administrator would, and back.

import (
	"fmt"
	"strings"
	"testing"
)

func TestPair(t *testing.T) {
	s := newScenario(t)
	s.publishWith("config.publish.compositeDevices=true")
	s.soon("each GPU is published with its NIC, and nothing twice", func() error {
		for kind, number := range map[string]int{"pair": 8, "gpu": 8, "nic": 10} {
			if err := s.published(kind, number); err != nil {
				return err
			}
		}
		return nil
	})

	s.applySample(needPairs)
	pair := s.device(s.allocated("pair"))
	gpu, nic := s.device(attribute(pair, "hostler.dev/gpuName")), s.device(attribute(pair, "hostler.dev/nicName"))
	if want := fmt.Sprintf("nvidia%d", s.node.gpu(t, gpu.Name).Minor); s.sh("pair", listGPUs) != want {
		t.Errorf("the pod sees GPU nodes %q, want the pair's %s", s.sh("pair", listGPUs), want)
	}
	if out := s.sh("pair", "ip -o addr show rdma0; ls /dev/infiniband"); !strings.Contains(out, "10.1.0.6/24") || !strings.Contains(out, "uverbs") {
		t.Errorf("the pair's netdev and RDMA device in the pod: %s", out)
	}
	if _, still := s.node.snapshot(t).links[attribute(nic, "hostler.dev/ifName")]; still {
		t.Errorf("the node still shows the netdev of %s, which is in the pod", nic.Name)
	}

	pciBusID := func(address string) string {
		return fmt.Sprintf(`device.attributes["resource.kubernetes.io"].pciBusID == %q`, address)
	}
	s.apply(template("its-gpu", requests(request("gpu", oneGPU, pciBusID(attribute(gpu, "resource.kubernetes.io/pciBusID"))))), pod("its-gpu", "its-gpu", ""),
		template("its-nic", requests(request("nic", anyNIC, pciBusID(attribute(nic, "resource.kubernetes.io/pciBusID"))))), pod("its-nic", "its-nic", ""))
	for _, half := range []string{"its-gpu", "its-nic"} {
		s.eventually("nobody else gets a half", func() error { return s.unschedulable(half, "cannot allocate all claims") })
	}
	s.kubectl("delete", "pod", "pair")
	s.awaitReady("its-gpu", "its-nic")
	if got := []string{s.allocated("its-gpu"), s.allocated("its-nic")}; got[0] != gpu.Name || got[1] != nic.Name {
		t.Errorf("the halves that came home were given as %v, want %s and %s", got, gpu.Name, nic.Name)
	}
	s.apply(template("again", requests(request("pair", "pair.hostler.dev", pciBusID(attribute(gpu, "resource.kubernetes.io/pciBusID"))))), pod("again", "again", ""))
	s.eventually("a pair waits for its halves", func() error { return s.unschedulable("again", "cannot allocate all claims") })
}

// published is nil if the node publishes so many devices of that type.
func (s *scenario) published(kind string, want int) error {
	found := 0
	for _, d := range s.devices() {
		if attribute(d, "hostler.dev/type") == kind {
			found++
		}
	}
	if found != want {
		return fmt.Errorf("%d devices of type %s are published, want %d", found, kind, want)
	}
	return nil
}
