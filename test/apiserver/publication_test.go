// Publishing as the agent does it, through the library's controller, but with a
// queue that tells when there is nothing left to do: only then has "writes
// nothing" a meaning.

package apiserver

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	resourceapi "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/dynamic-resource-allocation/resourceslice"

	"github.com/hostler-dev/hostler/driver/publish"
)

// watchedQueue knows which pools wait to be synced or are being synced. What is
// added with a delay does not count: those are the library's later second looks.
type watchedQueue struct {
	workqueue.TypedRateLimitingInterface[string]
	mu   sync.Mutex
	busy map[string]int
	idle *sync.Cond
}

func newWatchedQueue() *watchedQueue {
	q := &watchedQueue{busy: map[string]int{}, TypedRateLimitingInterface: workqueue.NewTypedRateLimitingQueue(workqueue.DefaultTypedControllerRateLimiter[string]())}
	q.idle = sync.NewCond(&q.mu)
	return q
}

const waiting, syncing = 1, 2

// mark says that a pool now is the one and no longer the other.
func (q *watchedQueue) mark(pool string, now, before int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.busy[pool] = q.busy[pool]&^before | now; q.busy[pool] == 0 {
		delete(q.busy, pool)
	}
	q.idle.Broadcast()
}

func (q *watchedQueue) Add(pool string) {
	q.mark(pool, waiting, 0)
	q.TypedRateLimitingInterface.Add(pool)
}

func (q *watchedQueue) Get() (string, bool) {
	pool, shutdown := q.TypedRateLimitingInterface.Get()
	if !shutdown {
		q.mark(pool, syncing, waiting)
	}
	return pool, shutdown
}

func (q *watchedQueue) Done(pool string) {
	q.TypedRateLimitingInterface.Done(pool)
	q.mark(pool, 0, syncing)
}

// await returns when every pool was synced, or ctx ended.
func (q *watchedQueue) await(ctx context.Context) error {
	stop := context.AfterFunc(ctx, q.idle.Broadcast)
	defer stop()
	q.mu.Lock()
	defer q.mu.Unlock()
	// What was added while it was being synced is in the queue again once that is done.
	for (len(q.busy) > 0 || q.Len() > 0) && ctx.Err() == nil {
		q.idle.Wait()
	}
	return context.Cause(ctx)
}

// publication is the agent's publishing, from its start to its end.
type publication struct {
	client     kubernetes.Interface
	controller *resourceslice.Controller
	queue      *watchedQueue

	mu     sync.Mutex
	errors []error
}

// startPublishing publishes what in makes, and returns when it is done. It goes
// on until the test ends or it is stopped.
func startPublishing(t *testing.T, client kubernetes.Interface, in publish.Input) *publication {
	t.Helper()
	p := &publication{client: client, queue: newWatchedQueue()}
	resources := publish.Resources(in)
	controller, err := resourceslice.StartController(t.Context(), resourceslice.Options{
		DriverName: publish.DriverName, KubeClient: client, Queue: p.queue, Resources: &resources,
		Owner: &resourceslice.Owner{APIVersion: "v1", Kind: "Node", Name: in.NodeName},
		ErrorHandler: func(_ context.Context, err error, message string) {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.errors = append(p.errors, fmt.Errorf("%s: %w", message, err))
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	p.controller = controller
	if err := p.settle(t); err != nil {
		t.Errorf("publishing: %v", err)
	}
	return p
}

// remove ends publishing and removes all slices.
func (p *publication) remove(t *testing.T) {
	t.Helper()
	p.controller.Stop()
	for name := range p.stored(t) {
		if err := p.client.ResourceV1().ResourceSlices().Delete(t.Context(), name, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
	}
}

// publish hands over new slices and returns when they are written. The test
// fails when the server refused or stripped something.
func (p *publication) publish(t *testing.T, in publish.Input) {
	t.Helper()
	if err := p.try(t, in); err != nil {
		t.Errorf("publishing: %v", err)
	}
}

// try returns what the library reports of one attempt.
func (p *publication) try(t *testing.T, in publish.Input) error {
	t.Helper()
	resources := publish.Resources(in)
	p.controller.Update(&resources)
	return p.settle(t)
}

func (p *publication) settle(t *testing.T) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := p.queue.await(ctx); err != nil {
		t.Fatalf("wait until slices are written: %v", err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	err := errors.Join(p.errors...)
	p.errors = nil
	return err
}

// stored are the slices in the API server by name.
func (p *publication) stored(t *testing.T) map[string]resourceapi.ResourceSlice {
	t.Helper()
	list, err := p.client.ResourceV1().ResourceSlices().List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	slices := map[string]resourceapi.ResourceSlice{}
	for _, slice := range list.Items {
		slices[slice.Name] = slice
	}
	return slices
}

// written are the names of slices that were created, changed or removed between two looks.
func written(before, after map[string]resourceapi.ResourceSlice) []string {
	var names []string
	for name, slice := range after {
		if was, there := before[name]; !there || was.ResourceVersion != slice.ResourceVersion {
			names = append(names, name)
		}
	}
	for name := range before {
		if _, there := after[name]; !there {
			names = append(names, name)
		}
	}
	return slices.Sorted(slices.Values(names))
}
