package attach

// Attachments that take longer than a hook may, because CNI plugins are run for them.
// The hook ends in time, and the work goes on: containers of the pod wait at the gate for
// the pod's turn to end. Those that use no claim do not, so the hook does not end well
// before the pod's egress rules are in force. A hook that ends badly ends the work too:
// the runtime takes the sandbox apart then, and the pod's next one may be there soon.

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"k8s.io/klog/v2"

	"github.com/hostler-dev/hostler/netattach"
)

// attachBehind is attach for intents with chains. It closes the namespace.
func (a *Attacher) attachBehind(ctx context.Context, sandbox Sandbox, namespace namespace, intents []netattach.Intent) error {
	work, attempt, err := a.turns.attach(ctx, sandbox)
	if err != nil {
		return errors.Join(cannotAttach(sandbox, err), namespace.Close())
	}
	attempt.unbind()
	done, locked := make(chan error, 1), make(chan struct{})
	a.behind.Go(func() {
		defer attempt.end()
		err := a.attachInTurn(work, sandbox, namespace, intents, sync.OnceFunc(func() { close(locked) }))
		done <- errors.Join(err, namespace.Close())
		if err != nil && ctx.Err() != nil {
			klog.FromContext(ctx).Error(err, "Attaching a pod failed after its sandbox had started; the gate tries again", "pod", klog.KRef(sandbox.Pod.Namespace, sandbox.Pod.Name))
		}
	})
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		select {
		case <-locked:
		default:
			attempt.cancel(context.Cause(ctx))
			return cannotAttach(sandbox, fmt.Errorf("the rules of its egress scope are not in force in time: %w", context.Cause(ctx)))
		}
		klog.FromContext(ctx).Info("Attaching a pod takes longer than its sandbox may; its containers wait at the gate", "pod", klog.KRef(sandbox.Pod.Namespace, sandbox.Pod.Name))
		return nil
	}
}

// Wait returns when the attachments have ended that outlived their hooks, of which
// each has an end. No hook may be under way any more.
func (a *Attacher) Wait() { a.behind.Wait() }
