package e2e

// The agent is what a node has gone back to from a later version. Claims whose journal entries it
// cannot read it leaves as they are, and says so: pods that have them run on, nobody gets
// their devices, and they end once the later version is back. Everything else it serves.

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

func TestClaimsOfALaterVersionAreLeftAlone(t *testing.T) {
	archive := os.Getenv("HOSTLER_LATER")
	if archive == "" {
		t.Skip("HOSTLER_LATER names no later version of the agent: make test-e2e builds one with test/later.sh")
	}
	s := newScenario(t)
	must(t, testbed.LoadImage(s.ctx, archive))
	t.Cleanup(func() {
		s.runImage("later") // which alone can end them
		s.kubectl("delete", "pods", "--all", "--wait=true", "--timeout=120s")
		s.eventually("no claim needs the later version", func() error { return s.journalHolds() })
		s.runImage("dev")
	})

	s.runImage("later")
	s.apply(template("gpu", requests(request("gpu", oneGPU))), pod("gpu", "gpu", ""),
		template("rdma", requests(request("nic", anyNIC))+config("nic", nicConfig("fabric0", "10.1.0.5/24"))), pod("rdma", "rdma", restartable))
	s.awaitReady("gpu", "rdma")
	nic := s.allocated("rdma")
	if _, err := s.node.journalEntries(); err == nil || !strings.Contains(err.Error(), "v3") {
		t.Errorf("this version reads the later one's journal, so that this run proves nothing: %v", err)
	}

	s.runImage("dev")
	for _, reason := range []string{"JournalSetAside", "ClaimsOfLaterVersion"} {
		s.eventually("the node has an event "+reason, func() error { return s.nodeHasEvent(reason) })
	}
	s.restart("rdma")
	if out := s.sh("rdma", "ip -o addr show fabric0; ls /dev/infiniband"); !strings.Contains(out, "10.1.0.5/24") || !strings.Contains(out, "uverbs") {
		t.Errorf("the pod of the later version has lost devices: %s", out)
	}
	must(t, s.journalHolds("gpu"))
	s.kubectl("delete", "pod", "gpu", "rdma")
	s.eventually("the claim that both versions know has ended", func() error { return s.journalHolds() })
	same := fmt.Sprintf(`device.attributes["resource.kubernetes.io"].pciBusID == %q`, attribute(s.device(nic), "resource.kubernetes.io/pciBusID"))
	s.apply(template("next", requests(request("nic", anyNIC, same))), pod("next", "next", ""))
	s.eventually("nobody else gets what the later version gave away", func() error {
		holds := fmt.Sprintf("device=%q holder=\"%s/rdma-", nic, s.namespace)
		log, err := s.try("-n", agentNamespace, "logs", s.agent(), "--tail=-1")
		if err == nil && !strings.Contains(log, holds) {
			err = fmt.Errorf("the agent's log does not say that a claim waits for %s", holds)
		}
		return err
	})

	s.runImage("later")
	s.eventually("the later version has its claims back", func() error { return s.nodeHasEvent("JournalTakenBack") })
	s.kubectl("annotate", "pod", "next", "test.hostler.dev/look=again") // the kubelet would in some ten seconds
	s.awaitReady("next")
}

// runImage has all nodes run the image of that tag.
func (s *scenario) runImage(tag string) {
	s.Helper()
	if races := agentRaces(s.ctx); races != "" { // the logs go with the pods
		s.Errorf("the race detector spoke up in the agent:\n%s", races)
	}
	s.kubectl("-n", agentNamespace, "set", "image", "ds/hostler", "agent=localhost/hostler-dev/hostler:"+tag)
	s.awaitAgent()
}

// journalHolds is nil if the journal has entries of these pods' claims, and no others.
func (s *scenario) journalHolds(pods ...string) error {
	entries, err := s.node.journalEntries()
	if err != nil {
		return err
	}
	for _, pod := range pods {
		if !slices.ContainsFunc(entries, func(e string) bool { return strings.HasPrefix(e, s.namespace+"/"+pod+"-") }) {
			return fmt.Errorf("the journal holds %v, want pod %s's claim", entries, pod)
		}
	}
	if len(entries) != len(pods) {
		return fmt.Errorf("the journal holds %v, want claims of %v", entries, pods)
	}
	return nil
}

func (s *scenario) nodeHasEvent(reason string) error {
	out, err := s.try("get", "events", "-A", "--field-selector", "involvedObject.kind=Node,involvedObject.name="+s.node.Name+",reason="+reason, "-o", "name")
	if err == nil && out == "" {
		err = fmt.Errorf("no event of the node has the reason %s", reason)
	}
	return err
}
