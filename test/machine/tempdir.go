// A machine is several thousand small files. On ext4 making them anew right
// after an earlier test deleted its own takes seconds (the kernel avoids
// recently freed inodes, recently_deleted in fs/ext4/ialloc.c); in memory it
// takes a twentieth of one.

package machine

import (
	"os"

	"golang.org/x/sys/unix"
)

// TB is what TempDir needs of testing.TB.
type TB interface {
	Helper()
	Cleanup(func())
	Errorf(format string, args ...any)
	TempDir() string
}

// TempDir is a folder for Render that goes away with the test: in memory where
// /dev/shm is a tmpfs that allows programs and device nodes, else tb.TempDir().
func TempDir(tb TB) string {
	tb.Helper()
	const memory = "/dev/shm"
	var fs unix.Statfs_t
	if unix.Statfs(memory, &fs) != nil || fs.Type != unix.TMPFS_MAGIC || fs.Flags&(unix.ST_NOEXEC|unix.ST_NODEV) != 0 {
		return tb.TempDir()
	}
	dir, err := os.MkdirTemp(memory, "hostler-machine-")
	if err != nil {
		return tb.TempDir()
	}
	tb.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			tb.Errorf("remove the machine's folder: %v", err)
		}
	})
	return dir
}
