package inside

import (
	"errors"
	"os"
	"runtime"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/hostler-dev/hostler/netattach/internal/nettest"
)

func inode(t *testing.T, path string) uint64 {
	var stat unix.Stat_t
	if err := unix.Stat(path, &stat); err != nil {
		t.Error(err)
	}
	return stat.Ino
}

// Whatever is done at once in however many namespaces, each finds itself in its own and
// nobody else does, and the process's first thread stays where it is.
func TestNobodyElseIsInside(t *testing.T) {
	host := inode(t, "/proc/thread-self/ns/net")
	var pods [2]*nettest.Namespace
	for i := range pods {
		pods[i] = nettest.New(t)
	}
	var all sync.WaitGroup
	for i := range 400 {
		all.Go(func() {
			pod := pods[i%len(pods)]
			wrong := errors.New("what is done fails")
			err := Do(pod.FD, func() error {
				if inode(t, "/proc/thread-self/ns/net") != inode(t, pod.Path) {
					t.Error("not in the namespace")
				}
				if inode(t, "/proc/self/ns/net") != host {
					t.Error("the process is taken to be in the namespace")
				}
				runtime.Gosched()
				return wrong
			})
			if !errors.Is(err, wrong) {
				t.Error(err)
			}
			if inode(t, "/proc/thread-self/ns/net") != host {
				t.Error("the caller is in the namespace")
			}
		})
	}
	all.Wait()
}

func TestWhatIsNoNamespaceIsNotEntered(t *testing.T) {
	file, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := Do(int(file.Fd()), func() error { t.Error("it was done"); return nil }); !errors.Is(err, unix.EINVAL) {
		t.Error(err)
	}
}
