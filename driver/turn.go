// One agent at a time works on a node's claims: the one that holds the lock
// `active` in the state directory. In a rolling update its successor is there
// beside it, and asks for its turn by holding the lock `next`. Locks say this better
// than messages would: the kernel lets go of them however a process ends, so nobody
// ever waits for the dead.

package driver

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/klog/v2"

	"github.com/hostler-dev/hostler/api/v1alpha1"
)

const (
	activeLock = "active"
	nextLock   = "next"
)

// Look every so often. What it costs is a few microseconds: an open, a flock, a close.
const (
	// successorInterval is how often a successor looks whether its turn has come,
	// with the kubelet's calls waiting.
	successorInterval = 20 * time.Millisecond
	// activeInterval is how often the active agent looks for a successor, day and
	// night: each look wakes the process, for a moment that comes once in its life.
	activeInterval = time.Second
	// retiredInterval is how often an agent that had its turn looks whether its
	// successor died.
	retiredInterval = 500 * time.Millisecond
)

// TakeTurn makes the caller the active agent, if there is none. Else it fails with
// ErrStateInUse. The turn ends when the lock is closed.
func TakeTurn(paths v1alpha1.PathsConfig) (*StateLock, error) {
	return lockState(paths, activeLock, unix.LOCK_EX)
}

// AwaitTurn waits until the caller is the active agent. Once ready says so, it asks
// the active one for its turn. An agent that must not ask passes no ready; it takes
// the turn only if nobody who asked waits for it.
func AwaitTurn(ctx context.Context, paths v1alpha1.PathsConfig, ready func() error) (*StateLock, error) {
	interval := retiredInterval
	if ready != nil {
		interval = successorInterval
	}
	var asked *StateLock
	defer func() {
		if asked != nil { // not before the turn has come
			asked.release(ctx)
		}
	}()
	for {
		if ready != nil && asked == nil && ready() == nil {
			lock, err := lockState(paths, nextLock, unix.LOCK_EX)
			if err != nil && !errors.Is(err, ErrStateInUse) {
				return nil, err
			}
			if asked = lock; asked != nil {
				klog.FromContext(ctx).Info("Asked the node's active agent for its turn")
			}
		}
		waits := false
		if asked == nil {
			var err error
			if waits, err = SuccessorWaits(paths); err != nil {
				return nil, err
			}
		}
		if !waits {
			turn, err := TakeTurn(paths)
			if !errors.Is(err, ErrStateInUse) {
				return turn, err
			}
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("waiting for the node's active agent to end or to hand over: %w", context.Cause(ctx))
		case <-time.After(interval):
		}
	}
}

// SuccessorWaits reports whether an agent has asked for its turn.
func SuccessorWaits(paths v1alpha1.PathsConfig) (bool, error) {
	lock, err := lockState(paths, nextLock, unix.LOCK_SH)
	if errors.Is(err, ErrStateInUse) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	return false, lock.Close()
}

// AwaitSuccessor returns once an agent asks the caller for its turn.
func AwaitSuccessor(ctx context.Context, paths v1alpha1.PathsConfig) error {
	for {
		if waits, err := SuccessorWaits(paths); err != nil || waits {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(activeInterval):
		}
	}
}

func (l *StateLock) release(ctx context.Context) {
	if err := l.Close(); err != nil {
		klog.FromContext(ctx).Error(err, "A lock of the state directory could not be let go of")
	}
}
