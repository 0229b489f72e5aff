// The state directory is locked, so that a release by hand and an agent never
// work on the same journal. Agents share the lock among themselves: in a rolling
// update with surge, the old one and the new one are there together. The kernel
// lets go of it when a process ends, however it ends.

package driver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/klog/v2"

	"github.com/hostler-dev/hostler/api/v1alpha1"
)

// ErrStateInUse says that an agent, or another release, works on the node's claims.
var ErrStateInUse = errors.New("it is in use")

// StateLock is a hold on the state directory until it is closed.
type StateLock struct{ file *os.File }

// Close lets go.
func (l *StateLock) Close() error { return l.file.Close() }

// ShareState is the agent's hold on the state directory, which it makes if need
// be. It waits while a release has the directory to itself.
func ShareState(ctx context.Context, paths v1alpha1.PathsConfig) (*StateLock, error) {
	if err := os.MkdirAll(paths.State, 0o750); err != nil {
		return nil, fmt.Errorf("create the state directory: %w; check paths.state in the agent's configuration", err)
	}
	const interval = 200 * time.Millisecond
	for told := false; ; told = true {
		lock, err := lockState(paths, "lock", unix.LOCK_SH)
		if !errors.Is(err, ErrStateInUse) {
			return lock, err
		}
		if !told {
			klog.FromContext(ctx).Info("Waiting for `hostler release`, which has this node's claims to itself", "directory", paths.State)
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("%w; `hostler release` did not end: %w", err, context.Cause(ctx))
		case <-time.After(interval):
		}
	}
}

// SeizeState takes the state directory for the caller alone. It fails with
// ErrStateInUse while anyone else has a hold on it, and if there is no such directory.
func SeizeState(paths v1alpha1.PathsConfig) (*StateLock, error) {
	return lockState(paths, "lock", unix.LOCK_EX)
}

func lockState(paths v1alpha1.PathsConfig, name string, how int) (*StateLock, error) {
	path := filepath.Join(paths.State, name)
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open a lock of the state directory: %w; check paths.state", err)
	}
	err = unix.Flock(int(file.Fd()), how|unix.LOCK_NB)
	if err == nil {
		return &StateLock{file: file}, nil
	}
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = ErrStateInUse
	}
	return nil, errors.Join(fmt.Errorf("lock the state directory (%s): %w", path, err), file.Close())
}
