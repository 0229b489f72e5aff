package egress

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/hostler-dev/hostler/api/v1alpha1"
)

// Neighbour discovery that a process makes up is an unrestricted way out: the
// payload is its own, and with a hop limit of 255 routers pass it on.
func TestProcessesSendNoNeighbourDiscovery(t *testing.T) {
	pod, outside := podAndOutside(t)
	received := outside.ListenUDP(t, 9)
	rules := compiled(t, v1alpha1.EgressConfig{Never: []string{"2001:db8:2::/65"}, Allow: []v1alpha1.EgressRule{
		allow("udp", "2001:db8:2::/64", v1alpha1.EgressPort{Protocol: v1alpha1.ProtocolUDP, Port: 9})}})
	enforce(t, pod, rules)
	for _, kind := range []uint8{131, 132, 133, 135, 136, 143} {
		for _, to := range []string{"2001:db8:2::1", "2001:db8:2:0:8000::1", "2001:db8:1::1", "ff02::1%eth0"} {
			packet := Packet{FromUser: true, Destination: netip.MustParseAddr(to), Protocol: ICMPv6, ICMPv6Type: kind, HopLimit: 255}
			if err := sendPacket(t, pod, packet); !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.EACCES) {
				t.Errorf("type %d to %s: want EPERM, got %v", kind, to, err)
			}
		}
	}
	// The kernel's own still goes out: it asks for the gateway now.
	conn, err := dial(t, pod, "udp", "[2001:db8:2:0:8000::7]:9")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("regular")); err != nil {
		t.Fatal(err)
	}
	if got := <-received; got != "regular" {
		t.Errorf("got %q", got)
	}
	counters, err := Counters(pod.FD)
	if err != nil {
		t.Fatal(err)
	}
	if counters[RuleNeighbourDiscovery].Packets == 0 || counters[RuleNever].Packets != 6 {
		t.Errorf("want what the kernel sent under %s, and six packets under %s: %v", RuleNeighbourDiscovery, RuleNever, counters)
	}
}

// Without them a switch that snoops delivers no solicitations to the pod.
func TestTheKernelReportsThePodsGroups(t *testing.T) {
	pod, outside := podAndOutside(t)
	enforce(t, pod, compiled(t, v1alpha1.EgressConfig{}))
	group := net.ParseIP("ff05::4:3:2")
	var sniffer int
	outside.Do(t, func() {
		var err error
		if sniffer, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM, unix.ETH_P_IPV6>>8|unix.ETH_P_IPV6<<8&0xff00); err != nil {
			t.Fatal(err)
		}
	})
	defer unix.Close(sniffer)
	if err := unix.SetsockoptTimeval(sniffer, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 10}); err != nil {
		t.Fatal(err)
	}
	pod.Do(t, func() {
		eth0, err := net.InterfaceByName("eth0")
		if err != nil {
			t.Fatal(err)
		}
		member, err := net.ListenMulticastUDP("udp6", eth0, &net.UDPAddr{IP: group, Port: 9})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { member.Close() })
	})
	packet := make([]byte, 1500)
	for {
		length, _, err := unix.Recvfrom(sniffer, packet, 0)
		if err != nil {
			t.Fatalf("no report came out: %v", err)
		}
		if bytes.Contains(packet[:length], group) {
			return
		}
	}
}
