package e2e

// Egress scopes: what the claim allows answers, everything else is refused at
// once, from the container's first packet on.

import (
	"fmt"
	"strings"
	"testing"
)

// The world outside, as the testbed lays it out.
const (
	allowedAddress = "203.0.113.10"
	deniedAddress  = "198.51.100.10"
	worldPort      = 80
)

const scope = `apiVersion: hostler.dev/v1alpha1
kind: EgressConfig
allow:
- name: allowed
  to: [{cidr: {cidr: 203.0.113.0/24}}]
  ports: [{protocol: TCP, port: 80}]`

// firstPackets is the container's very first act: it tries both addresses and keeps the answers.
func firstPackets() string {
	try := func(address, file string) string {
		return fmt.Sprintf("s=$(date +%%s); nc -w 5 %s %d </dev/null >/dev/null 2>&1; echo exit=$? seconds=$(($(date +%%s)-s)) > /tmp/%s; ", address, worldPort, file)
	}
	return try(deniedAddress, "denied") + try(allowedAddress, "allowed") + "exec sleep 1000000"
}

func TestEgressScope(t *testing.T) {
	s := newScenario(t)
	s.apply(template("agent", requests(request("egress", "egress.hostler.dev"))+config("egress", scope)),
		pod("agent", "agent", firstPackets()), pod("unscoped", "", firstPackets()))
	s.awaitReady("agent", "unscoped")

	s.eventually("both first attempts are over", func() error { _, err := s.trySh("agent", "test -s /tmp/allowed"); return err })
	if out := s.sh("agent", "cat /tmp/denied"); strings.HasPrefix(out, "exit=0") || !strings.HasSuffix(out, "seconds=0") && !strings.HasSuffix(out, "seconds=1") {
		t.Errorf("the first packet to %s: %s, want a refusal at once", deniedAddress, out)
	}
	if out := s.sh("agent", "cat /tmp/allowed"); !strings.HasPrefix(out, "exit=0") {
		t.Errorf("the first packet to %s: %s, want an answer", allowedAddress, out)
	}
	if out := s.sh("unscoped", "cat /tmp/denied"); !strings.HasPrefix(out, "exit=0") {
		t.Errorf("a pod without a scope reaching %s: %s; the denial above proves nothing", deniedAddress, out)
	}
	for _, hostile := range []struct{ what, script string }{
		{"another port of the allowed address", "nc -w 2 203.0.113.10 81 </dev/null"},
		{"the metadata address", "nc -w 2 169.254.169.254 80 </dev/null"},
		{"ICMP to a denied address", "ping -c 1 -W 1 " + deniedAddress},
		{"IPv6 without a v6 rule", "nc -w 2 2001:db8::10 80 </dev/null"},
	} {
		if out, err := s.trySh("agent", hostile.script); err == nil {
			t.Errorf("%s got through: %s", hostile.what, out)
		}
	}
	if out, err := s.trySh("agent", "nslookup kubernetes.default.svc.cluster.local"); err != nil {
		t.Errorf("the cluster's resolver must stay reachable: %v %s", err, out)
	}
}

func TestEmptyScopeLetsNothingOut(t *testing.T) {
	s := newScenario(t)
	s.apply(template("locked", requests(request("egress", "egress.hostler.dev"))+config("egress", "apiVersion: hostler.dev/v1alpha1\nkind: EgressConfig\ndns: None")),
		pod("locked", "locked", ""))
	s.awaitReady("locked")
	for _, script := range []string{"nc -w 2 " + allowedAddress + " 80 </dev/null", "nslookup -timeout=1 kubernetes.default.svc.cluster.local"} {
		if out, err := s.trySh("locked", script); err == nil {
			t.Errorf("%q got through an empty scope: %s", script, out)
		}
	}
	if out, err := s.trySh("locked", "ping -c 1 -W 1 127.0.0.1"); err != nil {
		t.Errorf("loopback must work: %v %s", err, out)
	}
}

// One claim can serve many pods. The kubelet prepares it for the first; the
// scope must hold for those that come later too.
func TestPodsShareOneScope(t *testing.T) {
	s := newScenario(t)
	s.apply(claim("shared", requests(request("egress", "egress.hostler.dev"))+config("egress", scope)), podWith("first", "resourceClaimName: shared", ""))
	s.awaitReady("first")
	s.apply(podWith("second", "resourceClaimName: shared", firstPackets()))
	s.awaitReady("second")
	s.eventually("both first attempts are over", func() error { _, err := s.trySh("second", "test -s /tmp/allowed"); return err })
	if out := s.sh("second", "cat /tmp/denied"); strings.HasPrefix(out, "exit=0") {
		t.Errorf("the second pod reached %s: %s", deniedAddress, out)
	}
	if out := s.sh("second", "cat /tmp/allowed"); !strings.HasPrefix(out, "exit=0") {
		t.Errorf("the second pod did not reach %s: %s", allowedAddress, out)
	}
	s.kubectl("delete", "pod", "first")
	if out, err := s.trySh("second", "nc -w 2 "+deniedAddress+" 80 </dev/null"); err == nil {
		t.Errorf("the scope of the second pod went with the first: %s", out)
	}
}
