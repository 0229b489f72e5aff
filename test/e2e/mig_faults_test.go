package e2e

// Bad days of partitions: the agent dies while one is used or made, the GPU below
// fails, and an administrator cuts GPUs behind the agent's back.

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	resourceapi "k8s.io/api/resource/v1"
)

// promptly is well below the 30 seconds between polls: what is noticed in that
// time was told by an event or looked for on purpose. It takes a second or two.
const promptly = 20 * time.Second

func TestAgentKilledWhilePartitionsAreMadeAndUsed(t *testing.T) {
	s := newScenarioOn(t, &node2)
	// The agent dies once, while one pod runs and two others' partitions are made:
	// one before there is a GPU instance, one before that has its compute instance.
	fresh, other := s.node.gpu(t, uncutGPU), s.node.gpu(t, partlyCutGPU)
	s.apply(template("first", requests(request("mig", migClass, profileOf("1g.10gb", fresh.UUID)...))),
		template("second", requests(request("mig", migClass, profileOf("2g.10gb", other.UUID)...))), onMIGNode(pod("running", "first", "")))
	s.awaitReady("running")
	of := s.cut(fresh.Index)
	othersBefore := len(s.cut(other.Index))
	t.Cleanup(func() { must(t, s.node.nvml().ClearAll()) })
	must(t, s.node.nvml().Hang("nvmlDeviceCreateGpuInstanceWithPlacement", fresh.Index))
	must(t, s.node.nvml().Hang("nvmlGpuInstanceCreateComputeInstance", other.Index))
	s.apply(onMIGNode(pod("interrupted", "first", "")), onMIGNode(pod("halfway", "second", "")))
	s.eventually("both partitions are being made", func() error {
		entries, err := s.node.journalEntries()
		if half := slices.ContainsFunc(s.cut(other.Index), isHalf); err == nil && (len(entries) != 3 || !half) {
			err = fmt.Errorf("journal: %v, half an instance: %t", entries, half)
		}
		return err
	})
	s.killAgent()
	must(t, s.node.nvml().ClearAll())
	s.awaitReady("interrupted", "halfway")
	s.awaitAgent()
	now := s.cut(fresh.Index)
	if len(now) != 2 || !slices.Contains(now, of[0]) || slices.ContainsFunc(now, isHalf) {
		t.Errorf("the first GPU is cut into %v, want the running pod's %v and one more, whole", now, of[0])
	}
	if now := s.cut(other.Index); len(now) != othersBefore+1 || slices.ContainsFunc(now, isHalf) {
		t.Errorf("the second GPU is cut into %v, want one more than %d, all whole", now, othersBefore)
	}
	if restarts := s.kubectl("get", "pod", "running", "-o", "jsonpath={.status.containerStatuses[0].restartCount}"); restarts != "0" {
		t.Errorf("the running pod was restarted %s times", restarts)
	}
}

func isHalf(i migInstance) bool { return !i.whole }

func TestFaultOfAPartitionedGPU(t *testing.T) {
	s := newScenarioOn(t, &node2)
	parent := s.node.gpu(t, uncutGPU)
	s.apply(template("small", requests(request("mig", migClass, profileOf("1g.10gb", parent.UUID)...))), onMIGNode(pod("victim", "small", "")))
	s.awaitReady("victim")
	t.Cleanup(func() { s.heal(parent.Index) })
	must(t, s.node.nvml().InjectXID(parent.Index, 79, nil, nil))
	must(t, s.node.nvml().SetLost(parent.Index, true))
	s.eventually("the GPU's partitions are tainted with it, and no other's", func() error {
		seen := 0
		for _, d := range s.partitions() {
			of := attribute(d, "hostler.dev/parentUUID") == parent.UUID
			if of {
				seen++
			}
			if faulty := len(d.Taints) > 0; faulty != of {
				return fmt.Errorf("partition %s has taints %v", d.Name, d.Taints)
			}
		}
		if seen == 0 {
			return fmt.Errorf("no partition of %s is published any more, and a pod uses one", uncutGPU)
		}
		return s.tainted(uncutGPU, true)
	})
	s.eventually("the pod's status says that its partition is unhealthy", func() error { return s.allocatedHealth("victim", "Unhealthy") })
	s.heal(parent.Index)
	s.eventually("recovery lifts the taints", func() error {
		if n := len(s.partitionsOf(parent)); n != offered[uncutGPU] {
			return fmt.Errorf("%d partitions are offered, want %d", n, offered[uncutGPU])
		}
		for _, d := range s.partitions() {
			if len(d.Taints) > 0 {
				return fmt.Errorf("partition %s has taints %v", d.Name, d.Taints)
			}
		}
		return nil
	})
}

