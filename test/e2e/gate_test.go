package e2e

// The gate: with the agent away, what ran goes on and restarts, and nothing new
// starts without its network.

import (
	"fmt"
	"strings"
	"testing"
)

func TestAgentDown(t *testing.T) {
	s := newScenario(t)
	s.apply(template("agent", requests(request("nic", anyNIC), request("egress", "egress.hostler.dev"))+
		"config:\n- requests: [nic]\n  opaque: {driver: hostler.dev, parameters: {apiVersion: hostler.dev/v1alpha1, kind: NICConfig, interfaceName: fabric0, rdma: None}}\n"+
		"- requests: [egress]\n  opaque: {driver: hostler.dev, parameters: {apiVersion: hostler.dev/v1alpha1, kind: EgressConfig}}\n"), pod("running", "agent", "while [ ! -e /tmp/die ]; do sleep 0.2; done"))
	s.awaitReady("running")

	// No node matches any more, so the DaemonSet takes its agent away.
	s.kubectl("-n", agentNamespace, "patch", "ds", "hostler", "--type=merge", "-p", `{"spec":{"template":{"spec":{"nodeSelector":{"hostler.dev/none":"true"}}}}}`)
	t.Cleanup(func() {
		s.kubectl("-n", agentNamespace, "patch", "ds", "hostler", "--type=merge", "-p", `{"spec":{"template":{"spec":{"nodeSelector":null}}}}`)
		s.awaitAgent()
	})
	s.eventually("the agent is gone", func() error {
		if pid := s.node.agentPID(); pid != 0 {
			return fmt.Errorf("process %d", pid)
		}
		return nil
	})

	if out, err := s.trySh("running", "nc -w 2 "+allowedAddress+" 80 </dev/null"); err == nil {
		t.Errorf("the scope fell with the agent: %s", out)
	}
	s.sh("running", "touch /tmp/die")
	s.eventually("the running pod's container restarts", func() error {
		restarts := s.kubectl("get", "pod", "running", "-o", "jsonpath={.status.containerStatuses[0].restartCount} {.status.containerStatuses[0].ready}")
		if strings.HasPrefix(restarts, "0") || !strings.HasSuffix(restarts, "true") {
			return fmt.Errorf("restarts, ready: %s; %s", restarts, s.events("running"))
		}
		return nil
	})
	s.sh("running", "ip link show fabric0")

	s.apply(pod("new", "agent", ""))
	s.eventually("a new pod is not started and its events say why", func() error { return s.eventsContain("new", "hostler.dev") })
	if phase := s.kubectl("get", "pod", "new", "-o", "jsonpath={.status.phase}"); phase != "Pending" {
		t.Errorf("the new pod is %s without an agent", phase)
	}
}
