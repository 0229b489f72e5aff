package e2e

// The agents are downgraded and upgraded again while pods come and go. A pod must
// not notice: each one that is created runs, with no complaint in its events, and
// at every moment the node has an agent that is ready and slices in the API server. What
// one version has prepared the other one serves, and gives back.

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
)

// coming are pods of one kind that come and go one after the other.
var coming = []string{"gpu", "gpu", "gpu-nic"}

// restartable is a container that ends, and is restarted, once somebody wishes.
const restartable = "while [ ! -e /tmp/die ]; do sleep 0.1; done"

func TestAgentIsReplacedUnderChurn(t *testing.T) {
	s := newScenario(t)
	version := older()
	if version == nil {
		t.Log("No former version of the agent is at hand (see test/older.sh): it is replaced by its own version, which shows nothing of what versions read of each other")
	} else {
		t.Logf("The agent is replaced by the former version that lies in %s, and back", version.chart)
		must(t, testbed.LoadImage(s.ctx, version.image))
	}
	s.apply(
		template("gpu", requests(request("gpu", oneGPU))),
		template("gpu-nic", requests(request("gpu", oneGPU), request("nic", anyNIC))+samePCIeRoot+
			"config:\n- requests: [nic]\n  opaque: {driver: hostler.dev, parameters: {apiVersion: hostler.dev/v1alpha1, kind: NICConfig, interfaceName: fabric0, rdma: None}}\n"),
		pod("lives", "gpu-nic", restartable), pod("leaves", "gpu-nic", ""))
	s.awaitReady("lives", "leaves")
	watching, endWatch := context.WithCancel(s.ctx)
	agents, slicesOf := s.watchAgents(watching), s.watchSlices(watching)
	s.eventually("the watches have begun", func() error { return errors.Join(agents.begun(), slicesOf.begun()) })

	churning, stop := context.WithCancel(s.ctx)
	var workers sync.WaitGroup
	defer func() { // also when the test ends early: they must not outlive it
		stop()
		workers.Wait()
	}()
	served := make([]int, len(coming))
	for i, kind := range coming {
		workers.Go(func() { served[i] = s.comeAndGo(churning, fmt.Sprintf("%s-%d", kind, i), kind) })
	}

	t.Cleanup(func() { s.deploy() })
	s.replaceAgent(version)
	s.apply(pod("born", "gpu-nic", restartable))
	s.awaitReady("born")
	s.restart("lives")
	s.kubectl("delete", "pod", "leaves", "--wait=true")
	s.replaceAgent(nil)
	s.restart("born")
	for _, pod := range []string{"lives", "born"} {
		if out := s.sh(pod, seesGPUAndNIC+" && echo both"); !strings.HasSuffix(out, "both") {
			t.Errorf("pod %s, which has lived with both versions, has lost a device: %s", pod, out)
		}
		s.kubectl("delete", "pod", pod, "--wait=true")
	}

	stop()
	workers.Wait()
	endWatch()
	t.Logf("%v pods of %v ran meanwhile", served, coming)
	if slices.Min(served) < 3 {
		t.Error("too few pods came and went for this run to prove anything")
	}
	for _, fault := range append(agents.ended(), slicesOf.ended()...) {
		t.Error(fault)
	}
	s.noWarnings()
}

// replaceAgent deploys the version with surge, on this node alone, and returns when the
// agent of before is gone.
func (s *scenario) replaceAgent(version *former) {
	s.Helper()
	before, began := s.agent(), time.Now()
	s.deployVersion(version, append(surge(), "nodeSelector.kubernetes\\.io/hostname="+s.node.Name,
		"podAnnotations.test\\.hostler\\.dev/replaces="+strings.TrimPrefix(before, "pod/"))...) // also by its own version
	s.eventually("the old agent is gone", func() error {
		if now := s.agents(); slices.Contains(now, before) {
			return fmt.Errorf("there are %s", now)
		}
		return nil
	})
	after := s.agent()
	log := s.kubectl("-n", agentNamespace, "logs", after, "--tail=-1")
	if !strings.Contains(log, "Asked the node's active agent for its turn") {
		s.Errorf("the new agent came after the old one, not beside it:\n%s", log)
	}
	_, first, _ := strings.Cut(log, "] ")
	s.Logf("%s was replaced by %s in %s: %s", before, after, time.Since(began).Round(100*time.Millisecond), strings.SplitN(first, "\n", 2)[0])
}

