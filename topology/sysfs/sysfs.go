// Package sysfs reads attributes of the kernel's device model. Each is a file
// with one value and a newline, or a symbolic link whose last element is a name.
// The root is a parameter, so that a rendered tree can stand in for /sys.
package sysfs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Root is where sysfs is mounted.
type Root string

// Path joins elements below the root.
func (r Root) Path(elements ...string) string {
	return filepath.Join(append([]string{string(r)}, elements...)...)
}

// pageSize is the most that an attribute holds (fs/sysfs/file.c).
const pageSize = 4096

// Text is an attribute without its newline. A machine of two thousand functions
// has tens of thousands of attributes, so each costs three system calls: os.ReadFile
// makes seven of them, to ask for a size that sysfs invents and to enter the file with the poller.
func (r Root) Text(elements ...string) (string, error) {
	path := r.Path(elements...)
	failed := func(operation string, err error) error {
		return &fs.PathError{Op: operation, Path: path, Err: err}
	}
	fd, err := retried(func() (int, error) { return unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0) })
	if err != nil {
		return "", failed("open", err)
	}
	defer unix.Close(fd)
	var page [pageSize]byte
	n, err := retried(func() (int, error) { return unix.Read(fd, page[:]) })
	if err != nil {
		return "", failed("read", err)
	}
	return strings.TrimSpace(string(page[:n])), nil
}

// retried repeats a system call that a signal interrupted: Go's runtime preempts by signals.
func retried(call func() (int, error)) (int, error) {
	for {
		n, err := call()
		if !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}

// OptionalText is "" where the attribute does not exist or its driver has no
// answer: EINVAL for the speed of a link that is down, EOPNOTSUPP for the port name of
// a NIC that has none, ENODEV for a device that left between listing and reading.
func (r Root) OptionalText(elements ...string) string {
	text, err := r.Text(elements...)
	if err != nil {
		return ""
	}
	return text
}

// Int is a decimal attribute, such as numa_node.
func (r Root) Int(elements ...string) (int, error) {
	text, err := r.Text(elements...)
	if err != nil {
		return 0, err
	}
	number, err := strconv.Atoi(text)
	if err != nil {
		return 0, fmt.Errorf("%s holds %q, not a number", r.Path(elements...), text)
	}
	return number, nil
}

// OptionalInt is otherwise where the attribute is absent or not a number.
func (r Root) OptionalInt(otherwise int, elements ...string) int {
	number, err := r.Int(elements...)
	if err != nil {
		return otherwise
	}
	return number
}

// LinkBase is the last element of a symbolic link's target ("driver", "physfn"),
// "" if there is no such link.
func (r Root) LinkBase(elements ...string) string {
	target, err := os.Readlink(r.Path(elements...))
	if err != nil {
		return ""
	}
	return filepath.Base(target)
}

// Names lists a folder in alphabetical order. A folder that does not exist is an empty one.
func (r Root) Names(elements ...string) ([]string, error) {
	entries, err := os.ReadDir(r.Path(elements...))
	if Absent(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	names := make([]string, len(entries))
	for i, entry := range entries {
		names[i] = entry.Name()
	}
	return names, nil
}

// Absent says that a file is not there, or no longer: reading an attribute of a
// device that was just removed answers ENODEV.
func Absent(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENODEV) || errors.Is(err, syscall.ENOTDIR)
}
