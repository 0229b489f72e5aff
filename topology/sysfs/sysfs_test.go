package sysfs

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestTextIsAnAttributeWithoutItsNewline(t *testing.T) {
	root := Root(t.TempDir())
	full := strings.Repeat("x", pageSize-1)
	for name, c := range map[string]struct{ content, want string }{
		"a number": {"42\n", "42"}, "an empty line": {"\n", ""}, "nothing": {"", ""}, "a full page": {full + "\n", full}, "no newline": {"up", "up"},
	} {
		if err := os.WriteFile(root.Path(name), []byte(c.content), 0o644); err != nil {
			t.Fatal(err)
		}
		if text, err := root.Text(name); err != nil || text != c.want {
			t.Errorf("%s is read as %q, %v", name, text, err)
		}
	}
}

func TestWhyAnAttributeCannotBeRead(t *testing.T) {
	root := Root(t.TempDir())
	for name, target := range map[string]string{"in trouble": "/proc/self/mem", "a folder": "."} {
		if err := os.Symlink(target, root.Path(name)); err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		want   error
		absent bool
	}{
		"none": {fs.ErrNotExist, true}, "in trouble/none": {syscall.ENOTDIR, true}, "in trouble": {syscall.EIO, false}, "a folder": {syscall.EISDIR, false},
	} {
		_, err := root.Text(filepath.Split(name))
		if !errors.Is(err, c.want) || Absent(err) != c.absent || !strings.Contains(err.Error(), string(root)) {
			t.Errorf("%s: %v, absent: %t", name, err, Absent(err))
		}
		if text := root.OptionalText(name); text != "" {
			t.Errorf("%s is read as %q", name, text)
		}
	}
}