// restart has the pod's container start anew, with its devices.
func (s *scenario) restart(pod string) {
	s.Helper()
	s.sh(pod, "touch /tmp/die")
	s.eventually("the container of "+pod+" is restarted", func() error {
		status := s.kubectl("get", "pod", pod, "-o", "jsonpath={.status.containerStatuses[0].restartCount} {.status.containerStatuses[0].ready}")
		if status != "1 true" {
			return fmt.Errorf("restarts, ready: %s; %s", status, s.events(pod))
		}
		return nil
	})
}

// comeAndGo creates pods and deletes them once they run, until ctx ends, and returns how many ran.
func (s *scenario) comeAndGo(ctx context.Context, prefix, kind string) (ran int) {
	for ; ctx.Err() == nil; ran++ {
		name := fmt.Sprintf("%s-%d", prefix, ran)
		if _, err := command(s.ctx, pod(name, kind, ""), "kubectl", "-n", s.namespace, "apply", "-f", "-"); err != nil {
			s.Error(err)
			return ran
		}
		restarts, err := s.try("wait", "--for=condition=Ready", "pod/"+name, "--timeout="+patience.String(), "-o", "jsonpath={.status.containerStatuses[*].restartCount}")
		if err != nil {
			s.Error(err)
			return ran
		}
		if restarts != "0" {
			s.Errorf("the container of pod %s was restarted %s times", name, restarts)
		}
		if _, err := s.try("delete", "pod", name, "--wait=true", "--timeout=60s"); err != nil {
			s.Error(err)
			return ran
		}
	}
	return ran
}

// noWarnings: the scheduler's word on pods that wait for their claims to be made is the only one allowed.
func (s *scenario) noWarnings() {
	s.Helper()
	var events corev1.EventList
	s.getJSON(&events, "events", "--field-selector=type=Warning")
	for _, event := range events.Items {
		if event.Reason != "FailedScheduling" {
			s.Errorf("%s: %s: %s", event.InvolvedObject.Name, event.Reason, event.Message)
		}
	}
}

// watch follows objects of one kind and notes what must not be.
type watch struct {
	done chan struct{}

	mu     sync.Mutex
	seen   bool
	faults []string
}

func (w *watch) begun() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.seen {
		return errors.New("nothing was seen yet")
	}
	return nil
}

func (w *watch) ended() []string {
	<-w.done
	return w.faults
}

// watched decodes what `kubectl get --watch` writes and hands it to check, which
// returns what is wrong with it, or "". A watch that ends early is a fault.
func watched[T any](ctx context.Context, check func(kind string, object T) string, args ...string) *watch {
	w := &watch{done: make(chan struct{})}
	reader, writer := io.Pipe()
	cmd := testbed.Command(ctx, "kubectl", append([]string{"get", "--watch", "--output-watch-events", "-o", "json"}, args...)...)
	cmd.Stdout = writer
	go func() { writer.CloseWithError(errors.Join(io.EOF, cmd.Run())) }()
	go func() {
		defer close(w.done)
		for decoder := json.NewDecoder(reader); ; {
			var event struct {
				Type   string
				Object T
			}
			err := decoder.Decode(&event)
			if ctx.Err() != nil {
				return
			}
			w.mu.Lock()
			w.seen = true
			if err != nil {
				w.faults = append(w.faults, fmt.Sprintf("the watch of %v ended: %v", args, err))
			} else if fault := check(event.Type, event.Object); fault != "" {
				w.faults = append(w.faults, time.Now().Format(time.TimeOnly)+": "+fault)
			}
			w.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	return w
}

// watchAgents notes moments without a ready agent on the scenario's node.
func (s *scenario) watchAgents(ctx context.Context) *watch {
	ready := map[types.UID]bool{}
	return watched(ctx, func(kind string, agent corev1.Pod) string {
		ready[agent.UID] = kind != "DELETED" && slices.ContainsFunc(agent.Status.Conditions, func(c corev1.PodCondition) bool {
			return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
		})
		for _, is := range ready {
			if is {
				return ""
			}
		}
		return fmt.Sprintf("no agent is ready since pod %s was %s", agent.Name, strings.ToLower(kind))
	}, "pods", "-n", agentNamespace, "--field-selector=spec.nodeName="+s.node.Name)
}

// watchSlices notes when one of the node's slices is taken away.
func (s *scenario) watchSlices(ctx context.Context) *watch {
	return watched(ctx, func(kind string, slice resourceapi.ResourceSlice) string {
		if kind != "DELETED" || ptr.Deref(slice.Spec.NodeName, "") != s.node.Name {
			return ""
		}
		return fmt.Sprintf("slice %s of pool %s is gone", slice.Name, slice.Spec.Pool.Name)
	}, "resourceslices", "--field-selector=spec.driver=hostler.dev")
}
