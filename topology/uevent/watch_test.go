package uevent

// Against the kernel: each test has network namespaces of its own, and has the
// kernel announce a "change" of a PCI function, which changes nothing.

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// ownNamespace moves the test's thread into a new network namespace until the test ends.
func ownNamespace(t *testing.T) netns.NsHandle {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root to make a network namespace")
	}
	runtime.LockOSThread()
	before, err := netns.Get()
	if err != nil {
		t.Fatal(err)
	}
	own, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(netns.Set(before), own.Close(), before.Close()); err != nil {
			t.Fatal(err)
		}
		runtime.UnlockOSThread()
	})
	return own
}

func subscribe(t *testing.T) *listener {
	t.Helper()
	l, err := listen()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.conn.Close() })
	return l
}

// announcer returns a function that has the kernel announce a PCI function, and
// the function's folder.
func announcer(t *testing.T) (announce func(), devpath string) {
	t.Helper()
	functions, err := filepath.Glob("/sys/bus/pci/devices/*/uevent")
	if err != nil || len(functions) == 0 || unix.Access(functions[0], unix.W_OK) != nil {
		t.Skip("needs a PCI function and a sysfs that can be written to")
	}
	folder, err := filepath.EvalSymlinks(filepath.Dir(functions[0]))
	if err != nil {
		t.Fatal(err)
	}
	return func() {
		t.Helper()
		if err := os.WriteFile(functions[0], []byte("change"), 0); err != nil {
			t.Fatal(err)
		}
	}, strings.TrimPrefix(folder, "/sys")
}

// mustHear fails if anything else comes first, but for announcements that
// another process had the kernel make.
func (l *listener) mustHear(t *testing.T, subsystem, devpath string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for {
		e, err := l.next(ctx)
		if err == nil && e.action == "change" && e.devpath != devpath {
			continue
		}
		if err != nil || e.subsystem != subsystem || e.devpath != devpath {
			t.Fatalf("heard %+v, %v; want one of subsystem %s for %s", e, err, subsystem, devpath)
		}
		return
	}
}

func TestDevicesAreHeardInEveryNamespaceAndNetdevsInTheirOwn(t *testing.T) {
	announce, devpath := announcer(t)
	elsewhere := ownNamespace(t)
	ownNamespace(t)
	l := subscribe(t)
	other, err := netlink.NewHandleAt(elsewhere)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "away0"}, PeerName: "away1"}
	if err := other.LinkAdd(veth); err != nil {
		t.Fatal(err)
	}
	announce()
	l.mustHear(t, "pci", devpath)
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "here0"}, PeerName: "here1"}); err != nil {
		t.Fatal(err)
	}
	l.mustHear(t, "net", "/devices/virtual/net/here1") // the peer is made first
}

func TestOnlyTheKernelIsBelieved(t *testing.T) {
	announce, devpath := announcer(t)
	ownNamespace(t)
	l := subscribe(t)
	address, err := l.conn.Getsockname()
	if err != nil {
		t.Fatal(err)
	}
	sender, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_KOBJECT_UEVENT)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(sender)
	forged := message("remove@/devices/pci0000:16/0000:17:00.0", "SUBSYSTEM=pci")
	if err := unix.Sendto(sender, forged, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Pid: address.(*unix.SockaddrNetlink).Pid}); err != nil {
		t.Fatalf("send to the listener alone: %v", err)
	}
	if err := unix.Sendto(sender, forged, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groupKernel}); err != nil && !errors.Is(err, unix.ESRCH) {
		t.Fatalf("send to the kernel's group: %v", err)
	}
	announce()
	l.mustHear(t, "pci", devpath)
}

func TestDroppedEventsEndTheWatch(t *testing.T) {
	announce, _ := announcer(t)
	ownNamespace(t)
	l := subscribe(t)
	if err := l.conn.SetsockoptInt(unix.SOL_SOCKET, unix.SO_RCVBUF, 1); err != nil {
		t.Fatal(err)
	}
	for range 100 {
		announce()
	}
	for {
		_, err := l.next(t.Context())
		if err == nil {
			continue // those that found room
		}
		if !errors.Is(err, unix.ENOBUFS) || !strings.Contains(err.Error(), "dropped") {
			t.Errorf("the error is %v", err)
		}
		return
	}
}

func TestWatchHintsAtTheStartAndAtEachEvent(t *testing.T) {
	announce, _ := announcer(t)
	ctx, cancel := context.WithCancel(t.Context())
	hints := make(chan struct{})
	ended := make(chan error, 1)
	go func() { ended <- Watch(ctx, func() { hints <- struct{}{} }) }()
	await := func(what string) {
		t.Helper()
		select {
		case <-hints:
		case err := <-ended:
			t.Fatalf("the watch ended with %v", err)
		case <-time.After(10 * time.Second):
			t.Fatalf("no hint %s", what)
		}
	}
	await("at the start")
	announce()
	await("at an event")
	cancel()
	for {
		select {
		case <-hints: // of another process's announcements
		case err := <-ended:
			if err != nil {
				t.Errorf("a watch that was stopped ended with %v", err)
			}
			return
		case <-time.After(10 * time.Second):
			t.Fatal("the watch did not end")
		}
	}
}
