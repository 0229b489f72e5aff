package nettest

// Frames that pass by the IP stack, as a process with CAP_NET_RAW sends them.

import (
	"encoding/binary"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// EtherType of frames that Flood and Send write.
type EtherType uint16

// Experimental is for local experiments (IEEE 802), ARP what every filter lets pass.
const (
	Experimental EtherType = 0x88b5
	ARP          EtherType = 0x0806
)

// greeting marks our frames among those that the kernel sends by itself.
const greeting = "nettest:"

func frame(kind EtherType, text string) []byte {
	frame := make([]byte, 12, 64)
	for i := range 6 {
		frame[i] = 0xff
	}
	frame = binary.BigEndian.AppendUint16(frame, uint16(kind))
	return append(frame, greeting+text+"\x00"...)
}

// Send writes one frame to a link that must be up.
func (n *Namespace) Send(t testing.TB, link string, kind EtherType, text string) {
	t.Helper()
	socket := n.packetSocket(t, 0)
	defer unix.Close(socket)
	to := &unix.SockaddrLinklayer{Ifindex: n.Link(t, link).Attrs().Index, Halen: 6}
	if err := unix.Sendto(socket, frame(kind, text), 0, to); err != nil {
		t.Fatalf("send on %s: %v", link, err)
	}
}

// Flood writes Experimental frames to the link of that name without pause, also
// while it is not there or down, until the test ends. Tried counts.
func (n *Namespace) Flood(t testing.TB, link string) (tried *atomic.Int64) {
	t.Helper()
	socket := n.packetSocket(t, 0)
	handle, err := netlink.NewHandleAt(netns.NsHandle(n.FD), unix.NETLINK_ROUTE)
	if err != nil {
		t.Fatal(err)
	}
	tried = &atomic.Int64{}
	end, ended := make(chan struct{}), sync.WaitGroup{}
	ended.Go(func() {
		defer unix.Close(socket)
		defer handle.Close()
		to := &unix.SockaddrLinklayer{Halen: 6}
		for {
			select {
			case <-end:
				return
			default:
			}
			if found, err := handle.LinkByName(link); err == nil {
				to.Ifindex = found.Attrs().Index
			}
			for range 32 {
				// What counts is what arrives; a dropped frame is ENOBUFS.
				_ = unix.Sendto(socket, frame(Experimental, "flood"), 0, to)
				tried.Add(1)
			}
		}
	})
	t.Cleanup(func() { close(end); ended.Wait() })
	return tried
}

// Sniff delivers the texts of frames that arrive on a link, in order, and loses
// some if nobody takes them.
func (n *Namespace) Sniff(t testing.TB, link string) <-chan string {
	t.Helper()
	const all = unix.ETH_P_ALL<<8 | unix.ETH_P_ALL>>8 // in network byte order, on the machines that we know
	socket := n.packetSocket(t, all)
	if err := unix.Bind(socket, &unix.SockaddrLinklayer{Protocol: all, Ifindex: n.Link(t, link).Attrs().Index}); err != nil {
		t.Fatal(err)
	}
	// A receive returns now and then, so that it notices the end.
	if err := unix.SetsockoptTimeval(socket, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 20_000}); err != nil {
		t.Fatal(err)
	}
	texts := make(chan string, 256)
	var over atomic.Bool
	var ended sync.WaitGroup
	ended.Go(func() {
		defer unix.Close(socket)
		buffer := make([]byte, 256)
		for !over.Load() {
			length, _, err := unix.Recvfrom(socket, buffer, 0)
			if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
				continue
			}
			if err != nil {
				return
			}
			if text, ours := strings.CutPrefix(string(buffer[min(14, length):length]), greeting); ours {
				text, _, _ = strings.Cut(text, "\x00")
				select {
				case texts <- text:
				default:
				}
			}
		}
	})
	t.Cleanup(func() { over.Store(true); ended.Wait() })
	return texts
}

func (n *Namespace) packetSocket(t testing.TB, protocol int) (socket int) {
	t.Helper()
	n.Do(t, func() {
		var err error
		if socket, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, protocol); err != nil {
			t.Fatal(err)
		}
	})
	return socket
}
