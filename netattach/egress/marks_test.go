package egress

// What a process with CAP_NET_RAW in the pod can find out about the marks.

import (
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/hostler-dev/hostler/api/v1alpha1"
	"github.com/hostler-dev/hostler/netattach/internal/nettest"
)

func marksOf(t *testing.T, pod *nettest.Namespace) marks {
	t.Helper()
	socket, err := connect(pod.FD)
	if err != nil {
		t.Fatal(err)
	}
	defer socket.CloseLasting()
	chains, err := socket.chains()
	if err != nil {
		t.Fatal(err)
	}
	rules, err := socket.outputRules(chains)
	if err != nil {
		t.Fatal(err)
	}
	_, found := identityOf(rules)
	if found == (marks{}) {
		t.Fatal("no marks are in force")
	}
	return found
}

func TestConntrackDoesNotShowThePacketMark(t *testing.T) {
	pod, outside := podAndOutside(t)
	pod.ServeTCP(t, 8080)
	enforce(t, pod, compiled(t, v1alpha1.EgressConfig{}))
	conn, err := dial(t, outside, "tcp", "192.0.2.2:8080")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	var table []byte
	pod.Do(t, func() { table, err = os.ReadFile("/proc/thread-self/net/nf_conntrack") })
	if err != nil {
		t.Skipf("this kernel does not show conntrack entries in /proc: %v", err)
	}
	found := marksOf(t, pod)
	if strings.Contains(string(table), fmt.Sprintf("mark=%d ", found.packet)) {
		t.Errorf("the packet mark can be read:\n%s", table)
	}
	if !strings.Contains(string(table), fmt.Sprintf("mark=%d ", found.flow)) {
		t.Errorf("the flow that came in has no mark, the test shows nothing:\n%s", table)
	}
}

// A classic BPF filter can read the mark of whatever comes to a socket. Packet
// sockets get a copy of what leaves, IP sockets of the multicast that the pod
// sends to a group in which it is itself.
func TestSocketFiltersSeeNoMark(t *testing.T) {
	pod, outside := podAndOutside(t)
	received := outside.ListenUDP(t, 9)
	enforce(t, pod, compiled(t, v1alpha1.EgressConfig{Allow: []v1alpha1.EgressRule{
		allow("web", "198.51.100.0/24", v1alpha1.EgressPort{Protocol: v1alpha1.ProtocolUDP, Port: 9}),
		allow("group", "239.1.1.1/32", v1alpha1.EgressPort{Protocol: v1alpha1.ProtocolUDP, Port: 9}),
	}}))
	all := unix.SockaddrLinklayer{Protocol: unix.ETH_P_ALL << 8, Ifindex: pod.Link(t, "eth0").Attrs().Index}
	for name, test := range map[string]struct {
		domain, protocol int
		address          string
		length           int
	}{
		"packet socket":           {unix.AF_PACKET, unix.ETH_P_ALL << 8, "198.51.100.1:9", 14 + 28 + len("probe")},
		"packet socket, to group": {unix.AF_PACKET, unix.ETH_P_ALL << 8, "239.1.1.1:9", 14 + 28 + len("probe")},
		"IP socket, from group":   {unix.AF_INET, unix.IPPROTO_UDP, "239.1.1.1:9", 28 + len("probe")},
	} {
		t.Run(name, func(t *testing.T) {
			pod.Do(t, func() {
				socket := filtered(t, test.domain, test.protocol)
				defer unix.Close(socket)
				if test.domain == unix.AF_PACKET {
					if err := unix.Bind(socket, &all); err != nil {
						t.Fatal(err)
					}
				}
				member, err := net.ListenMulticastUDP("udp4", nil, &net.UDPAddr{IP: net.IPv4(239, 1, 1, 1), Port: 9})
				if err != nil {
					t.Fatal(err)
				}
				defer member.Close()
				sender, err := net.Dial("udp4", test.address)
				if err != nil {
					t.Fatal(err)
				}
				defer sender.Close()
				if err := loopMulticast(sender.(*net.UDPConn)); err != nil {
					t.Fatal(err)
				}
				if _, err := sender.Write([]byte("probe")); err != nil {
					t.Fatal(err)
				}
				length, _, err := unix.Recvfrom(socket, make([]byte, 256), 0)
				if err != nil {
					t.Fatalf("the filter let nothing come: %v", err)
				}
				if length != test.length {
					t.Errorf("got %d bytes, want %d: the filter saw a mark", length, test.length)
				}
			})
		})
	}
	select {
	case got := <-received:
		if got != "probe" {
			t.Errorf("%q got out", got)
		}
	case <-time.After(5 * time.Second):
		t.Error("what the rules allow did not get out")
	}
}

