package link

// What cannot be done through a netlink socket has to be done by a thread that is
// in the namespace itself: /proc/sys/net shows each thread its own namespace's
// settings, and a socket is in the namespace of the thread that opened it.

import (
	"errors"
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// inside runs do on a thread in the space's namespace. That thread is a goroutine's
// own meanwhile, and none that could not get back is ever given to another goroutine.
func (s *space) inside(do func() error) error {
	done := make(chan error, 1)
	go func() { done <- onThread(s.namespace, do) }()
	return <-done
}

// onThread leaves its goroutine locked to the thread if that is in the wrong
// namespace; the runtime ends such a thread with its goroutine (runtime.LockOSThread).
func onThread(namespace int, do func() error) error {
	runtime.LockOSThread()
	before, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("cannot open the thread's network namespace: %w", err)
	}
	defer unix.Close(before)
	if err := unix.Setns(namespace, unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("cannot enter a network namespace: %w; the agent needs CAP_SYS_ADMIN", err)
	}
	err = do()
	if back := unix.Setns(before, unix.CLONE_NEWNET); back != nil {
		return errors.Join(err, fmt.Errorf("cannot leave a network namespace: %w", back))
	}
	runtime.UnlockOSThread()
	return err
}
