package vm

// A writer of "newc" cpio archives, the kernel's initramfs format
// (Documentation/driver-api/early-userspace/buffer-format.rst). Entries carry no
// times, owners or inode numbers of this machine, so equal content gives equal
// bytes, and archives can be concatenated: the kernel unpacks one after the other.

import (
	"fmt"
	"io"
	"path"
	"strings"
)

const (
	modeDirectory = 0o040755
	modeProgram   = 0o100755
	modeFile      = 0o100644
)

// archive writes entries to w. The first error sticks and comes back from close.
type archive struct {
	w    io.Writer
	made map[string]bool // directories written so far
	next int
	err  error
}

func newArchive(w io.Writer) *archive {
	return &archive{w: w, made: map[string]bool{"": true, ".": true}}
}

// add writes a file, preceded by the directories above it.
func (a *archive) add(name string, mode int, content []byte) {
	name = strings.TrimPrefix(path.Clean("/"+name), "/")
	a.directory(path.Dir(name))
	a.entry(name, mode, content)
}

// directory writes a directory and those above it, each once.
func (a *archive) directory(name string) {
	name = strings.TrimPrefix(path.Clean("/"+name), "/")
	if a.made[name] {
		return
	}
	a.made[name] = true
	a.directory(path.Dir(name))
	a.entry(name, modeDirectory, nil)
}

func (a *archive) entry(name string, mode int, content []byte) {
	if a.err != nil {
		return
	}
	a.next++
	// Magic, then 13 fields of 8 hex digits: ino mode uid gid nlink mtime
	// filesize devmajor devminor rdevmajor rdevminor namesize check.
	header := fmt.Sprintf("070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x",
		a.next, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name)+1, 0)
	head := header + name + "\x00"
	for _, part := range [][]byte{[]byte(head), padding(len(head)), content, padding(len(content))} {
		if _, a.err = a.w.Write(part); a.err != nil {
			return
		}
	}
}

func (a *archive) close() error {
	a.entry("TRAILER!!!", 0, nil)
	return a.err
}

// padding fills up to the next multiple of four bytes.
func padding(n int) []byte { return make([]byte, (4-n%4)%4) }
