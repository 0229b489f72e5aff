package e2e

// NICs: two pods talk over the netdevs that they claimed, and the netdevs come
// home as they were. A NetworkAttachmentDefinition's chain runs on the device.

import (
	"os/exec"
	"strings"
	"testing"
)

const anyNIC = "nic.hostler.dev"

func TestPodsTalkOverTheirNICs(t *testing.T) {
	s := newScenario(t)
	before := s.node.snapshot(t)
	s.apply(
		template("left", requests(request("nic", anyNIC))+config("nic", nicConfig("fabric0", "192.168.77.1/24"))), pod("left", "left", ""),
		template("right", requests(request("nic", anyNIC))+config("nic", nicConfig("fabric0", "192.168.77.2/24", "mtu: 1400"))), pod("right", "right", ""),
	)
	s.awaitReady("left", "right")

	if out := s.sh("left", "ping -c 3 -W 2 -I fabric0 192.168.77.2"); !strings.Contains(out, " 0% packet loss") {
		t.Errorf("ping over the claimed NICs: %s", out)
	}
	if out := s.sh("right", "ip -o link show fabric0"); !strings.Contains(out, "mtu 1400") || !strings.Contains(out, "UP") {
		t.Errorf("the claimed netdev in the pod: %s, want it up with MTU 1400", out)
	}
	claim := s.claimOf("left")
	host := attribute(s.device(claim.Status.Allocation.Devices.Results[0].Device), "hostler.dev/ifName")
	if _, still := s.node.snapshot(t).links[host]; still {
		t.Errorf("the node still shows %s, which is in the pod", host)
	}

	s.kubectl("delete", "pod", "left", "right")
	s.eventually("both netdevs are home as they were", func() error { return s.node.asBefore(before) })
}

// An administrator has configured the NIC before. The pod sees nothing of that, changes
// what it can, and the node has all of it again afterwards.
func TestNICComesHomeWithAllThatItHad(t *testing.T) {
	s := newScenario(t)
	fresh := s.node.snapshot(t)
	netdev := attribute(s.device("nic-0000-18-00-0"), "hostler.dev/ifName")
	s.onNode("ip link set NIC alias 'rack 7, port 3' txqueuelen 777 group 5 allmulticast on", netdev)
	s.onNode("ip address add 10.77.0.1/24 dev NIC && ip address add 2001:db8:77::1/64 dev NIC", netdev)
	s.onNode("ip route add 10.78.0.0/16 via 10.77.0.254 dev NIC metric 7 && ip route add 10.79.0.0/16 dev NIC table 99 src 10.77.0.1", netdev)
	s.onNode("ip neighbour add 10.77.0.9 lladdr 02:00:5e:10:00:09 dev NIC nud permanent", netdev)
	s.onNode("echo 1 > /proc/sys/net/ipv4/conf/NIC/arp_ignore && echo 99 > /proc/sys/net/ipv4/neigh/NIC/gc_stale_time && echo 0 > /proc/sys/net/ipv6/conf/NIC/accept_ra", netdev)
	t.Cleanup(func() {
		s.kubectl("delete", "pod", "guest", "--ignore-not-found")
		s.onNode("ip link set NIC alias '' txqueuelen 1000 group 0 allmulticast off && ip address flush dev NIC scope global && ip route flush table 99", netdev)
		s.onNode("ip neighbour del 10.77.0.9 dev NIC; echo 0 > /proc/sys/net/ipv4/conf/NIC/arp_ignore && echo 60 > /proc/sys/net/ipv4/neigh/NIC/gc_stale_time && echo 1 > /proc/sys/net/ipv6/conf/NIC/accept_ra", netdev)
		must(t, s.node.asBefore(fresh))
	})
	before := s.node.snapshot(t)

	selector := `device.attributes["hostler.dev"].ifName == "` + netdev + `"`
	s.apply(template("guest", requests(request("nic", anyNIC, selector))+config("nic", nicConfig("fabric0", "192.168.77.1/24", "mtu: 1400"))), pod("guest", "guest", ""))
	s.awaitReady("guest")
	if out := s.sh("guest", "ip address show dev fabric0; ip route; ip neigh"); strings.Contains(out, "10.77.") || strings.Contains(out, "2001:db8:77:") {
		t.Errorf("the pod sees what the NIC had on the node: %s", out)
	}
	s.kubectl("delete", "pod", "guest")
	s.eventually("the NIC is home as it was", func() error { return s.node.asBefore(before) })
}