func loopMulticast(conn *net.UDPConn) error {
	system, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	if controlErr := system.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_MULTICAST_LOOP, 1)
	}); controlErr != nil {
		return controlErr
	}
	return err
}

// filtered is a socket that gets all of an IPv4 packet without mark, and only
// the first 14 bytes of one with a mark.
func filtered(t *testing.T, domain, protocol int) (socket int) {
	t.Helper()
	const absent = 0xfffff000 // SKF_AD_OFF: behind it is what is not in the packet
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: absent + 0}, // SKF_AD_PROTOCOL
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jt: 1, K: unix.ETH_P_IP},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0},
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: absent + 20}, // SKF_AD_MARK
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jt: 1, K: 0},
		{Code: unix.BPF_RET | unix.BPF_K, K: 14},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0xffff},
	}
	var err error
	if socket, err = unix.Socket(domain, unix.SOCK_RAW, protocol); err != nil {
		t.Fatal(err)
	}
	if err := unix.SetsockoptSockFprog(socket, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}); err != nil {
		t.Fatal(err)
	}
	if err := unix.SetsockoptTimeval(socket, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 5}); err != nil {
		t.Fatal(err)
	}
	return socket
}

// An interface can be on top of one that stayed outside, and not on top of one
// in the pod, whose chain sees packets without the mark.
func TestStackedInterfaces(t *testing.T) {
	for name, test := range map[string]struct {
		lower, far string
		inPod      bool
	}{
		"on one outside":    {"trunk", "far", false},
		"on one in the pod": {"eth0", "pod", true},
	} {
		t.Run(name, func(t *testing.T) {
			pod, outside := podAndOutside(t)
			nettest.Join(t, outside, "trunk", outside, "far")
			outside.Up(t, "trunk")
			outside.Up(t, "far", "203.0.113.1/25")
			received := outside.ListenUDP(t, 9)
			below := outside
			if test.inPod {
				below = pod
			}
			if err := below.Handle.LinkAdd(&netlink.Macvlan{Mode: netlink.MACVLAN_MODE_BRIDGE, LinkAttrs: netlink.LinkAttrs{
				Name: "net1", ParentIndex: below.Link(t, test.lower).Attrs().Index, Namespace: netlink.NsFd(pod.FD)}}); err != nil {
				t.Skipf("cannot make a macvlan: %v", err)
			}
			enforce(t, pod, compiled(t, v1alpha1.EgressConfig{Allow: []v1alpha1.EgressRule{
				allow("udp", "0.0.0.0/0", v1alpha1.EgressPort{Protocol: v1alpha1.ProtocolUDP, Port: 9})}}))
			pod.Up(t, "net1", "203.0.113.2/25")
			// So that nothing waits for an answer and is late.
			if err := pod.Handle.NeighSet(&netlink.Neigh{LinkIndex: pod.Link(t, "net1").Attrs().Index, State: netlink.NUD_PERMANENT,
				IP: net.IPv4(203, 0, 113, 1), HardwareAddr: outside.Link(t, test.far).Attrs().HardwareAddr}); err != nil {
				t.Fatal(err)
			}
			send := func(text, address string) {
				conn, err := dial(t, pod, "udp", address)
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				// The kernel answers ENOBUFS for a dropped frame; what counts is what arrives.
				_, _ = conn.Write([]byte(text))
			}
			send("from the stack", "203.0.113.1:9")
			if !test.inPod {
				if got := <-received; got != "from the stack" {
					t.Errorf("got %q, want what the stack sent", got)
				}
			}
			send("from eth0", "198.51.100.1:9")
			if got := <-received; got != "from eth0" {
				t.Errorf("got %q, want only what eth0 sent", got)
			}
			counters, err := Counters(pod.FD)
			if err != nil {
				t.Fatal(err)
			}
			if dropped := counters[RuleRaw].Packets; (dropped > 0) != test.inPod {
				t.Errorf("%d packets were dropped for the lack of a mark", dropped)
			}
		})
	}
}
