package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
)

func TestResolversOutliveAnAnswerThatFails(t *testing.T) {
	const retry, soon, calm = 2 * time.Second, 30 * time.Second, 5 * time.Minute
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		client := fake.NewClientset(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}})
		w := newNodeWatch(client, "https://server", "n1")
		service := func(address string) *corev1.Service {
			return &corev1.Service{Spec: corev1.ServiceSpec{ClusterIPs: []string{address}}}
		}
		absent := apierrors.NewNotFound(corev1.Resource("services"), "kube-dns")
		away := errors.New("the server is away")
		type answer struct {
			service *corev1.Service
			err     error
		}
		answers := []answer{
			{nil, away}, {nil, absent}, {nil, away}, {service("10.96.0.10"), nil}, {nil, away}, {service("10.96.0.11"), nil}, {service("None"), nil}, {nil, absent},
		}
		// question is what was known when it was asked, and how long after the last one.
		type question struct {
			known string
			after time.Duration
		}
		var questions []question
		last := time.Now()
		client.PrependReactor("get", "services", func(clienttesting.Action) (bool, runtime.Object, error) {
			questions = append(questions, question{list(w.resolvers()), unjittered(time.Since(last), retry, soon, calm)})
			last = time.Now()
			given := answers[len(questions)-1]
			if len(questions) == len(answers) {
				stop()
			}
			return true, given.service, given.err
		})
		if err := w.run(ctx); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		want := []question{
			{"unknown", retry}, {"unknown", retry}, {"none", soon}, {"none", retry}, {"10.96.0.10", calm}, {"10.96.0.10", retry}, {"10.96.0.11", calm}, {"none", soon},
		}
		if diff := cmp.Diff(want, questions, cmp.AllowUnexported(question{})); diff != "" {
			t.Errorf("what was known at each question (-want +got):\n%s", diff)
		}
	})
}

// What leads to the API servers is an uplink, so an address that was known must
// not be forgotten because one question failed.
func TestAPIServersAreRememberedWhileTheyAreAway(t *testing.T) {
	client := fake.NewClientset(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}})
	w := newNodeWatch(client, "https://10.96.0.1:443", "n1")
	changes := 0
	w.changed = func() { changes++ }
	slice := &discoveryv1.EndpointSlice{Endpoints: []discoveryv1.Endpoint{{Addresses: []string{"192.0.2.7"}}, {Addresses: []string{"192.0.2.6"}}}}
	var fail error
	client.PrependReactor("get", "endpointslices", func(clienttesting.Action) (bool, runtime.Object, error) { return true, slice, fail })
	for _, step := range []struct {
		name string
		fail error
		want string
	}{
		{"known", nil, "[10.96.0.1 192.0.2.6 192.0.2.7]"},
		{"the API server is away", errors.New("the server is away"), "[10.96.0.1 192.0.2.6 192.0.2.7]"},
		{"the agent may not ask", apierrors.NewForbidden(discoveryv1.Resource("endpointslices"), "kubernetes", nil), "[10.96.0.1]"},
	} {
		fail = step.fail
		w.ask(t.Context())
		if got := fmt.Sprint(w.apiServers()); got != step.want {
			t.Errorf("%s: %s, want %s", step.name, got, step.want)
		}
	}
	if changes != 2 {
		t.Errorf("the observer was told %d times, want at the first answer and at the change", changes)
	}
}

// unjittered is the one of the pauses that this may be, with up to a tenth added.
func unjittered(d time.Duration, pauses ...time.Duration) time.Duration {
	for _, pause := range pauses {
		if d >= pause && d <= pause+pause/10 {
			return pause
		}
	}
	return d
}

func list(resolvers []netip.Addr) string {
	switch {
	case resolvers == nil:
		return "unknown"
	case len(resolvers) == 0:
		return "none"
	}
	return resolvers[0].String()
}
