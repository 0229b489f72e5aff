package attach

// Turns: one at a time works on a pod, and who comes meanwhile waits as long as its
// context lasts and no longer. The runtime calls the hooks of all pods one by one and
// skips a plugin that takes too long, so a hook whose turn does not come ends in time,
// with an error that says who has it.
//
// The end of a sandbox goes before its attachment: who attaches it, or waits to, is
// told to stop, since nobody would use what it does.

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// errStopped ends an attachment whose sandbox the runtime stops.
var errStopped = errors.New("its sandbox is being stopped")

// turns are the pods that somebody works on.
type turns struct {
	mutex sync.Mutex
	pods  map[types.UID]*turn
}

// turn is kept only while somebody has or awaits it.
type turn struct {
	users int
	// taken is full while somebody has the turn, for work that began since.
	taken chan struct{}
	work  string
	since time.Time
	// attempts that are under way, of whoever has or awaits the turn.
	attempts map[*attempt]bool
}

// take waits for the pod's turn. Work says what for, in words that follow "the agent
// has been".
func (t *turns) take(ctx context.Context, pod types.UID, work string) (leave func(), err error) {
	turn := t.join(pod)
	select {
	case turn.taken <- struct{}{}:
		if ctx.Err() == nil {
			t.begin(turn, work)
			return func() { t.leave(pod, turn) }, nil
		}
		<-turn.taken
	case <-ctx.Done():
	}
	return nil, t.giveUp(ctx, pod, turn)
}

func (t *turns) join(pod types.UID) *turn {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	if t.pods == nil {
		t.pods = map[types.UID]*turn{}
	}
	if t.pods[pod] == nil {
		t.pods[pod] = &turn{taken: make(chan struct{}, 1), attempts: map[*attempt]bool{}}
	}
	t.pods[pod].users++
	return t.pods[pod]
}

func (t *turns) begin(turn *turn, work string) {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	turn.work, turn.since = work, time.Now()
}

func (t *turns) leave(pod types.UID, turn *turn) {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	turn.work = ""
	<-turn.taken
	t.forget(pod, turn)
}

// giveUp also says why.
func (t *turns) giveUp(ctx context.Context, pod types.UID, turn *turn) error {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	t.forget(pod, turn)
	if turn.work == "" {
		return fmt.Errorf("there is no time left to work on the pod: %w", context.Cause(ctx))
	}
	return fmt.Errorf("the agent has been %s for %s, and what else concerns the pod waits for that: %w", turn.work, time.Since(turn.since).Round(time.Millisecond), context.Cause(ctx))
}

// forget is for who holds the mutex.
func (t *turns) forget(pod types.UID, turn *turn) {
	if turn.users--; turn.users == 0 {
		delete(t.pods, pod)
	}
}

// attempt is whatever is under way to attach a sandbox, or to let a container of it start.
type attempt struct {
	sandboxID string
	cancel    context.CancelCauseFunc
	// unbind lets it outlive the call that began it.
	unbind func() bool
	// end forgets it, and leaves the turn if it has that.
	end func()
}

// attempt returns a context for one, which ends with ctx, until that is unbound, and
// when the sandbox stops.
func (t *turns) attempt(ctx context.Context, sandbox Sandbox) (context.Context, *attempt) {
	pod := sandbox.Pod.UID
	work, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	a := &attempt{sandboxID: sandbox.ID, cancel: cancel, unbind: context.AfterFunc(ctx, func() { cancel(context.Cause(ctx)) })}
	if ctx.Err() != nil {
		cancel(context.Cause(ctx)) // which the runtime does a moment later
	}
	turn := t.join(pod)
	t.mutex.Lock()
	defer t.mutex.Unlock()
	turn.attempts[a] = true
	a.end = func() {
		a.unbind()
		cancel(nil)
		t.mutex.Lock()
		defer t.mutex.Unlock()
		delete(turn.attempts, a)
		t.forget(pod, turn)
	}
	return work, a
}

// attach begins an attempt and takes the sandbox's turn.
func (t *turns) attach(ctx context.Context, sandbox Sandbox) (context.Context, *attempt, error) {
	work, a := t.attempt(ctx, sandbox)
	leave, err := t.take(work, sandbox.Pod.UID, "attaching sandbox "+sandbox.ID)
	if err != nil {
		a.end()
		return nil, nil, err
	}
	forget := a.end
	a.end = func() { leave(); forget() }
	return work, a, nil
}

// stop ends attempts to attach the sandbox.
func (t *turns) stop(pod types.UID, sandboxID string) {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	if turn := t.pods[pod]; turn != nil {
		for a := range turn.attempts {
			if a.sandboxID == sandboxID {
				a.cancel(errStopped)
			}
		}
	}
}
