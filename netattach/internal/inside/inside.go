// Package inside runs what has to be done by a thread that is in a network namespace
// itself, because a netlink socket that was opened there is not enough: /proc/sys/net
// shows each thread the settings of its own namespace, a socket is in the namespace of
// the thread that opens it, and the kernel moves RDMA devices for callers in theirs.
//
// No goroutine ever finds itself on such a thread afterwards. The process's first
// thread is never used: its namespace is what /proc shows as the process's, by which
// the agent knows the host's, and it cannot end.
package inside

import (
	"errors"
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// Do runs f on a thread in the namespace that the descriptor refers to, and waits for it.
func Do(namespace int, f func() error) error {
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			result <- Do(namespace, f) // on another thread, because this one is taken
			runtime.UnlockOSThread()
			return
		}
		back, err := onThread(namespace, f)
		if back {
			runtime.UnlockOSThread()
		}
		result <- err
	}()
	return <-result
}

// onThread reports whether the thread is back where it was. One that is not ends with
// its goroutine, which stays locked to it (runtime.LockOSThread).
func onThread(namespace int, f func() error) (back bool, err error) {
	before, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return true, fmt.Errorf("cannot open the thread's network namespace: %w", err)
	}
	defer unix.Close(before)
	if err := unix.Setns(namespace, unix.CLONE_NEWNET); err != nil {
		return true, fmt.Errorf("cannot enter a network namespace: %w; the agent needs CAP_SYS_ADMIN, and the namespace must still exist", err)
	}
	err = f()
	if left := unix.Setns(before, unix.CLONE_NEWNET); left != nil {
		return false, errors.Join(err, fmt.Errorf("cannot leave a network namespace: %w", left))
	}
	return true, err
}
