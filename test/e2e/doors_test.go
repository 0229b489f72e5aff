package e2e

// The two doors: whatever keeps the runtime's hook from a sandbox, its containers
// have their network when they start, or they do not start. The runtime is stopped
// while pods are prepared, so that what is to happen before their sandboxes are
// made does.

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hostler-dev/hostler/test/cluster"
)

// guarded is a pod with a NIC and an egress scope that lets nothing out.
func guarded(name string) []string {
	return []string{template(name, requests(request("nic", anyNIC), request("egress", "egress.hostler.dev"))+
		"config:\n- requests: [nic]\n  opaque: {driver: hostler.dev, parameters: {apiVersion: hostler.dev/v1alpha1, kind: NICConfig, interfaceName: fabric0, rdma: None}}\n"+
		"- requests: [egress]\n  opaque: {driver: hostler.dev, parameters: {apiVersion: hostler.dev/v1alpha1, kind: EgressConfig}}\n"),
		// What its first process sees is what it had from the start.
		pod(name, name, "ip link show fabric0 > /tmp/first 2>&1; nc -w 2 "+allowedAddress+" 80 </dev/null >/dev/null 2>&1 && echo open >> /tmp/first; echo looked >> /tmp/first; exec sleep 1000000")}
}

// isGuarded checks what the pod had when its container started.
func (s *scenario) isGuarded(name string) {
	s.Helper()
	s.awaitReady(name)
	s.eventually("the container has looked", func() error { _, err := s.trySh(name, "grep looked /tmp/first"); return err })
	if first := s.sh(name, "cat /tmp/first"); !strings.Contains(first, "fabric0") || strings.Contains(first, "open") {
		s.Errorf("when it started, the container of %s saw: %s", name, first)
	}
}

// prepared is nil if the journal has an entry of the pod's claim.
func (s *scenario) prepared(pod string) error {
	entries, err := s.node.journalEntries()
	if err == nil && !slices.ContainsFunc(entries, func(e string) bool { return strings.HasPrefix(e, s.namespace+"/"+pod+"-") }) {
		err = fmt.Errorf("the journal holds %v", entries)
	}
	return err
}

func TestSandboxesThatTheHookMissed(t *testing.T) {
	for _, test := range []struct {
		// name is of what is killed between prepare and sandbox.
		name  string
		event func(s *scenario)
	}{
		{"agent", func(s *scenario) {
			s.killAgent()
			must(s.T, testbed.ContinueRuntime(s.node.Name))
		}},
		{"runtime", func(s *scenario) {
			must(s.T, testbed.RestartRuntime(s.ctx, s.node.Name))
		}},
		{"both", func(s *scenario) {
			s.killAgent()
			must(s.T, testbed.RestartRuntime(s.ctx, s.node.Name))
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newScenario(t)
			s.apply(guarded("running")...)
			s.isGuarded("running")
			t.Cleanup(func() { must(t, testbed.ContinueRuntime(s.node.Name)) })
			s.isGuarded(s.preparedBefore(test.event))
			s.awaitAgent()
			s.sh("running", "ip link show fabric0")
			if out, err := s.trySh("running", "nc -w 2 "+allowedAddress+" 80 </dev/null"); err == nil {
				t.Errorf("the running pod's scope fell: %s", out)
			}
		})
	}
}

// preparedBefore starts a pod, the name of which it returns, and has the event happen
// between its prepare and its sandbox. The runtime is stopped meanwhile, and where the
// kubelet needs that for something else first, another pod is tried.
func (s *scenario) preparedBefore(event func(*scenario)) string {
	s.Helper()
	for try := range 8 {
		name := fmt.Sprintf("new%d", try)
		must(s.T, testbed.StopRuntime(s.node.Name))
		s.apply(guarded(name)...)
		within := 4 * time.Second
		if try >= 6 { // the machine is slow
			within = 20 * time.Second
		}
		for deadline := time.Now().Add(within); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) { // polling pace
			if s.prepared(name) == nil {
				event(s)
				return name
			}
		}
		must(s.T, testbed.ContinueRuntime(s.node.Name))
		s.isGuarded(name)
	}
	s.Fatal("no pod was prepared while the runtime was stopped")
	return ""
}

