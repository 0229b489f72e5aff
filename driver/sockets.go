// The plugin's sockets. With two agents on a node each has its own, named after its
// pod; clients other than the kubelet find the active one's under the name that they
// know, dra.sock. What a killed agent left is removed, since a kubelet that finds a
// registration socket tries for ever to reach who made it.

package driver

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"

	"github.com/hostler-dev/hostler/api/v1alpha1"
)

// knownSocket is the name without a pod's UID.
const knownSocket = "dra.sock"

func pluginDirectory(paths v1alpha1.PathsConfig) string {
	return filepath.Join(paths.KubeletPlugins, Name)
}

// socketName is shorter than the library's own, which has the whole UID: a socket's
// path has 107 characters at most, and the kubelet's directory can be a long one.
func socketName(pod types.UID) string {
	if pod == "" {
		return knownSocket
	}
	sum := sha256.Sum256([]byte(pod))
	return fmt.Sprintf("dra-%x.sock", sum[:4])
}

// linkSocket points the known name at the agent's socket, at once and whatever was
// there before.
func linkSocket(paths v1alpha1.PathsConfig, pod types.UID) error {
	if pod == "" {
		return nil
	}
	known := filepath.Join(pluginDirectory(paths), knownSocket)
	aside := known + ".new"
	if err := os.Remove(aside); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove what an interrupted agent left: %w", err)
	}
	if err := errors.Join(os.Symlink(socketName(pod), aside), os.Rename(aside, known)); err != nil {
		return fmt.Errorf("point %s at the agent's socket: %w; check paths.kubeletPlugins", known, err)
	}
	return nil
}

// unlinkSocket removes the known name if it is the agent's own.
func unlinkSocket(paths v1alpha1.PathsConfig, pod types.UID) error {
	known := filepath.Join(pluginDirectory(paths), knownSocket)
	if target, err := os.Readlink(known); err != nil || target != socketName(pod) {
		return nil //nolint:nilerr // no link, or one of another agent
	}
	if err := os.Remove(known); err != nil {
		return fmt.Errorf("remove %s: %w", known, err)
	}
	return nil
}

// withSocketsLocked keeps apart who opens sockets and who looks for dead ones: a
// socket refuses connections also between bind(2) and listen(2).
func withSocketsLocked(ctx context.Context, paths v1alpha1.PathsConfig, do func() error) error {
	for {
		lock, err := lockState(paths, "sockets", unix.LOCK_EX)
		if err == nil {
			return errors.Join(do(), lock.Close())
		}
		if !errors.Is(err, ErrStateInUse) {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for another agent to open its sockets: %w", context.Cause(ctx))
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// sweepSockets removes the driver's sockets on which nobody listens.
func sweepSockets(ctx context.Context, paths v1alpha1.PathsConfig) error {
	var found []string
	for _, pattern := range []string{
		filepath.Join(pluginDirectory(paths), "dra*.sock"),
		// As kubeletplugin.RollingUpdateRegistrarSocketFile names them, except for
		// those in directories with long names, which do not have the driver's in theirs.
		filepath.Join(paths.KubeletRegistry, Name+"*-reg.sock"),
	} {
		matches, err := filepath.Glob(pattern)
		if err != nil {
			return fmt.Errorf("look for dead sockets: %w", err)
		}
		found = append(found, matches...)
	}
	for _, path := range found {
		info, err := os.Lstat(path)
		if err != nil || info.Mode().Type() != os.ModeSocket {
			continue // gone meanwhile, or the link
		}
		if !dead(path) {
			continue
		}
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("remove the socket of an agent that is gone: %w", err)
		}
		klog.FromContext(ctx).Info("Removed the socket of an agent that is gone", "socket", path)
	}
	return nil
}

// dead reports whether nobody listens: connect(2) says ECONNREFUSED then, and
// something else to whoever comes while a listener is busy.
func dead(path string) bool {
	conn, err := net.Dial("unix", path)
	if err == nil {
		conn.Close()
	}
	return errors.Is(err, unix.ECONNREFUSED)
}
