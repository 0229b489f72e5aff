package e2e

// The agent is killed with -9 at random moments while pods come and go. Every
// pod must start in the end, and afterwards nothing may be left over: the
// scenario's own clean-up checks CDI files, journal, records, nft tables and
// netdevs, this test the pods' network namespaces too.

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

const (
	chaosRounds = 3
	chaosPods   = 4
	// chaosKills is how often the agent is killed at most: after each further time the
	// kubelet waits twice as long before it starts the container again.
	chaosKills = 3
)

func TestAgentKilledWhilePodsComeAndGo(t *testing.T) {
	s := newScenario(t)
	namespacesBefore := s.node.podNamespaces(t)
	seed := uint64(time.Now().UnixNano())
	random := rand.New(rand.NewPCG(seed, 0))
	t.Logf("seed %d", seed)

	s.apply(template("all", requests(request("gpu", oneGPU), request("nic", anyNIC), request("egress", "egress.hostler.dev"))+samePCIeRoot+
		"config:\n- requests: [nic]\n  opaque: {driver: hostler.dev, parameters: {apiVersion: hostler.dev/v1alpha1, kind: NICConfig, interfaceName: fabric0, rdma: None}}\n"+
		"- requests: [egress]\n  opaque: {driver: hostler.dev, parameters: {apiVersion: hostler.dev/v1alpha1, kind: EgressConfig}}\n"))
	stop := make(chan struct{})
	var kills int
	var killer sync.WaitGroup
	killer.Add(1)
	go func() {
		defer killer.Done()
		for kills < chaosKills {
			select {
			case <-stop:
				return
			case <-time.After(time.Duration(500+random.IntN(4000)) * time.Millisecond):
				if pid := s.node.agentPID(); pid != 0 && syscall.Kill(pid, syscall.SIGKILL) == nil {
					kills++
				}
			}
		}
	}()
	for round := range chaosRounds {
		var names, manifests []string
		for i := range chaosPods {
			names = append(names, fmt.Sprintf("pod-%d-%d", round, i))
			manifests = append(manifests, pod(names[i], "all", ""))
		}
		s.apply(manifests...)
		if round == chaosRounds-1 {
			close(stop) // the last round must come up whole
			killer.Wait()
			s.awaitReady(names...)
		}
		// Some come up, some are still being prepared when they are deleted.
		if _, err := s.try("wait", "--for=condition=Ready", "pod/"+names[0], fmt.Sprintf("--timeout=%ds", 2+random.IntN(8))); err != nil {
			t.Logf("round %d goes on without %s being ready", round, names[0])
		}
		s.kubectl(append([]string{"delete", "pod", "--wait=true", "--timeout=150s"}, names...)...)
	}
	if kills == 0 {
		t.Error("the agent was never killed: this run proves nothing")
	}
	t.Logf("the agent was killed %d times", kills)
	s.eventually("no pod's network namespace is left", func() error {
		if after := s.node.podNamespaces(t); !slices.Equal(after, namespacesBefore) {
			return fmt.Errorf("before %v, after %v", namespacesBefore, after)
		}
		return nil
	})
	s.awaitAgent()
}

// podNamespaces lists the node's named network namespaces.
func (b *bed) podNamespaces(t *testing.T) []string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(b.Root, "run/netns"))
	must(t, err)
	var names []string
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	return names
}

// agentPID finds the process of the node's agent, 0 if none runs.
func (b *bed) agentPID() int {
	commands, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return 0
	}
	for _, path := range commands {
		raw, err := os.ReadFile(path)
		if err != nil || !strings.HasPrefix(string(raw), "/usr/bin/hostler\x00agent\x00") {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if err == nil && b.sameNetNS(pid) {
			return pid
		}
	}
	return 0
}

// sameNetNS tells this node's agent from another's.
func (b *bed) sameNetNS(pid int) bool {
	process, err := os.Stat(fmt.Sprintf("/proc/%d/ns/net", pid))
	if err != nil {
		return false
	}
	named, err := os.Stat(b.NetNS)
	return err == nil && os.SameFile(process, named)
}

// killAgent kills the agent with -9 and leaves its restart to the kubelet. An agent that
// was killed just before comes back first.
func (s *scenario) killAgent() {
	s.Helper()
	s.eventually("an agent is there to be killed", func() error {
		pid := s.node.agentPID()
		if pid == 0 {
			return errors.New("no agent is running")
		}
		return syscall.Kill(pid, syscall.SIGKILL)
	})
}

// awaitAgent waits until the agent is ready (again).
func (s *scenario) awaitAgent() {
	s.Helper()
	s.kubectl("-n", agentNamespace, "rollout", "status", "ds/hostler", "--timeout="+patience.String())
}
