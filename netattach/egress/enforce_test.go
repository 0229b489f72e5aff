package egress

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hostler-dev/hostler/api/v1alpha1"
	"github.com/hostler-dev/hostler/netattach/internal/nettest"
)

// A pod with eth0, and an outside that owns all documentation addresses.
func podAndOutside(t *testing.T) (pod, outside *nettest.Namespace) {
	pod, outside = nettest.New(t), nettest.New(t)
	nettest.Join(t, pod, "eth0", outside, "pod")
	pod.Up(t, "eth0", "192.0.2.2/24", "2001:db8:1::2/64")
	outside.Up(t, "pod", "192.0.2.1/24", "2001:db8:1::1/64")
	pod.Route(t, "0.0.0.0/0", "192.0.2.1")
	pod.Route(t, "::/0", "2001:db8:1::1")
	for _, prefix := range []string{"198.51.100.0/24", "203.0.113.0/24", "169.254.169.254/32", "10.0.0.0/8", "2001:db8:2::/64"} {
		outside.Answer(t, prefix)
	}
	return pod, outside
}

func compiled(t testing.TB, config v1alpha1.EgressConfig, resolvers ...string) Ruleset {
	t.Helper()
	v1alpha1.SetDefaults_EgressConfig(&config)
	if faults := v1alpha1.ValidateEgressConfig(&config); len(faults) > 0 {
		t.Fatal(faults)
	}
	var addrs []netip.Addr
	for _, resolver := range resolvers {
		addrs = append(addrs, netip.MustParseAddr(resolver))
	}
	rules, err := Compile(config, addrs, nil)
	if err != nil {
		t.Fatal(err)
	}
	return rules
}

func allow(name, cidr string, ports ...v1alpha1.EgressPort) v1alpha1.EgressRule {
	return v1alpha1.EgressRule{Name: name, To: []v1alpha1.EgressPeer{{CIDR: &v1alpha1.CIDRPeer{CIDR: cidr}}}, Ports: ports}
}

func enforce(t testing.TB, pod *nettest.Namespace, rules Ruleset) {
	t.Helper()
	if err := Enforce(context.Background(), pod.FD, rules); err != nil {
		t.Fatal(err)
	}
}

// dial connects from the pod; patience is far above what a refusal takes and
// far below a timeout of TCP.
func dial(t testing.TB, pod *nettest.Namespace, network, address string) (conn net.Conn, err error) {
	t.Helper()
	pod.Do(t, func() { conn, err = net.DialTimeout(network, address, 10*time.Second) })
	return conn, err
}

func TestAllowedDestinationAnswersAndDeniedIsRefusedAtOnce(t *testing.T) {
	pod, outside := podAndOutside(t)
	outside.ServeTCP(t, 80)
	outside.ServeTCP(t, 81)
	enforce(t, pod, compiled(t, v1alpha1.EgressConfig{Allow: []v1alpha1.EgressRule{allow("web", "198.51.100.0/24", v1alpha1.EgressPort{Port: 80})}}))

	conn, err := dial(t, pod, "tcp", "198.51.100.10:80")
	if err != nil {
		t.Fatalf("allowed destination: %v", err)
	}
	defer conn.Close()
	if got := echo(conn, "hello"); got != nil {
		t.Fatalf("allowed flow: %v", got)
	}
	for name, address := range map[string]string{
		"other address": "203.0.113.10:80", "other port": "198.51.100.10:81", "metadata": "169.254.169.254:80", "IPv6 without a rule": "[2001:db8:2::1]:80",
	} {
		start := time.Now()
		conn, err := dial(t, pod, "tcp", address)
		if err == nil {
			conn.Close()
			t.Errorf("%s: connected", name)
		} else if !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("%s: want a reset, got %v", name, err)
		}
		if took := time.Since(start); took > 2*time.Second {
			t.Errorf("%s: refused after %s only", name, took)
		}
	}
	counters, err := Counters(pod.FD)
	if err != nil {
		t.Fatal(err)
	}
	if counters["allow web"].Packets == 0 || counters[RuleBuiltInNever].Packets == 0 || counters[RuleDefault].Packets == 0 {
		t.Errorf("counters have not seen the traffic: %v", counters)
	}
}

func echo(conn net.Conn, text string) error {
	if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return err
	}
	if _, err := conn.Write([]byte(text)); err != nil {
		return err
	}
	_, err := conn.Read(make([]byte, len(text)))
	return err
}

