package attach

// Who waits for a pod's turn, and for how long: hooks have two seconds and hold up each
// other, and a pod may be gone when its turn comes.

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/hostler-dev/hostler/netattach"
)

var errHookOver = errors.New("the hook's time is over")

// hold has somebody else work on the pod until the test lets go.
func (n *node) hold(t *testing.T) (letGo func()) {
	t.Helper()
	leave, err := n.attacher.turns.take(context.Background(), n.sandbox.Pod.UID, "running a plugin that hangs")
	if err != nil {
		t.Fatal(err)
	}
	return leave
}

// waits returns once the pod's turn has so many users: who has it, attempts, and who awaits it.
func (n *node) waits(users int) {
	for {
		n.attacher.turns.mutex.Lock()
		turn := n.attacher.turns.pods[n.sandbox.Pod.UID]
		enough := turn != nil && turn.users >= users
		n.attacher.turns.mutex.Unlock()
		if enough {
			return
		}
		runtime.Gosched()
	}
}

// However it comes to a pod, a call whose time is over before its turn comes says who
// has the turn, and has done nothing and does nothing later.
func TestTurnThatDoesNotComeInTime(t *testing.T) {
	chained := func(t *testing.T, n *node) {
		n.plugin(t, "first", "")
		n.claim("claim-1", nil, n.withNetworks(t, "rail0", "net1", "10.1.0.5/24", network("a", "", "first")))
	}
	plain := func(t *testing.T, n *node) {
		n.claim("claim-1", nil, n.device(t, "rail0", "net1", "10.1.0.5/24"))
	}
	for name, test := range map[string]struct {
		claim func(t *testing.T, n *node)
		call  func(ctx context.Context, n *node) error
	}{
		"a sandbox starts": {plain, func(ctx context.Context, n *node) error { return n.attacher.Attach(ctx, n.sandbox) }},
		"a sandbox with CNI chains starts": {chained, func(ctx context.Context, n *node) error {
			return n.attacher.Attach(ctx, n.sandbox)
		}},
		"a sandbox on the host's network starts": {func(_ *testing.T, n *node) { n.claim("claim-1", nil) }, func(ctx context.Context, n *node) error {
			n.sandbox.NetNS = ""
			return n.attacher.Attach(ctx, n.sandbox)
		}},
		"a container starts": {plain, func(ctx context.Context, n *node) error {
			return n.attacher.Admit(ctx, Container{Sandbox: n.sandbox, Claim: "claim-1"}, n.pod.FD)
		}},
		"a container starts whose claim wants nothing of the network": {func(_ *testing.T, n *node) { n.claim("gpu-only", nil) }, func(ctx context.Context, n *node) error {
			return n.attacher.Admit(ctx, Container{Sandbox: n.sandbox, Claim: "gpu-only"}, n.pod.FD)
		}},
		"a sandbox that NRI missed is found": {plain, func(ctx context.Context, n *node) error { return n.attacher.AttachMissed(ctx, n.sandbox) }},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			test.claim(t, n)
			letGo := n.hold(t)
			ctx, cancel := context.WithTimeoutCause(context.Background(), 20*time.Millisecond, errHookOver)
			defer cancel()
			err := test.call(ctx, n)
			if !errors.Is(err, errHookOver) || !strings.Contains(err.Error(), "running a plugin that hangs") {
				t.Errorf("%v; want an error that says who has the pod's turn", err)
			}
			letGo()
			n.attacher.Wait()
			if !n.host.Has(t, "rail0") || n.recordCount(t) != 0 {
				t.Errorf("rail0 is on the host: %t, records: %d", n.host.Has(t, "rail0"), n.recordCount(t))
			}
		})
	}
}

// What the end of a sandbox found no time for, the next look at the records does.
func TestEndWithoutATurnIsMadeUpFor(t *testing.T) {
	n := newNode(t)
	n.claim("claim-1", nil, n.device(t, "rail0", "net1", "10.1.0.5/24"))
	n.attach(t)
	for what, call := range map[string]func(context.Context) error{
		"the sandbox stops":      func(ctx context.Context) error { return n.attacher.DetachSandbox(ctx, "pod-1", "sandbox-1") },
		"the claim is released":  func(ctx context.Context) error { return n.attacher.Release(ctx, "claim-1") },
		"the records are looked": n.attacher.Reconcile,
	} {
		letGo := n.hold(t)
		ctx, cancel := context.WithTimeoutCause(context.Background(), 20*time.Millisecond, errHookOver)
		err := call(ctx)
		cancel()
		letGo()
		if !errors.Is(err, errHookOver) || !strings.Contains(err.Error(), "running a plugin that hangs") || n.recordCount(t) != 1 {
			t.Errorf("%s: %v, %d records; want an error that says who has the pod's turn", what, err, n.recordCount(t))
		}
	}
	if err := errors.Join(os.Remove(n.sandbox.NetNS), n.giveBack(t)); err != nil {
		t.Fatal(err)
	}
	if err := n.attacher.Reconcile(context.Background()); err != nil || !n.host.Has(t, "rail0") || n.recordCount(t) != 0 {
		t.Errorf("%v; rail0 is home: %t, records: %d", err, n.host.Has(t, "rail0"), n.recordCount(t))
	}
}

