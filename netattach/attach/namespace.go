package attach

// Network namespaces as files: opened by the runtime's path or passed by the
// gate's hook, told apart by their inode.

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// namespace is a network namespace held open.
type namespace struct {
	descriptor int
	inode      uint64
	file       *os.File
}

var errNoNamespace = errors.New("not a network namespace")

// errEnded: the runtime took a sandbox's network namespace apart.
var errEnded = errors.New("its sandbox has ended meanwhile")

// nsfs is the file system of namespaces (NSFS_MAGIC in linux/magic.h).
const nsfs = 0x6e736673

func openNamespace(path string) (namespace, error) {
	file, err := os.Open(path)
	if err != nil {
		return namespace{}, fmt.Errorf("cannot open the network namespace: %w", err)
	}
	n, err := namespaceOf(int(file.Fd()))
	if err != nil {
		return namespace{}, fmt.Errorf("%s: %w", path, errors.Join(err, file.Close()))
	}
	n.file = file
	return n, nil
}

// namespaceOf does not take the descriptor over.
func namespaceOf(descriptor int) (namespace, error) {
	var system unix.Statfs_t
	if err := unix.Fstatfs(descriptor, &system); err != nil {
		return namespace{}, fmt.Errorf("cannot look at the network namespace: %w", err)
	}
	var stat unix.Stat_t
	if err := unix.Fstat(descriptor, &stat); err != nil {
		return namespace{}, fmt.Errorf("cannot look at the network namespace: %w", err)
	}
	// A path whose bind mount is gone is a plain file.
	if system.Type != nsfs {
		return namespace{}, errNoNamespace
	}
	return namespace{descriptor: descriptor, inode: stat.Ino}, nil
}

// stands returns errEnded if the path by which the namespace was opened leads to it no
// more. One that was passed as a descriptor has a process in it.
func (n namespace) stands(path string) error {
	if n.file == nil {
		return nil
	}
	again, err := openNamespace(path)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, errNoNamespace) {
		return errEnded
	}
	if err != nil {
		return err
	}
	defer again.Close()
	if again.inode != n.inode {
		return errEnded
	}
	return nil
}

func (n namespace) Close() error {
	if n.file == nil {
		return nil
	}
	return n.file.Close()
}

// path is one that a child process can open: the runtime's if the agent sees the
// namespace there, else the descriptor that this process holds. The former is as good
// for the next agent.
func (n namespace) path(runtime string) string {
	if n.file != nil {
		return runtime
	}
	if seen, err := openNamespace(runtime); err == nil {
		defer seen.Close()
		if seen.inode == n.inode {
			return runtime
		}
	}
	return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), n.descriptor)
}