func TestUDPAndResolvers(t *testing.T) {
	pod, outside := podAndOutside(t)
	ntp, dns := outside.ListenUDP(t, 123), outside.ListenUDP(t, 53)
	enforce(t, pod, compiled(t, v1alpha1.EgressConfig{Allow: []v1alpha1.EgressRule{
		allow("ntp", "2001:db8:2::/64", v1alpha1.EgressPort{Protocol: v1alpha1.ProtocolUDP, Port: 123})}}, "10.96.0.10"))
	send := func(address string) error {
		conn, err := dial(t, pod, "udp", address)
		if err != nil {
			return err
		}
		defer conn.Close()
		_, err = conn.Write([]byte("to " + address))
		return err
	}
	for address, arrives := range map[string]<-chan string{"[2001:db8:2::7]:123": ntp, "10.96.0.10:53": dns} {
		if err := send(address); err != nil {
			t.Fatalf("%s: %v", address, err)
		}
		if got := <-arrives; got != "to "+address {
			t.Errorf("%s: got %q", address, got)
		}
	}
	for _, address := range []string{"198.51.100.1:123", "10.96.0.11:53", "[2001:db8:2::7]:53"} {
		if err := send(address); !errors.Is(err, unix.EPERM) {
			t.Errorf("%s: want EPERM at the first packet, got %v", address, err)
		}
	}
}

// A live flow ends when its destination is revoked, and an allowed one goes on.
func TestRevocationEndsLiveFlows(t *testing.T) {
	pod, outside := podAndOutside(t)
	outside.ServeTCP(t, 80)
	web := func(cidrs ...string) Ruleset {
		var config v1alpha1.EgressConfig
		for i, cidr := range cidrs {
			config.Allow = append(config.Allow, allow(fmt.Sprintf("r%d", i), cidr, v1alpha1.EgressPort{Port: 80}))
		}
		return compiled(t, config)
	}
	enforce(t, pod, web("198.51.100.0/24", "203.0.113.0/24"))
	kept, err := dial(t, pod, "tcp", "198.51.100.1:80")
	if err != nil {
		t.Fatal(err)
	}
	defer kept.Close()
	revoked, err := dial(t, pod, "tcp", "203.0.113.1:80")
	if err != nil {
		t.Fatal(err)
	}
	defer revoked.Close()
	if err := errors.Join(echo(kept, "a"), echo(revoked, "a")); err != nil {
		t.Fatal(err)
	}
	enforce(t, pod, web("198.51.100.0/24"))
	if err := echo(kept, "b"); err != nil {
		t.Errorf("the allowed flow ended: %v", err)
	}
	if err := echo(revoked, "b"); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the revoked flow was not reset: %v", err)
	}
}

func TestInboundConnectionsGetTheirReplies(t *testing.T) {
	pod, outside := podAndOutside(t)
	pod.ServeTCP(t, 8080)
	enforce(t, pod, compiled(t, v1alpha1.EgressConfig{}))
	for _, address := range []string{"192.0.2.2:8080", "[2001:db8:1::2]:8080"} {
		conn, err := dial(t, outside, "tcp", address)
		if err != nil {
			t.Fatalf("%s: %v", address, err)
		}
		defer conn.Close()
		if err := echo(conn, "hello"); err != nil {
			t.Errorf("%s: %v", address, err)
		}
		enforce(t, pod, compiled(t, v1alpha1.EgressConfig{Never: []string{"198.51.100.0/24"}}))
		if err := echo(conn, "hello again"); err != nil {
			t.Errorf("%s, after an update of the rules: %v", address, err)
		}
	}
}

