package e2e

// Shared NICs: pods with parts of one NIC's bandwidth, each with a child of its own.
// Sharing is an option of the chart, so the release is upgraded for both scenarios, and back.

import (
	"fmt"
	"strings"
	"testing"

	"k8s.io/utils/ptr"
)

const needShares = "shared-nic.yaml"

// share asks for a part of the bandwidth of the NIC that has a PCI address.
func share(address, bandwidth string) string {
	asked := request("nic", anyNIC, fmt.Sprintf(`device.attributes["resource.kubernetes.io"].pciBusID == %q`, address))
	if bandwidth != "" {
		asked += fmt.Sprintf("    capacity: {requests: {hostler.dev/bandwidth: %s}}\n", bandwidth)
	}
	return asked
}

// sharedNIC is the PCI address of a NIC that can be shared.
func (s *scenario) sharedNIC() string {
	for _, d := range s.devices() {
		if ptr.Deref(d.AllowMultipleAllocations, false) && attribute(d, "hostler.dev/type") == "nic" {
			return attribute(d, "resource.kubernetes.io/pciBusID")
		}
	}
	s.Fatal("no NIC is shared")
	return ""
}

// shareNICs has the node share its NICs until the end of the test.
func (s *scenario) shareNICs() {
	s.Helper()
	s.publishWith("config.publish.sharedNICs=true")
	s.soon("NICs can be shared, the uplink and pairs cannot", func() error {
		for _, d := range s.devices() {
			shared, uplink := ptr.Deref(d.AllowMultipleAllocations, false), attribute(d, "hostler.dev/ifName") == s.node.profile(s.T).UplinkName()
			switch kind := attribute(d, "hostler.dev/type"); {
			case kind == "nic" && shared == uplink:
				return fmt.Errorf("%s, uplink: %v, can be shared: %v", d.Name, uplink, shared)
			case (kind == "gpu" || kind == "pair") && shared:
				return fmt.Errorf("%s can be shared", d.Name)
			}
		}
		return nil
	})
}

func macvlan(address string) string {
	return config("nic", nicConfig("share0", address, "mode: macvlan"))
}

func TestSharedNICs(t *testing.T) {
	newScenario(t).shareNICs()
	t.Run("of-two-pods", podsShareANIC)
	t.Run("are-no-netdevs", shareIsNoNetdev)
}

func podsShareANIC(t *testing.T) {
	s := newScenario(t)
	before, address := s.node.snapshot(t), s.sharedNIC()
	s.apply(
		template("small", requests(share(address, "20M"))+macvlan("192.168.79.1/24")), pod("small", "small", ""),
		template("large", requests(share(address, "300G"))+macvlan("192.168.79.2/24")), pod("large", "large", receiver),
	)
	s.awaitReady("small", "large")
	name := s.allocated("small")
	if other := s.allocated("large"); other != name {
		t.Fatalf("the pods have %s and %s, want two shares of one NIC", name, other)
	}
	parent := attribute(s.device(name), "hostler.dev/ifName")
	if now := s.node.snapshot(t); now.links[parent] != before.links[parent] {
		t.Errorf("the NIC that is shared is %q on the node, was %q", now.links[parent], before.links[parent])
	}
	if out := s.sh("small", "ping -c 3 -W 2 -I share0 192.168.79.2"); !strings.Contains(out, " 0% packet loss") {
		t.Errorf("ping between two shares: %s", out)
	}
	s.limitsWhatIsSent("small", "192.168.79.2", 20e6)

	s.apply(template("third", requests(share(address, "150G"))+macvlan("192.168.79.3/24")), pod("third", "third", ""),
		template("whole", requests(share(address, ""))+config("nic", nicConfig("whole0", "192.168.79.4/24"))), pod("whole", "whole", ""))
	for _, waiting := range []string{"third", "whole"} {
		s.eventually(waiting+" waits for bandwidth", func() error { return s.unschedulable(waiting, "cannot allocate all claims") })
	}
	s.kubectl("delete", "pod", "large")
	s.awaitReady("third")
	s.kubectl("delete", "pod", "small", "third")
	s.awaitReady("whole")
	if _, still := s.node.snapshot(t).links[parent]; still {
		t.Errorf("the node still shows %s, of which a pod has all", parent)
	}
	s.kubectl("delete", "pod", "whole")
	s.eventually("the node is as it was", func() error { return s.node.asBefore(before) })
}

// receiver takes what comes for one connection. busybox's nc ends when its peer has
// nothing more to say, so what it says itself never ends.
const receiver = "sleep 1000000 | nc -l -p 5000 >/dev/null"

// limitsWhatIsSent sends a receiver what takes three seconds at the bandwidth of the sender, and
// half of that would be at twice as much.
func (s *scenario) limitsWhatIsSent(from, address string, bitsPerSecond int) {
	s.Helper()
	// What the bucket and its queue hold passes at once.
	const held = 1 << 20
	count := (held + 3*bitsPerSecond/8) >> 16
	var began, ended float64
	s.eventually("bytes move between the shares", func() error {
		out, err := s.trySh(from, fmt.Sprintf("read began rest </proc/uptime; dd if=/dev/zero bs=65536 count=%d 2>/dev/null | nc %s 5000 && read ended rest </proc/uptime && echo $began $ended", count, address))
		if err == nil {
			_, err = fmt.Sscan(out, &began, &ended)
		}
		return err
	})
	if took := ended - began; took < 1.5 {
		s.Errorf("%d bytes moved in %.2f s over a share of %d bits per second", count<<16, took, bitsPerSecond)
	}
}

// A share is for a child: whoever wants the netdev itself is told what to write.
func shareIsNoNetdev(t *testing.T) {
	s := newScenario(t)
	s.applySample(needShares)
	if a, b := s.allocated("shared-nic-a"), s.allocated("shared-nic-b"); a != b {
		t.Errorf("the sample's pods have %s and %s, want shares of one NIC", a, b)
	}
	nic := share(s.sharedNIC(), "10G")
	s.apply(template("netdev", requests(nic)), pod("netdev", "netdev", ""), template("strong", requests(nic)+macvlan("192.168.79.9/24")),
		strings.Replace(pod("strong", "strong", ""), "    resources:", "    securityContext: {capabilities: {add: [NET_ADMIN]}}\n    resources:", 1))
	s.eventually("a share of a netdev is refused", func() error { return s.eventsContain("netdev", "set mode macvlan or ipvlan") })
	s.eventually("a container that could lift its limit is refused", func() error { return s.eventsContain("strong", "it has CAP_NET_ADMIN") })
}
