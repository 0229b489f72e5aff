package egress

import (
	"errors"
	"net/netip"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/hostler-dev/hostler/api/v1alpha1"
)

// The node's addresses are denied whatever a rule allows, except to a resolver
// and to answer what came from there, such as the kubelet's probes.
func TestNodeAddressesAreDenied(t *testing.T) {
	pod, outside := podAndOutside(t)
	outside.ServeTCP(t, 80)
	pod.ServeTCP(t, 8080)
	dns := outside.ListenUDP(t, 53)
	config := v1alpha1.EgressConfig{DNS: v1alpha1.DNSClusterResolver, Allow: []v1alpha1.EgressRule{
		allow("all", "0.0.0.0/0", v1alpha1.EgressPort{Protocol: v1alpha1.ProtocolTCP, Port: 80}),
		allow("all6", "::/0", v1alpha1.EgressPort{Protocol: v1alpha1.ProtocolTCP, Port: 80})}}
	// As netip.ParseAddr and a dual stack resolver give them.
	nodes := []netip.Addr{netip.MustParseAddr("::ffff:192.0.2.1"), netip.MustParseAddr("2001:db8:2::1")}
	rules, err := Compile(config, []netip.Addr{netip.MustParseAddr("192.0.2.1")}, nodes)
	if err != nil {
		t.Fatal(err)
	}
	enforce(t, pod, rules)
	for address, allowed := range map[string]bool{
		"192.0.2.1:80": false, "[2001:db8:2::1]:80": false, "198.51.100.1:80": true, "[2001:db8:2::2]:80": true,
	} {
		conn, err := dial(t, pod, "tcp", address)
		if err == nil {
			conn.Close()
		}
		if allowed && err != nil || !allowed && !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("%s, allowed %v: %v", address, allowed, err)
		}
	}
	if err := sendPacket(t, pod, Packet{Destination: netip.MustParseAddr("192.0.2.1"), Protocol: UDP, Port: 54}); !errors.Is(err, unix.EPERM) {
		t.Errorf("another port of the resolver: want EPERM, got %v", err)
	}
	resolver, err := dial(t, pod, "udp", "192.0.2.1:53")
	if err != nil {
		t.Fatal(err)
	}
	defer resolver.Close()
	if _, err := resolver.Write([]byte("query")); err != nil {
		t.Errorf("a resolver on the node: %v", err)
	} else if got := <-dns; got != "query" {
		t.Errorf("the resolver got %q", got)
	}
	probe, err := dial(t, outside, "tcp", "192.0.2.2:8080")
	if err != nil {
		t.Fatalf("a probe from the node: %v", err)
	}
	defer probe.Close()
	if err := echo(probe, "alive?"); err != nil {
		t.Errorf("a probe from the node: %v", err)
	}
	counters, err := Counters(pod.FD)
	if err != nil {
		t.Fatal(err)
	}
	if counters[RuleBuiltInNever].Packets < 3 {
		t.Errorf("counted %d refusals, want those of the three packets", counters[RuleBuiltInNever].Packets)
	}
}
