package claim

// Real disks that are full or read-only, in a mount namespace of the test's own.

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// inOwnMounts runs the test once more in a process that sees mounts of its own, and
// reports whether this is that process.
func inOwnMounts(t *testing.T) bool {
	t.Helper()
	const own = "HOSTLER_TEST_OWN_MOUNTS"
	if os.Getenv(own) == t.Name() {
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			t.Fatal(err)
		}
		return true
	}
	again := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	again.Env = append(os.Environ(), own+"="+t.Name())
	again.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	if os.Geteuid() != 0 {
		again.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		again.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Geteuid(), Size: 1}}
		again.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getegid(), Size: 1}}
	}
	out, err := again.CombinedOutput()
	if errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.ENOSPC) {
		t.Skipf("this machine allows no mount namespaces: %v", err)
	}
	if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Errorf("%v\n%s", err, out)
	}
	return false
}

// mount is undone when the test ends.
func mount(t *testing.T, source, target, kind string, flags uintptr, options string) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(target, 0o755), unix.Mount(source, target, kind, flags, options)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(target, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
}

func TestStateOnAFullFileSystem(t *testing.T) {
	if !inOwnMounts(t) {
		return
	}
	directory := t.TempDir()
	state := filepath.Join(directory, "state")
	mount(t, "tmpfs", state, "tmpfs", 0, "size=32k")
	r := newRoom(t, directory, boot)
	old, fresh := allocated("old", onNIC("nic-0000-19-00-0")), allocated("fresh", onGPU("gpu-0000-17-00-0"))
	if _, err := r.prepare(old); err != nil {
		t.Fatal(err)
	}
	filler := filepath.Join(state, "somebody's")
	if err := os.WriteFile(filler, make([]byte, 1<<16), 0o600); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("the file system is not full: %v", err)
	}
	_, err := r.prepare(fresh)
	if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "free space on the file system of "+state) {
		t.Errorf("prepare: %v", err)
	}
	if err := r.Unprepare(t.Context(), old.UID); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("unprepare: %v", err)
	}
	if r.attacher.released[old.UID] == 0 {
		t.Error("unprepare left the netdev in the pod because the disk is full")
	}
	if entries := r.journal.Entries(); len(entries) != 1 || entries[0].ClaimUID != old.UID {
		t.Errorf("entries %v; want that of the claim that is still on disk", entries)
	}
	sameEntries(t, "on the full disk", r.journal.Entries(), onDisk(t, r))
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	if err := r.Unprepare(t.Context(), old.UID); err != nil {
		t.Errorf("unprepare once there is space: %v", err)
	}
	if _, err := r.prepare(fresh); err != nil {
		t.Errorf("prepare once there is space: %v", err)
	}
}

func TestReadOnlyCDIDirectory(t *testing.T) {
	if !inOwnMounts(t) {
		return
	}
	directory := t.TempDir()
	r := newRoom(t, directory, boot)
	mount(t, "tmpfs", r.cdi.Path, "tmpfs", 0, "size=1m")
	old, fresh := allocated("old", onNIC("nic-0000-19-00-0")), allocated("fresh", onGPU("gpu-0000-17-00-0"))
	if _, err := r.prepare(old); err != nil {
		t.Fatal(err)
	}
	remount := func(flags uintptr) {
		if err := unix.Mount("", r.cdi.Path, "", unix.MS_REMOUNT|flags, "size=1m"); err != nil {
			t.Fatal(err)
		}
	}
	remount(unix.MS_RDONLY)
	_, err := r.prepare(fresh)
	if !errors.Is(err, syscall.EROFS) || !strings.Contains(err.Error(), r.cdi.Path+" must be writable") {
		t.Errorf("prepare: %v", err)
	}
	if r.journal.Entry(fresh.UID) != nil {
		t.Error("the failed prepare is not undone")
	}
	if err := r.Unprepare(t.Context(), old.UID); !errors.Is(err, syscall.EROFS) || !strings.Contains(err.Error(), r.cdi.Path+" must be writable") {
		t.Errorf("unprepare: %v", err)
	}
	if entry := r.journal.Entry(old.UID); entry == nil || !strings.Contains(entry.Ending, "read-only") {
		t.Errorf("the entry of the claim whose spec cannot be removed: %+v", entry)
	}
	remount(0)
	if err := r.Unprepare(t.Context(), old.UID); err != nil {
		t.Errorf("unprepare once it can be written: %v", err)
	}
	if _, err := r.prepare(fresh); err != nil {
		t.Errorf("prepare once it can be written: %v", err)
	}
	if specs, err := r.cdi.List(); err != nil || len(specs) != 1 {
		t.Errorf("specs %v, %v", specs, err)
	}
}
