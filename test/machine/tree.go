// Writing a sysfs is thousands of small files; a writer that remembers its
// first error keeps the code that says what they contain free of error checks.

package machine

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// tree writes below root until something fails.
type tree struct {
	root string
	err  error
	// made remembers folders, so that each is made once.
	made map[string]bool
}

func newTree(root string) *tree {
	return &tree{root: root, made: map[string]bool{}}
}

// folder makes a folder and those above it.
func (t *tree) folder(path string) {
	if t.err != nil || t.made[path] {
		return
	}
	if err := os.MkdirAll(filepath.Join(t.root, path), 0o755); err != nil {
		t.err = fmt.Errorf("render machine: %w", err)
	}
	t.made[path] = true
}

// file writes one attribute; like the kernel it ends the value with a newline.
func (t *tree) file(path string, value any) {
	t.raw(path, fmt.Appendln(nil, value), 0o444)
}

func (t *tree) raw(path string, content []byte, mode os.FileMode) {
	t.folder(filepath.Dir(path))
	if t.err != nil {
		return
	}
	if err := writeNew(filepath.Join(t.root, path), content, mode); err != nil {
		t.err = fmt.Errorf("render machine: write %s: %w", path, err)
	}
}

// writeNew uses the system calls themselves: package os asks the poller about
// every file, which doubles the time that thousands of small ones take.
func writeNew(path string, content []byte, mode os.FileMode) (err error) {
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, uint32(mode))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unix.Close(fd)) }()
	for len(content) > 0 {
		n, err := unix.Write(fd, content)
		if err != nil {
			return err
		}
		content = content[n:]
	}
	return nil
}

// link makes path a relative symlink to target, both given from the tree's root.
func (t *tree) link(path, target string) {
	relative, err := filepath.Rel(filepath.Dir(path), target)
	if err != nil && t.err == nil {
		t.err = fmt.Errorf("render machine: link %s: %w", path, err)
	}
	t.linkTo(path, relative)
}

// linkTo makes path a symlink with exactly that text.
func (t *tree) linkTo(path, text string) {
	t.folder(filepath.Dir(path))
	if t.err != nil {
		return
	}
	if err := os.Symlink(text, filepath.Join(t.root, path)); err != nil {
		t.err = fmt.Errorf("render machine: %w", err)
	}
}
