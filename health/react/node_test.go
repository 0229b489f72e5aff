package react

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/record"
	testingclock "k8s.io/utils/clock/testing"

	"github.com/hostler-dev/hostler/health"
)

var foreign = corev1.Taint{Key: "example.com/maintenance", Value: "tonight", Effect: corev1.TaintEffectNoExecute}

func testNode() *corev1.Node {
	return &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: "node1"},
		Spec:       corev1.NodeSpec{Taints: []corev1.Taint{foreign}},
		Status:     corev1.NodeStatus{Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}},
	}
}

func newReactor(client *fake.Clientset, taint bool) (*Node, *record.FakeRecorder, *testingclock.FakeClock) {
	events, clock := record.NewFakeRecorder(100), testingclock.NewFakeClock(since)
	return NewNode(NodeConfig{Client: client, NodeName: "node1", Events: events, Taint: taint, Clock: clock}), events, clock
}

func read(t *testing.T, client *fake.Clientset) (taints []corev1.Taint, ours corev1.NodeCondition, conditions int) {
	t.Helper()
	node, err := client.CoreV1().Nodes().Get(t.Context(), "node1", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range node.Status.Conditions {
		if c.Type == NodeCondition {
			ours = c
		}
	}
	return node.Spec.Taints, ours, len(node.Status.Conditions)
}

func TestNodeTaintAndConditionFollowTheVerdicts(t *testing.T) {
	dead := []health.Verdict{verdict("", health.FamilyDriver, health.Fatal, "failed")}
	one := []health.Verdict{verdict(gpuA, health.FamilyXID, health.Fatal, "79")}
	ours := corev1.Taint{Key: NodeTaintKey, Value: "driver", Effect: corev1.TaintEffectNoSchedule}
	client := fake.NewClientset(testNode())
	reactor, _, clock := newReactor(client, true)
	for _, step := range []struct {
		name     string
		verdicts []health.Verdict
		taints   []corev1.Taint
		status   corev1.ConditionStatus
		reason   string
	}{
		{"healthy", nil, []corev1.Taint{foreign}, corev1.ConditionTrue, "NoFault"},
		{"one GPU broken: the node stays open", one, []corev1.Taint{foreign}, corev1.ConditionFalse, "DeviceFault"},
		{"the driver dead: the node is tainted", dead, []corev1.Taint{foreign, ours}, corev1.ConditionFalse, "AcceleratorsUnavailable"},
		{"the same again", dead, []corev1.Taint{foreign, ours}, corev1.ConditionFalse, "AcceleratorsUnavailable"},
		{"recovered: only ours goes", nil, []corev1.Taint{foreign}, corev1.ConditionTrue, "NoFault"},
	} {
		clock.Step(time.Minute)
		if err := reactor.reconcile(t.Context(), step.verdicts); err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		taints, condition, conditions := read(t, client)
		if diff := cmp.Diff(step.taints, taints); diff != "" {
			t.Errorf("%s: taints (-want +got):\n%s", step.name, diff)
		}
		if condition.Status != step.status || condition.Reason != step.reason || conditions != 2 {
			t.Errorf("%s: condition %s %s beside %d others, want %s %s beside the kubelet's", step.name, condition.Status, condition.Reason, conditions-1, step.status, step.reason)
		}
	}
}

func TestConditionKeepsItsTransitionTimeAcrossRestarts(t *testing.T) {
	client := fake.NewClientset(testNode())
	broken := []health.Verdict{verdict(gpuA, health.FamilyXID, health.Fatal, "79")}
	first, _, _ := newReactor(client, true)
	if err := first.reconcile(t.Context(), broken); err != nil {
		t.Fatal(err)
	}
	second, _, clock := newReactor(client, true)
	clock.Step(time.Hour)
	if err := second.reconcile(t.Context(), broken); err != nil {
		t.Fatal(err)
	}
	_, condition, _ := read(t, client)
	if !condition.LastTransitionTime.Time.Equal(since) || !condition.LastHeartbeatTime.Time.Equal(since.Add(time.Hour)) {
		t.Errorf("transition %s, heartbeat %s; want the first's start and the second's", condition.LastTransitionTime, condition.LastHeartbeatTime)
	}
}

func TestTaintLeftByAnEarlierAgent(t *testing.T) {
	for _, test := range []struct {
		name     string
		allowed  bool
		verdicts []health.Verdict
		stays    bool
	}{
		{"goes if the node has recovered", true, nil, false},
		{"stays while the fault stands", true, []health.Verdict{verdict("", health.FamilyAllGPUs, health.Fatal, "none-usable")}, true},
		{"goes if the taint was switched off", false, []health.Verdict{verdict("", health.FamilyAllGPUs, health.Fatal, "none-usable")}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			node := testNode()
			node.Spec.Taints = append(node.Spec.Taints, corev1.Taint{Key: NodeTaintKey, Value: "driver", Effect: corev1.TaintEffectNoSchedule})
			client := fake.NewClientset(node)
			reactor, _, _ := newReactor(client, test.allowed)
			if err := reactor.reconcile(t.Context(), test.verdicts); err != nil {
				t.Fatal(err)
			}
			taints, _, _ := read(t, client)
			if stays := len(taints) == 2; stays != test.stays || taints[0] != foreign {
				t.Errorf("taints are %v", taints)
			}
		})
	}
}