func TestRawSocketsDoNotPass(t *testing.T) {
	for name, bypass := range map[string]int{"through the queue": 0, "with PACKET_QDISC_BYPASS": 1} {
		t.Run(name, func(t *testing.T) {
			pod, outside := podAndOutside(t)
			received := outside.ListenUDP(t, 9)
			frame := udpFrame(pod.Link(t, "eth0").Attrs().HardwareAddr, outside.Link(t, "pod").Attrs().HardwareAddr)
			if err := sendRaw(t, pod, frame, 0, bypass, 0); err != nil {
				t.Fatalf("before enforcement: %v", err)
			}
			if got := <-received; got != "raw" {
				t.Fatalf("the frame itself is wrong: %q", got)
			}
			enforce(t, pod, compiled(t, v1alpha1.EgressConfig{Allow: []v1alpha1.EgressRule{
				allow("marker", "198.51.100.0/24", v1alpha1.EgressPort{Protocol: v1alpha1.ProtocolUDP, Port: 9})}}))
			// The sender says of which protocol the frame is, and may lie. Trying all
			// marks out, it would come by the right one.
			protocols, marks := []uint16{0, unix.ETH_P_IP, unix.ETH_P_ARP, unix.ETH_P_ALL}, []int{0, 1, 0xffffffff, int(marksOf(t, pod).packet)}
			for _, protocol := range protocols {
				for _, mark := range marks {
					// The kernel answers ENOBUFS for a dropped frame; what counts is what arrives.
					_ = sendRaw(t, pod, frame, protocol, bypass, mark)
				}
			}
			conn, err := dial(t, pod, "udp", "198.51.100.1:9")
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if _, err := conn.Write([]byte("regular")); err != nil {
				t.Fatal(err)
			}
			// Packets of one veth keep their order, so a raw one would come first.
			if got := <-received; got != "regular" {
				t.Errorf("a raw frame got out: %q", got)
			}
			counters, err := Counters(pod.FD)
			if err != nil {
				t.Fatal(err)
			}
			if want := len(protocols) * len(marks); counters[RuleRaw].Packets != uint64(want) {
				t.Errorf("counted %d raw frames, want %d", counters[RuleRaw].Packets, want)
			}
		})
	}
}

// A raw IP packet that the pod sends itself "from" a denied address must not
// open the way for replies to that address.
func TestForgedInboundPacketsEarnNoReplies(t *testing.T) {
	pod, outside := podAndOutside(t)
	received := outside.ListenUDP(t, 7000)
	enforce(t, pod, compiled(t, v1alpha1.EgressConfig{}))
	packet := udpPacket("203.0.113.66", "192.0.2.2", 7000, 7001, "forged")
	pod.Do(t, func() {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_RAW)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		if err := unix.Sendto(fd, packet, 0, &unix.SockaddrInet4{Addr: [4]byte{192, 0, 2, 2}}); err != nil {
			t.Fatalf("sending the forged packet: %v", err)
		}
		socket, err := net.DialUDP("udp4", &net.UDPAddr{IP: net.IPv4(192, 0, 2, 2), Port: 7001}, &net.UDPAddr{IP: net.IPv4(203, 0, 113, 66), Port: 7000})
		if err != nil {
			t.Fatal(err)
		}
		defer socket.Close()
		if _, err := socket.Write([]byte("reply")); !errors.Is(err, unix.EPERM) {
			t.Errorf("a reply to a forged packet: want EPERM, got %v", err)
		}
	})
	select {
	case got := <-received:
		t.Errorf("%q got out", got)
	default:
	}
}

func TestForwardedPacketsAreDenied(t *testing.T) {
	pod, outside := podAndOutside(t)
	inner := nettest.New(t)
	nettest.Join(t, inner, "eth0", pod, "in0")
	inner.Up(t, "eth0", "10.77.0.2/24")
	pod.Up(t, "in0", "10.77.0.1/24")
	inner.Route(t, "0.0.0.0/0", "10.77.0.1")
	outside.Route(t, "10.77.0.0/24", "192.0.2.2")
	pod.Do(t, func() {
		if err := writeSysctl("/proc/sys/net/ipv4/ip_forward", "1"); err != nil {
			t.Skipf("cannot switch forwarding on: %v", err)
		}
	})
	received := outside.ListenUDP(t, 9)
	send := func(text string) {
		conn, err := dial(t, inner, "udp", "198.51.100.1:9")
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := conn.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	send("before")
	if got := <-received; got != "before" {
		t.Fatalf("forwarding does not work in this test: %q", got)
	}
	enforce(t, pod, compiled(t, v1alpha1.EgressConfig{Allow: []v1alpha1.EgressRule{
		allow("all", "0.0.0.0/0", v1alpha1.EgressPort{Protocol: v1alpha1.ProtocolUDP, Port: 9})}}))
	send("after")
	counters, err := Counters(pod.FD)
	if err != nil {
		t.Fatal(err)
	}
	if counters[RuleForward].Packets != 1 {
		t.Errorf("the forward chain dropped %d packets, want 1", counters[RuleForward].Packets)
	}
}
