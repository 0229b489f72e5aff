package claim

// Each directory into which a prepare writes, on a file system of its own that is full.

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestDirectoriesOnAFullFileSystem(t *testing.T) {
	if !inOwnMounts(t) {
		return
	}
	for _, directory := range []string{"cdi", "metadata", "devinfo"} {
		w := newWorld(t, t.TempDir())
		full := filepath.Join(w.directory, directory)
		if err := os.MkdirAll(filepath.Join(full, "dp"), 0o755); err != nil { // where device-info files are
			t.Fatal(err)
		}
		mount(t, "tmpfs", full, "tmpfs", 0, "size=64k")
		if err := os.MkdirAll(filepath.Join(full, "dp"), 0o755); err != nil {
			t.Fatal(err)
		}
		start := w.still()
		filler := filepath.Join(full, "somebody's")
		if err := os.WriteFile(filler, make([]byte, 1<<17), 0o600); !errors.Is(err, syscall.ENOSPC) {
			t.Fatalf("the file system is not full: %v", err)
		}
		a := w.start(0)
		c := with(allocated("c", onNIC("nic-0000-19-00-0")), class, `NICConfig {"attach": "Multus"}`)
		if _, err := a.prepare(c); !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), full) {
			t.Errorf("%s: prepare: %v", directory, err)
		}
		if err := a.has(0); err != nil {
			t.Errorf("%s: the failed prepare is not undone: %v", directory, err)
		}
		if err := os.Remove(filler); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(start, w.still()); diff != "" {
			t.Errorf("%s: after the failed prepare (-want +got):\n%s", directory, diff)
		}
		if _, err := a.prepare(c); err != nil {
			t.Errorf("%s: prepare once there is space: %v", directory, err)
		}
		if err := a.unprepare(c); err != nil {
			t.Errorf("%s: unprepare: %v", directory, err)
		}
		if diff := cmp.Diff(start, w.still()); diff != "" {
			t.Errorf("%s: in the end (-want +got):\n%s", directory, diff)
		}
	}
}