// onNode runs a script in the node's network namespace; NIC stands for the netdev.
func (s *scenario) onNode(script, netdev string) {
	s.Helper()
	out, err := exec.Command("nsenter", "--net="+s.node.NetNS, "sh", "-c", strings.ReplaceAll(script, "NIC", netdev)).CombinedOutput()
	if err != nil {
		s.Fatalf("%s: %v: %s", script, err, out)
	}
}

func TestNICOfANetworkAttachmentDefinition(t *testing.T) {
	s := newScenario(t)
	s.installNetworkAttachmentDefinitions()
	s.apply(`apiVersion: k8s.cni.cncf.io/v1
kind: NetworkAttachmentDefinition
metadata: {name: storage}
spec:
  config: '{"cniVersion": "1.0.0", "name": "storage", "plugins": [{"type": "tuning", "mtu": 1420, "sysctl": {"net.ipv4.conf.IFNAME.arp_filter": "1"}}]}'`,
		template("storage", requests(request("nic", anyNIC))+config("nic", nicConfig("storage0", "192.168.78.1/24", "networks: [{name: storage}]"))),
		pod("storage", "storage", ""))
	s.awaitReady("storage")
	if mtu := s.sh("storage", "cat /sys/class/net/storage0/mtu"); mtu != "1420" {
		t.Errorf("the chain's tuning plugin left MTU %s, want 1420", mtu)
	}

	s.apply(template("nowhere", requests(request("nic", anyNIC))+config("nic", nicConfig("n0", "192.168.78.2/24", "networks: [{name: no-such-network}]"))),
		pod("nowhere", "nowhere", ""))
	s.eventually("the pod's events name the missing network", func() error { return s.eventsContain("nowhere", "no-such-network") })
}

func TestNodeUplinkIsNeverGiven(t *testing.T) {
	s := newScenario(t)
	uplinkName, uplink := s.node.profile(t).UplinkName(), ""
	for _, d := range s.devices() {
		if attribute(d, "hostler.dev/ifName") == uplinkName {
			uplink = d.Name
			if len(d.Taints) == 0 {
				t.Errorf("the uplink %s is published without a taint", d.Name)
			}
		}
	}
	if uplink == "" {
		t.Fatalf("the uplink %s is not published; it should be there, tainted, with the reason", uplinkName)
	}
	// Even a claim that tolerates the taint does not get it.
	s.apply(template("greedy", "requests:\n- name: nic\n  exactly:\n    deviceClassName: nic.hostler.dev\n    tolerations: [{operator: Exists}]\n"+
		"    selectors:\n    - cel: {expression: 'device.attributes[\"hostler.dev\"].ifName == \""+uplinkName+"\"'}\n"), pod("greedy", "greedy", ""))
	s.eventually("preparing the uplink is refused with the reason", func() error { return s.eventsContain("greedy", "default route") })
}

// networkAttachmentDefinitions is the CRD of the Network Plumbing Working
// Group's de-facto standard, cut to what the API server needs to store one.
const networkAttachmentDefinitions = `apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: network-attachment-definitions.k8s.cni.cncf.io}
spec:
  group: k8s.cni.cncf.io
  scope: Namespaced
  names: {plural: network-attachment-definitions, singular: network-attachment-definition, kind: NetworkAttachmentDefinition, shortNames: [net-attach-def]}
  versions:
  - name: v1
    served: true
    storage: true
    schema:
      openAPIV3Schema: {type: object, properties: {spec: {type: object, properties: {config: {type: string}}}}}
`

func (s *scenario) installNetworkAttachmentDefinitions() {
	s.Helper()
	s.apply(networkAttachmentDefinitions)
	s.kubectl("wait", "--for=condition=Established", "crd/network-attachment-definitions.k8s.cni.cncf.io", "--timeout=30s")
}
