package e2e

// The kubelet dies while a claim is being prepared, and asks again when it is back,
// while the first attempt is still under way. The claim is prepared once.

import (
	"fmt"
	"slices"
	"testing"
)

func TestKubeletRestartsWhileAPartitionIsMade(t *testing.T) {
	s := newScenarioOn(t, &node2)
	parent := s.node.gpu(t, uncutGPU)
	t.Cleanup(func() {
		must(t, s.node.nvml().ClearAll())
		must(t, testbed.StartKubelet(s.ctx, s.node.Name))
	})
	s.apply(template("small", requests(request("mig", migClass, profileOf("1g.10gb", parent.UUID)...))), onMIGNode(pod("running", "small", "")))
	s.awaitReady("running")
	before := s.cut(parent.Index)

	must(t, s.node.nvml().Hang("nvmlDeviceCreateGpuInstanceWithPlacement", parent.Index))
	s.apply(onMIGNode(pod("interrupted", "small", "")))
	s.eventually("the second partition is being made", func() error { return s.claimsInJournal(2) })
	must(t, testbed.KillKubelet(s.ctx, s.node.Name))
	must(t, testbed.StartKubelet(s.ctx, s.node.Name))
	must(t, s.node.nvml().ClearAll())
	s.awaitReady("interrupted")

	now := s.cut(parent.Index)
	if len(now) != 2 || !slices.Contains(now, before[0]) || slices.ContainsFunc(now, isHalf) {
		t.Errorf("the GPU is cut into %v, want the running pod's %v and one more, whole", now, before)
	}
	if err := s.claimsInJournal(2); err != nil {
		t.Error(err)
	}
	if restarts := s.kubectl("get", "pods", "-o", "jsonpath={.items[*].status.containerStatuses[0].restartCount}"); restarts != "0 0" {
		t.Errorf("the pods' containers were restarted %s times", restarts)
	}
}

// claimsInJournal is nil if the agent's journal holds that many.
func (s *scenario) claimsInJournal(want int) error {
	entries, err := s.node.journalEntries()
	if err == nil && len(entries) != want {
		err = fmt.Errorf("the journal holds %v, want %d claims", entries, want)
	}
	return err
}