func TestRunLeavesTheNodeAloneUntilVerdictsAreKnownAndRetries(t *testing.T) {
	client := fake.NewClientset(testNode())
	reactor, _, clock := newReactor(client, true)
	refusals := 2
	client.PrependReactor("get", "nodes", func(clienttesting.Action) (bool, runtime.Object, error) {
		if refusals > 0 {
			refusals--
			return true, nil, errors.New("the API server is away")
		}
		return false, nil, nil
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- reactor.Run(ctx) }()
	waitUntil(t, func() bool { return clock.HasWaiters() })
	clock.Step(time.Hour)
	waitUntil(t, func() bool { return clock.HasWaiters() })
	if n := len(client.Actions()); n != 0 {
		t.Errorf("before the first verdicts %d requests were made", n)
	}
	reactor.SetVerdicts([]health.Verdict{verdict("", health.FamilyDriver, health.Fatal, "failed")})
	waitUntil(t, func() bool {
		clock.Step(time.Second)
		for _, action := range client.Actions() {
			if action.Matches("patch", "nodes/status") {
				return true
			}
		}
		return false
	})
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Run ended with %v", err)
	}
	if taints, _, _ := read(t, client); len(taints) != 2 {
		t.Errorf("after two refusals the taints are %v, want ours among them", taints)
	}
}

func waitUntil(t *testing.T, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !done(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("what was waited for did not happen within 20 s")
		}
	}
}

func TestEventsOnceOnRaiseAndOnceOnClear(t *testing.T) {
	reactor, events, _ := newReactor(fake.NewClientset(testNode()), true)
	old := verdict(gpuB, health.FamilyXID, health.Fatal, "79")
	fresh := verdict(gpuA, health.FamilyGPULost, health.Fatal, "lost")
	note := verdict(gpuB, health.FamilyXID, health.Info, "13")
	again := fresh
	again.Count = 5
	for _, step := range []struct {
		name     string
		verdicts []health.Verdict
		want     string
	}{
		{"what stood before this agent began", []health.Verdict{old}, ""},
		{"a new fault", []health.Verdict{fresh, old}, "Warning AcceleratorFault gpu-0000-17-00-0: Fatal: message of lost"},
		{"the same fault counted on", []health.Verdict{again, old}, ""},
		{"the old fault is over", []health.Verdict{again}, "Normal AcceleratorRecovered gpu-0000-2a-00-0: the fault xid (79) is over"},
		{"an application's fault", []health.Verdict{again, note}, "Normal AcceleratorFault gpu-0000-2a-00-0: Info: message of 13"},
		{"which is not a thing to recover from", []health.Verdict{again}, ""},
	} {
		reactor.SetVerdicts(step.verdicts)
		var got []string
		for len(events.Events) > 0 {
			got = append(got, <-events.Events)
		}
		if joined := strings.Join(got, "|"); joined != step.want {
			t.Errorf("%s: events %q, want %q", step.name, joined, step.want)
		}
	}
}