func TestRuntimeWithoutNRI(t *testing.T) {
	s := newScenario(t)
	s.restartRuntimeWith(cluster.WithoutNRI)
	t.Cleanup(func() { s.restartRuntimeWith("") })
	before := s.node.snapshot(t)
	s.apply(guarded("gated")...)
	s.isGuarded("gated")
	s.kubectl("delete", "pod", "gated")
	s.eventually("the netdev is home as it was", func() error { return s.node.asBefore(before) })

	// A pod on the host's network is deleted with force while the kubelet is down:
	// nobody but its processes tells whether it still has its GPU.
	s.apply(template("trainer", requests(request("gpu", oneGPU))), strings.Replace(pod("trainer", "trainer", ""), "spec:\n", "spec:\n  hostNetwork: true\n", 1))
	s.awaitReady("trainer")
	held := s.node.gpu(t, s.claimOf("trainer").Status.Allocation.Devices.Results[0].Device).Index
	uid := s.kubectl("get", "pod", "trainer", "-o", "jsonpath={.metadata.uid}")
	must(t, testbed.KillKubelet(s.ctx, s.node.Name))
	t.Cleanup(func() { must(t, testbed.StartKubelet(s.ctx, s.node.Name)) })
	s.kubectl("delete", "pod", "trainer", "--force", "--grace-period=0")
	s.eventually("the claim is gone from the API server", func() error {
		out, err := s.try("get", "resourceclaims", "-o", "name")
		if err == nil && out != "" {
			err = fmt.Errorf("still there: %s", out)
		}
		return err
	})
	s.lookAtAllClaims(held)
	must(t, s.prepared("trainer"))
	for _, pid := range podProcesses(t, uid) {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && err != syscall.ESRCH {
			t.Fatal(err)
		}
	}
	s.eventually("the pod has no process", func() error {
		if pids := podProcesses(t, uid); len(pids) > 0 {
			return fmt.Errorf("%v", pids)
		}
		return nil
	})
	s.lookAtAllClaims(held)
	s.eventually("the GPU is free without a word of the kubelet or the runtime", func() error {
		entries, err := s.node.journalEntries()
		if err == nil && len(entries) > 0 {
			err = fmt.Errorf("the journal holds %v", entries)
		}
		return err
	})
}

// restartRuntimeWith returns when the node's agent serves it again.
func (s *scenario) restartRuntimeWith(settings string) {
	s.Helper()
	must(s.T, testbed.RestartRuntimeWith(s.ctx, s.node.Name, settings))
	s.awaitAgent()
}

// lookAtAllClaims returns when the agent has: it does when a GPU other than the one
// that is held goes and comes back, see living_test.go.
func (s *scenario) lookAtAllClaims(held int) {
	s.Helper()
	page := "http://" + s.kubectl("-n", agentNamespace, "get", s.agent(), "-o", `jsonpath={.status.podIP}:{.metadata.annotations.prometheus\.io/port}`) + "/metrics"
	looks, err := reconciliations(page)
	must(s.T, err)
	lost := len(s.node.profile(s.T).GPUs) - 1
	if lost == held {
		lost--
	}
	defer func() { must(s.T, s.node.nvml().ClearAll()) }()
	for _, gone := range []bool{true, false} {
		must(s.T, s.node.nvml().SetLost(lost, gone))
		s.addRoute("198.51.100.77", "lo")()
		s.eventually("the agent has looked at all claims", func() error {
			now, err := reconciliations(page)
			if err == nil && now <= looks {
				err = fmt.Errorf("%d times, as before", now)
			}
			looks = max(looks, now)
			return err
		})
	}
}

// podProcesses are those in control groups of the pod.
func podProcesses(t *testing.T, uid string) []int {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cgroup")
	must(t, err)
	var pids []int
	for _, file := range files {
		if raw, err := os.ReadFile(file); err == nil && strings.Contains(string(raw), "pod"+uid) {
			pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
			must(t, err)
			pids = append(pids, pid)
		}
	}
	return pids
}