func TestAdministratorCutsGPUs(t *testing.T) {
	s := newScenarioOn(t, &node2)
	parent, whole := s.node.gpu(t, uncutGPU), s.node.gpu(t, "gpu-0000-b7-00-0")
	t.Cleanup(func() {
		must(t, s.node.nvml().SetMIGInstances(parent.Index, ""))
		must(t, s.node.nvml().SetMIGMode(whole.Index, false))
		s.eventually("the machine is published as it was", func() error { return s.offers(map[gpu]int{parent: offered[uncutGPU], whole: 0}) })
	})

	must(t, s.node.nvml().SetMIGInstances(parent.Index, "1 9 0:4 0/2/0:3/MIG-0c1d5a52-0000-5000-8000-000000000001"))
	// Itself, and 3g.20gb, three of 1g.5gb and of 1g.5gb+me, two of 1g.10gb and one of 2g.10gb in slices 4 to 7.
	s.soon("what an administrator has cut is offered, and nothing that overlaps it", func() error { return s.offers(map[gpu]int{parent: 1 + 10, whole: 0}) })
	if made := s.device(uncutGPU + "-mig-3g-20gb-0"); attribute(made, "hostler.dev/uuid") == "" {
		t.Errorf("%s exists and is published without its UUID", made.Name)
	}
	must(t, s.node.nvml().SetMIGInstances(parent.Index, ""))
	s.soon("what he has removed makes room again", func() error { return s.offers(map[gpu]int{parent: offered[uncutGPU], whole: 0}) })

	must(t, s.node.nvml().SetMIGMode(whole.Index, true))
	s.soon("a GPU that he puts into MIG mode is offered in parts", func() error {
		if err := s.tainted("gpu-0000-b7-00-0", true); err != nil {
			return err
		}
		return s.offers(map[gpu]int{parent: offered[uncutGPU], whole: offered[uncutGPU]})
	})
	must(t, s.node.nvml().SetMIGMode(whole.Index, false))
	s.soon("and whole again when he takes it out", func() error {
		if err := s.tainted("gpu-0000-b7-00-0", false); err != nil {
			return err
		}
		return s.offers(map[gpu]int{whole: 0})
	})
}

// soon is eventually for what the agent notices by itself, and says how long it took.
func (s *scenario) soon(what string, check func() error) {
	s.Helper()
	began := time.Now()
	s.eventually(what, check)
	took := time.Since(began)
	s.Logf("%s: after %s", what, took.Round(10*time.Millisecond))
	if took > promptly {
		s.Errorf("%s: after %s, want %s at most", what, took.Round(time.Millisecond), promptly)
	}
}

// offers is nil if so many partitions of the GPUs are published.
func (s *scenario) offers(want map[gpu]int) error {
	for parent, number := range want {
		if found := s.partitionsOf(parent); len(found) != number {
			return fmt.Errorf("GPU %d has %d partitions to offer, want %d: %s", parent.Index, len(found), number, strings.Join(found, " "))
		}
	}
	return nil
}

// partitions are the published devices that are parts of GPUs.
func (s *scenario) partitions() []resourceapi.Device {
	s.Helper()
	return slices.DeleteFunc(s.devices(), func(d resourceapi.Device) bool { return attribute(d, "hostler.dev/type") != "mig" })
}

// partitionsOf names those of a GPU.
func (s *scenario) partitionsOf(parent gpu) []string {
	s.Helper()
	var names []string
	for _, d := range s.partitions() {
		if attribute(d, "hostler.dev/parentUUID") == parent.UUID {
			names = append(names, d.Name)
		}
	}
	return names
}
