package nettest

// Frames that pass by the IP stack, as a process with CAP_NET_RAW sends them,
// and one that the kernel sends by itself.

import (
	"encoding/binary"
	"errors"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// greeting marks our frames among those that the kernel sends by itself.
const greeting = "nettest:"

// Solicitation is what Sniff calls the frame that Solicit has the kernel send.
const Solicitation = "solicitation"

// solicited is a documentation address that nobody has (RFC 5737).
func solicited() net.IP { return net.IPv4(192, 0, 2, 251).To4() }

// frame has an EtherType for local experiments (IEEE 802).
func frame(text string) []byte {
	frame := make([]byte, 12, 64)
	for i := range 6 {
		frame[i] = 0xff
	}
	frame = binary.BigEndian.AppendUint16(frame, 0x88b5)
	return append(frame, greeting+text+"\x00"...)
}

// Solicit has the kernel send an ARP request, which every filter lets pass, on
// a link that must be up.
func (n *Namespace) Solicit(t testing.TB, link string) {
	t.Helper()
	neighbour := &netlink.Neigh{LinkIndex: n.Link(t, link).Attrs().Index, Family: unix.AF_INET, IP: solicited(), Flags: netlink.NTF_USE}
	if err := n.Handle.NeighSet(neighbour); err != nil {
		t.Fatalf("solicit on %s: %v", link, err)
	}
}

// Flood writes frames to the link of that name without pause, also
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
				_ = unix.Sendto(socket, frame("flood"), 0, to)
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
			if text, ours := textOf(buffer[:length]); ours {
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

func textOf(frame []byte) (text string, ours bool) {
	const header, arpTarget = 14, 24 // struct ethhdr; where an ARP packet for IPv4 has the address it asks for
	if len(frame) < header {
		return "", false
	}
	payload := frame[header:]
	if binary.BigEndian.Uint16(frame[12:]) == unix.ETH_P_ARP {
		return Solicitation, len(payload) >= arpTarget+4 && solicited().Equal(payload[arpTarget:arpTarget+4])
	}
	text, ours = strings.CutPrefix(string(payload), greeting)
	text, _, _ = strings.Cut(text, "\x00")
	return text, ours
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
