package e2e

// NICs: two pods talk over the netdevs that they claimed, and the netdevs come
// home as they were. A NetworkAttachmentDefinition's chain runs on the device.

import (
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
