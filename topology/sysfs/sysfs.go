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
)

// Root is where sysfs is mounted.
type Root string

// Path joins elements below the root.
func (r Root) Path(elements ...string) string {
	return filepath.Join(append([]string{string(r)}, elements...)...)
}

// Text is an attribute without its newline.
func (r Root) Text(elements ...string) (string, error) {
	raw, err := os.ReadFile(r.Path(elements...))
	if err != nil {
		return "", err
	}
	return strings.TrimSpace(string(raw)), nil
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
