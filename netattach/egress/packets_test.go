package egress

// What the tests of this package send and draw.

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"github.com/hostler-dev/hostler/api/v1alpha1"
	"github.com/hostler-dev/hostler/netattach/internal/nettest"
)

func udpPacket(from, to string, fromPort, toPort uint16, payload string) []byte {
	packet := make([]byte, 28, 28+len(payload))
	packet[0], packet[8], packet[9] = 0x45, 64, unix.IPPROTO_UDP
	binary.BigEndian.PutUint16(packet[2:], uint16(28+len(payload)))
	copy(packet[12:], netip.MustParseAddr(from).AsSlice())
	copy(packet[16:], netip.MustParseAddr(to).AsSlice())
	binary.BigEndian.PutUint16(packet[20:], fromPort)
	binary.BigEndian.PutUint16(packet[22:], toPort)
	binary.BigEndian.PutUint16(packet[24:], uint16(8+len(payload)))
	var sum uint32
	for i := 0; i < 20; i += 2 {
		sum += uint32(binary.BigEndian.Uint16(packet[i:]))
	}
	for sum > 0xffff {
		sum = sum&0xffff + sum>>16
	}
	binary.BigEndian.PutUint16(packet[10:], ^uint16(sum))
	return append(packet, payload...)
}

func udpFrame(from, to net.HardwareAddr) []byte {
	frame := append(append([]byte{}, to...), from...)
	return append(append(frame, 0x08, 0x00), udpPacket("192.0.2.2", "198.51.100.1", 9, 9, "raw")...)
}

func sendRaw(t testing.TB, pod *nettest.Namespace, frame []byte, protocol uint16, bypass, mark int) (err error) {
	index := pod.Link(t, "eth0").Attrs().Index
	pod.Do(t, func() {
		fd, socketErr := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0)
		if socketErr != nil {
			t.Fatal(socketErr)
		}
		defer unix.Close(fd)
		for _, option := range []struct{ level, name, value int }{
			{unix.SOL_PACKET, unix.PACKET_QDISC_BYPASS, bypass}, {unix.SOL_SOCKET, unix.SO_MARK, mark},
		} {
			if optErr := unix.SetsockoptInt(fd, option.level, option.name, option.value); optErr != nil {
				t.Fatal(optErr)
			}
		}
		err = unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: index, Halen: 6, Protocol: protocol<<8 | protocol>>8})
	})
	return err
}

// handles lists the handles of all rules, which the kernel gives out once.
func handles(t testing.TB, pod *nettest.Namespace) string {
	conn, err := connect(pod.FD)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.CloseLasting()
	chains, err := conn.chains()
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	for _, chain := range chains {
		rules, err := conn.GetRules(chain.Table, chain)
		if err != nil {
			t.Fatal(err)
		}
		for _, rule := range rules {
			fmt.Fprintf(&text, "%s/%d ", chain.Name, rule.Handle)
		}
	}
	return text.String()
}

func writeSysctl(path, value string) error { return os.WriteFile(path, []byte(value), 0o644) }

// Addresses come from small corners of both families, so that packets hit.
func anyAddr(t *rapid.T) netip.Addr {
	low := byte(rapid.IntRange(0, 15).Draw(t, "low"))
	if rapid.Bool().Draw(t, "IPv6") {
		return netip.AddrFrom16([16]byte{0x20, 0x01, 0x0d, 0xb8, 0, 2, 15: low + 1})
	}
	return netip.AddrFrom4([4]byte{10, 0, 0, low})
}

func anyPrefix(t *rapid.T) netip.Prefix {
	addr := anyAddr(t)
	return netip.PrefixFrom(addr, addr.BitLen()-rapid.IntRange(0, 5).Draw(t, "host bits")).Masked()
}

func anyScope(t *rapid.T) v1alpha1.EgressConfig {
	protocols := []v1alpha1.EgressProtocol{v1alpha1.ProtocolTCP, v1alpha1.ProtocolUDP, v1alpha1.ProtocolSCTP}
	config := v1alpha1.EgressConfig{DNS: rapid.SampledFrom([]v1alpha1.DNSMode{v1alpha1.DNSClusterResolver, v1alpha1.DNSNone}).Draw(t, "dns")}
	for i := range rapid.IntRange(0, 4).Draw(t, "rules") {
		outer := anyPrefix(t)
		peer := &v1alpha1.CIDRPeer{CIDR: outer.String()}
		if hole := anyPrefix(t); hole.Bits() >= outer.Bits() && outer.Contains(hole.Addr()) {
			peer.Except = []string{hole.String()}
		}
		rule := v1alpha1.EgressRule{Name: fmt.Sprintf("r%d", i), To: []v1alpha1.EgressPeer{{CIDR: peer}, {CIDR: &v1alpha1.CIDRPeer{CIDR: anyPrefix(t).String()}}}}
		for range rapid.IntRange(1, 2).Draw(t, "ports") {
			first := int32(rapid.IntRange(51, 55).Draw(t, "port"))
			rule.Ports = append(rule.Ports, v1alpha1.EgressPort{Protocol: rapid.SampledFrom(protocols).Draw(t, "protocol"),
				Port: first, EndPort: first + int32(rapid.IntRange(0, 3).Draw(t, "length"))})
		}
		config.Allow = append(config.Allow, rule)
	}
	if rapid.Bool().Draw(t, "never") {
		config.Never = []string{anyPrefix(t).String()}
	}
	return config
}

func anyPacket(t *rapid.T) Packet {
	packet := Packet{FromUser: true, Destination: anyAddr(t), Port: uint16(rapid.IntRange(50, 59).Draw(t, "destination port")),
		Protocol: rapid.SampledFrom([]Protocol{TCP, UDP, SCTP}).Draw(t, "protocol")}
	if rapid.IntRange(0, 9).Draw(t, "special") > 0 {
		return packet
	}
	if packet.Destination.Is4() {
		packet.Destination = netip.MustParseAddr("169.254.169.254")
		return packet
	}
	packet = Packet{FromUser: true, Destination: packet.Destination, Protocol: ICMPv6,
		ICMPv6Type: rapid.SampledFrom([]uint8{128, 133, 134, 135, 136, 137, 143}).Draw(t, "ICMPv6 type"),
		HopLimit:   rapid.SampledFrom([]uint8{64, 255}).Draw(t, "hop limit")}
	if packet.ICMPv6Type >= 135 && rapid.Bool().Draw(t, "all nodes") {
		packet.Destination = netip.MustParseAddr("ff02::1")
	}
	return packet
}
