package e2e

// A scenario is a namespace with what a test put into it, on one node. Its methods
// speak kubectl, so that a failing step can be repeated by hand from the test's log.

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/utils/ptr"
)

type scenario struct {
	*testing.T
	ctx       context.Context
	namespace string
	node      *bed
}

func newScenario(t *testing.T) *scenario {
	t.Helper()
	return newScenarioOn(t, &node1)
}

// newScenarioOn makes the namespace and, at the end, removes it and checks that
// the node is as it was.
func newScenarioOn(t *testing.T, node *bed) *scenario {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Minute)
	s := &scenario{T: t, ctx: ctx, namespace: strings.ToLower(strings.TrimPrefix(strings.ReplaceAll(t.Name(), "/", "-"), "Test")), node: node}
	before := node.snapshot(t)
	s.eventually("the namespace is made, one of an earlier run gone", func() error { _, err := s.try("create", "namespace", s.namespace); return err })
	t.Cleanup(func() {
		defer cancel()
		if t.Failed() {
			s.explain()
		}
		// The namespace's own end takes seconds and concerns no node.
		s.kubectl("delete", "pods", "--all", "--wait=true", "--timeout=120s")
		s.kubectl("delete", "namespace", s.namespace, "--wait=false")
		s.eventually("the node holds nothing of the scenario", func() error { return node.leftovers(before) })
	})
	return s
}

// kubectl runs in the scenario's namespace and fails the test on error.
func (s *scenario) kubectl(args ...string) string {
	s.Helper()
	out, err := s.try(args...)
	if err != nil {
		s.Fatal(err)
	}
	return out
}

func (s *scenario) try(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(s.ctx, 3*time.Minute)
	defer cancel()
	return command(ctx, "", "kubectl", append([]string{"-n", s.namespace}, args...)...)
}

func (s *scenario) apply(manifests ...string) {
	s.Helper()
	if _, err := command(s.ctx, strings.Join(manifests, "\n---\n"), "kubectl", "-n", s.namespace, "apply", "-f", "-"); err != nil {
		s.Fatalf("%v\n%s", err, strings.Join(manifests, "\n---\n"))
	}
}

func (s *scenario) awaitReady(pods ...string) {
	s.Helper()
	for _, pod := range pods {
		s.kubectl("wait", "--for=condition=Ready", "pod/"+pod, "--timeout="+patience.String())
	}
}

// sh runs a shell command in the pod's first container.
func (s *scenario) sh(pod, script string) string {
	s.Helper()
	out, err := s.trySh(pod, script)
	if err != nil {
		s.Fatal(err)
	}
	return strings.TrimSpace(out)
}

func (s *scenario) trySh(pod, script string) (string, error) {
	return s.try("exec", pod, "--", "sh", "-c", script+" 2>&1")
}

// claimOf returns the claim that the pod's template made.
func (s *scenario) claimOf(pod string) resourceapi.ResourceClaim {
	s.Helper()
	name := s.kubectl("get", "pod", pod, "-o", "jsonpath={.status.resourceClaimStatuses[0].resourceClaimName}")
	var claim resourceapi.ResourceClaim
	s.getJSON(&claim, "resourceclaim", name)
	return claim
}

func (s *scenario) getJSON(into any, args ...string) {
	s.Helper()
	out := s.kubectl(append([]string{"get", "-o", "json"}, args...)...)
	if err := json.Unmarshal([]byte(out), into); err != nil {
		s.Fatalf("kubectl get %v: %v", args, err)
	}
}

// device finds a published device by name.
func (s *scenario) device(name string) resourceapi.Device {
	s.Helper()
	for _, d := range s.devices() {
		if d.Name == name {
			return d
		}
	}
	s.Fatalf("no slice holds device %s", name)
	return resourceapi.Device{}
}

// devices are those that the scenario's node publishes, by name.
func (s *scenario) devices() []resourceapi.Device {
	s.Helper()
	var list resourceapi.ResourceSliceList
	s.getJSON(&list, "resourceslices")
	var devices []resourceapi.Device
	for _, slice := range list.Items {
		if slice.Spec.Driver == "hostler.dev" && ptr.Deref(slice.Spec.NodeName, "") == s.node.Name {
			devices = append(devices, slice.Spec.Devices...)
		}
	}
	slices.SortFunc(devices, func(a, b resourceapi.Device) int { return strings.Compare(a.Name, b.Name) })
	return devices
}

// eventually repeats check until it returns nil.
func (s *scenario) eventually(what string, check func() error) {
	s.Helper()
	deadline := time.Now().Add(patience)
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			s.Fatalf("waited %s for: %s: %v", patience, what, err)
		}
		time.Sleep(200 * time.Millisecond) // polling pace, not a synchronisation
	}
}

// events returns the messages of the object's events, joined.
func (s *scenario) events(object string) string {
	s.Helper()
	return s.kubectl("get", "events", "--field-selector", "involvedObject.name="+object, "-o", `jsonpath={range .items[*]}{.reason}: {.message}{"\n"}{end}`)
}

// explain prints what a human would ask for first.
func (s *scenario) explain() {
	for _, args := range [][]string{
		{"get", "pods,resourceclaims", "-o", "wide"},
		{"get", "events", "--sort-by=.lastTimestamp"},
		{"-n", agentNamespace, "logs", s.agent(), "--tail=60"},
	} {
		out, err := s.try(args...)
		s.Logf("kubectl %s\n%s%v", strings.Join(args, " "), out, err)
	}
}

// agent is the pod of the node's agent, "" while there is none. While one takes
// over from another that is the later one.
func (s *scenario) agent() string {
	names := s.agents()
	if len(names) == 0 {
		return ""
	}
	return names[len(names)-1]
}

// agents are all pods of agents on the node, oldest first.
func (s *scenario) agents() []string {
	out, err := s.try("-n", agentNamespace, "get", "pods", "--field-selector=spec.nodeName="+s.node.Name, "--sort-by=.metadata.creationTimestamp", "-o", "name")
	if err != nil {
		s.Log(err)
	}
	return strings.Fields(out)
}