// Its network namespace stays as long as the agent has it open, so it could still be
// filled, and by then the pod may have another.
func TestSandboxThatEndsWhileItWaitsIsNotAttached(t *testing.T) {
	for name, missed := range map[string]bool{"at its start": false, "found later": true} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			n.claim("claim-1", nil, n.device(t, "rail0", "net1", "10.1.0.5/24"))
			letGo := n.hold(t)
			answer := make(chan error, 1)
			go func() {
				if missed {
					answer <- n.attacher.AttachMissed(context.Background(), n.sandbox)
				} else {
					answer <- n.attacher.Attach(context.Background(), n.sandbox)
				}
			}()
			n.waits(3)
			if err := os.Remove(n.sandbox.NetNS); err != nil {
				t.Fatal(err)
			}
			letGo()
			if err := <-answer; errors.Is(err, errEnded) == missed {
				t.Error(err)
			}
			if !n.host.Has(t, "rail0") || n.recordCount(t) != 0 {
				t.Errorf("rail0 is on the host: %t, records: %d", n.host.Has(t, "rail0"), n.recordCount(t))
			}
		})
	}
}

// A pod is deleted while a plugin is at work for it. Its end waits for neither the
// plugin nor for what was to come after it.
func TestStopEndsTheAttachmentThatIsUnderWay(t *testing.T) {
	n := newNode(t)
	begun := filepath.Join(n.run, "begun")
	n.plugin(t, "slow", ": > "+begun+"; while :; do sleep 0.01; done")
	n.claim("claim-1", nil, n.withNetworks(t, "rail0", "net1", "10.1.0.5/24", network("a", "", "slow")))
	hook, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if err := n.attacher.Attach(hook, n.sandbox); err != nil {
		t.Fatalf("the hook fails the sandbox: %v", err)
	}
	for _, err := os.Stat(begun); err != nil; _, err = os.Stat(begun) {
		runtime.Gosched()
	}
	short, cancel := context.WithTimeoutCause(context.Background(), 20*time.Millisecond, errHookOver)
	defer cancel()
	if err := n.attacher.DetachSandbox(short, "pod-1", "another"); !errors.Is(err, errHookOver) || !n.pod.Has(t, "net1") {
		t.Fatalf("%v; word of another sandbox's end is no matter of this one", err)
	}
	n.called(t)
	if err := n.attacher.DetachSandbox(context.Background(), "pod-1", "sandbox-1"); err != nil {
		t.Error(err)
	}
	if !n.host.Has(t, "rail0") || n.recordCount(t) != 0 {
		t.Errorf("rail0 is home: %t, records: %d", n.host.Has(t, "rail0"), n.recordCount(t))
	}
	if calls := n.called(t); len(calls) == 0 || slices.Contains(calls, "slow ADD net1") {
		t.Errorf("calls after the sandbox's end: %v; want the chain taken back", calls)
	}
}

// A container is about to start and waits, and the sandbox stops. It is not attached anew
// behind the sandbox's end.
func TestStopEndsTheStartOfAContainerThatWaits(t *testing.T) {
	n := newNode(t)
	n.claim("claim-1", nil, n.device(t, "rail0", "net1", "10.1.0.5/24"))
	letGo, start, stop := n.hold(t), make(chan error, 1), make(chan error, 1)
	go func() {
		start <- n.attacher.Admit(context.Background(), Container{Sandbox: n.sandbox, Claim: "claim-1"}, n.pod.FD)
	}()
	n.waits(3)
	go func() { stop <- n.attacher.DetachSandbox(context.Background(), "pod-1", "sandbox-1") }()
	if err := <-start; !errors.Is(err, errStopped) {
		t.Errorf("%v; want a refusal, since the sandbox stops", err)
	}
	letGo()
	if err := <-stop; err != nil {
		t.Error(err)
	}
	if !n.host.Has(t, "rail0") || n.recordCount(t) != 0 {
		t.Errorf("rail0 is on the host: %t, records: %d", n.host.Has(t, "rail0"), n.recordCount(t))
	}
}

// Whoever has a turn has it alone, and nothing is left of those who did not get it.
func TestTurnsAreTaken(t *testing.T) {
	var turns turns
	var holders [2]atomic.Int32
	var all sync.WaitGroup
	for i := range 200 {
		all.Go(func() {
			ctx, cancel := context.WithCancelCause(context.Background())
			defer cancel(nil)
			if i%3 == 0 {
				go cancel(errHookOver)
			}
			pod := i % len(holders)
			uid, leave := types.UID(fmt.Sprint(pod)), func() {}
			var err error
			if i%2 == 0 {
				leave, err = turns.take(ctx, uid, "working")
			} else {
				var a *attempt
				if _, a, err = turns.attach(ctx, Sandbox{ID: fmt.Sprint(i % 5), Pod: netattach.PodReference{UID: uid}}); err == nil {
					leave = a.end
				}
				turns.stop(uid, fmt.Sprint(i%7))
			}
			if err != nil {
				if !errors.Is(err, errHookOver) && !errors.Is(err, errStopped) {
					t.Error(err)
				}
				return
			}
			if others := holders[pod].Add(1) - 1; others != 0 {
				t.Errorf("%d others have the turn", others)
			}
			runtime.Gosched()
			holders[pod].Add(-1)
			leave()
		})
	}
	all.Wait()
	if len(turns.pods) != 0 {
		t.Errorf("turns are kept that nobody has or awaits: %v", turns.pods)
	}
}
