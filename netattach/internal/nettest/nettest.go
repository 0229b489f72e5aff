// Package nettest gives tests network namespaces with real links between them.
//
// A namespace is held by a file descriptor only: no mount, no name, nothing
// that a killed test could leave behind. No packet gets out, because nothing
// joins these namespaces to the machine's own.
package nettest

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Namespace is a network namespace.
type Namespace struct {
	// FD refers to it.
	FD int
	// Path is one that setns accepts, as a runtime would name it.
	Path   string
	Handle *netlink.Handle
}

// NeedBPF skips the test in a user namespace that an unprivileged user made. The kernel
// lets its root do most with its network namespaces, but lists no netdev's BPF programs
// to it (bpf(2), BPF_PROG_QUERY), which are looked for before a netdev is moved.
func NeedBPF(t testing.TB) {
	t.Helper()
	raw, err := os.ReadFile("/proc/self/uid_map")
	if err != nil {
		t.Fatal(err)
	}
	if fields := strings.Fields(string(raw)); len(fields) != 3 || fields[2] != "4294967295" {
		t.Skip("needs the machine's own user namespace to list a netdev's BPF programs: run as root")
	}
}

// New makes a namespace with lo up. It skips the test where the process may not.
func New(t testing.TB) *Namespace {
	t.Helper()
	file, err := create()
	if errors.Is(err, unix.EPERM) {
		t.Skip("needs CAP_SYS_ADMIN and CAP_NET_ADMIN to make a network namespace: run as root")
	}
	if err != nil {
		t.Fatal(err)
	}
	handle, err := netlink.NewHandleAt(netns.NsHandle(file.Fd()), unix.NETLINK_ROUTE)
	if err != nil {
		t.Fatal(err)
	}
	n := &Namespace{FD: int(file.Fd()), Path: fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), file.Fd()), Handle: handle}
	t.Cleanup(func() { handle.Close(); file.Close() })
	n.Up(t, "lo")
	return n
}

func create() (*os.File, error) {
	runtime.LockOSThread()
	old, err := netns.Get()
	if err != nil {
		return nil, err
	}
	defer old.Close()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return nil, err
	}
	file, err := os.Open("/proc/thread-self/ns/net")
	if restore := netns.Set(old); restore != nil {
		return nil, restore // the thread stays locked and dies with its goroutine
	}
	runtime.UnlockOSThread()
	return file, err
}

// Do runs f on a thread that is in the namespace. Sockets that f opens stay in it.
func (n *Namespace) Do(t testing.TB, f func()) {
	t.Helper()
	runtime.LockOSThread()
	old, err := netns.Get()
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	if err := netns.Set(netns.NsHandle(n.FD)); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := netns.Set(old); err != nil {
			panic(err)
		}
		runtime.UnlockOSThread()
	}()
	f()
}

// Join makes a veth pair between two namespaces, both ends down.
func Join(t testing.TB, a *Namespace, nameA string, b *Namespace, nameB string) {
	t.Helper()
	veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: nameA}, PeerName: nameB, PeerNamespace: netlink.NsFd(b.FD)}
	if err := a.Handle.LinkAdd(veth); err != nil {
		t.Fatal(err)
	}
}

// Up sets a link up and gives it addresses, without duplicate detection.
func (n *Namespace) Up(t testing.TB, name string, addresses ...string) {
	t.Helper()
	link := n.Link(t, name)
	for _, text := range addresses {
		addr, err := netlink.ParseAddr(text)
		if err != nil {
			t.Fatal(err)
		}
		addr.Flags = unix.IFA_F_NODAD
		if err := n.Handle.AddrAdd(link, addr); err != nil {
			t.Fatal(err)
		}
	}
	if err := n.Handle.LinkSetUp(link); err != nil {
		t.Fatal(err)
	}
}

// Link returns a link that must be there.
func (n *Namespace) Link(t testing.TB, name string) netlink.Link {
	t.Helper()
	link, err := n.Handle.LinkByName(name)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return link
}

// Has says whether a link of that name is in the namespace.
func (n *Namespace) Has(t testing.TB, name string) bool {
	t.Helper()
	_, err := n.Handle.LinkByName(name)
	if missing := (netlink.LinkNotFoundError{}); errors.As(err, &missing) {
		return false
	}
	if err != nil {
		t.Fatal(err)
	}
	return true
}

// Route adds a route through a gateway.
func (n *Namespace) Route(t testing.TB, destination, gateway string) {
	t.Helper()
	_, prefix, err := net.ParseCIDR(destination)
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Handle.RouteAdd(&netlink.Route{Dst: prefix, Gw: net.ParseIP(gateway)}); err != nil {
		t.Fatal(err)
	}
}

// Answer makes every address of a prefix the namespace's own.
func (n *Namespace) Answer(t testing.TB, prefix string) {
	t.Helper()
	_, dst, err := net.ParseCIDR(prefix)
	if err != nil {
		t.Fatal(err)
	}
	local := &netlink.Route{Dst: dst, LinkIndex: n.Link(t, "lo").Attrs().Index, Type: unix.RTN_LOCAL, Scope: netlink.SCOPE_HOST, Table: unix.RT_TABLE_LOCAL}
	if err := n.Handle.RouteAdd(local); err != nil {
		t.Fatal(err)
	}
}

// ServeTCP echoes on a port of all addresses until the test ends.
func (n *Namespace) ServeTCP(t testing.TB, port int) {
	t.Helper()
	n.Do(t, func() {
		listener, err := net.Listen("tcp", fmt.Sprintf(":%d", port))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { listener.Close() })
		go func() {
			for {
				conn, err := listener.Accept()
				if err != nil {
					return
				}
				go func() {
					defer conn.Close()
					io.Copy(conn, conn)
				}()
			}
		}()
	})
}

// ListenUDP delivers what arrives on a port of all addresses.
func (n *Namespace) ListenUDP(t testing.TB, port int) <-chan string {
	t.Helper()
	received := make(chan string, 64)
	n.Do(t, func() {
		conn, err := net.ListenUDP("udp", &net.UDPAddr{Port: port})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		go func() {
			buffer := make([]byte, 2048)
			for {
				length, _, err := conn.ReadFromUDP(buffer)
				if err != nil {
					return
				}
				received <- string(buffer[:length])
			}
		}()
	})
	return received
}
