package e2e

// A pod on the host's network is deleted with force while nobody tells the node.
// Its network namespace is everybody's and says nothing; the container runtime does.

import (
	"bufio"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
)

func TestForceDeletedPodOnTheHostsNetworkKeepsItsGPU(t *testing.T) {
	s := newScenario(t)
	manifest := strings.Replace(pod("trainer", "one", ""), "spec:\n", "spec:\n  hostNetwork: true\n", 1)
	s.apply(template("one", requests(request("gpu", oneGPU))), manifest)
	s.awaitReady("trainer")
	claim := s.claimOf("trainer")
	agent := "http://" + s.kubectl("-n", agentNamespace, "get", s.agent(), "-o", `jsonpath={.status.podIP}:{.metadata.annotations.prometheus\.io/port}`) + "/metrics"

	// With the kubelet down nobody ends the pod, nor unprepares its claim.
	must(t, testbed.KillKubelet(s.ctx, s.node.Name))
	t.Cleanup(func() { must(t, testbed.StartKubelet(s.ctx, s.node.Name)) })
	s.kubectl("delete", "pod", "trainer", "--force", "--grace-period=0")
	s.eventually("the claim is gone from the API server", func() error {
		out, err := s.try("get", "resourceclaim", claim.Name, "--ignore-not-found", "-o", "name")
		if err == nil && out != "" {
			err = fmt.Errorf("still there: %s", out)
		}
		return err
	})
	looks, err := reconciliations(agent)
	must(t, err)
	// A GPU that goes and comes back has the agent look at all claims at once; a
	// change of routes has it look at the machine, which it would do by itself every half minute.
	other := s.node.profile(t).GPUs
	t.Cleanup(func() { must(t, s.node.nvml().ClearAll()) })
	lost := len(other) - 1
	if s.node.gpu(t, claim.Status.Allocation.Devices.Results[0].Device).Index == lost {
		lost--
	}
	for _, gone := range []bool{true, false} {
		must(t, s.node.nvml().SetLost(lost, gone))
		s.addRoute("198.51.100.77", "lo")()
		s.eventually("the agent has looked at all claims", func() error {
			now, err := reconciliations(agent)
			if err == nil && now <= looks {
				err = fmt.Errorf("%d times, as before", now)
			}
			looks = max(looks, now)
			return err
		})
	}
	entries, err := s.node.journalEntries()
	must(t, err)
	if !slices.Contains(entries, s.namespace+"/"+claim.Name) {
		t.Errorf("the journal holds %v: the GPU of a running pod was given away", entries)
	}
	must(t, testbed.StartKubelet(s.ctx, s.node.Name))
	s.eventually("the GPU is free once the pod has ended", func() error {
		entries, err := s.node.journalEntries()
		if err == nil && len(entries) > 0 {
			err = fmt.Errorf("the journal holds %v", entries)
		}
		return err
	})
}

// reconciliations is how often the agent has looked at all claims.
func reconciliations(page string) (count int, err error) {
	response, err := http.Get(page)
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	lines := bufio.NewScanner(response.Body)
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), " ")
		if strings.HasPrefix(name, "hostler_reconcile_duration_seconds_count{") && strings.Contains(name, `what="claims"`) {
			n, err := strconv.Atoi(value)
			if err != nil {
				return 0, fmt.Errorf("%s: %w", lines.Text(), err)
			}
			count += n
		}
	}
	return count, lines.Err()
}
