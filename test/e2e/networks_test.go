package e2e

// Networks that the agent attaches itself, with the project's own CNI plugins: chains
// upon the claimed device and chains that make an interface, with IPAM, and what of
// them is left when plugins fail, are slow, or the agent is killed in between. That
// nothing is left at the end, the scenario's own clean-up checks: leases, libcni's
// cache, netdevs.

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// definition is a NetworkAttachmentDefinition with the chain.
func definition(name, plugins string, annotations ...string) string {
	return fmt.Sprintf("apiVersion: k8s.cni.cncf.io/v1\nkind: NetworkAttachmentDefinition\nmetadata: {name: %s, annotations: {%s}}\nspec:\n  config: |\n    {\"cniVersion\": \"1.0.0\", \"name\": %q, \"plugins\": [%s]}\n",
		name, strings.Join(annotations, ", "), name, plugins)
}

// scripted puts a CNI plugin on the node that does on ADD what the script says. It comes
// before the scenario, whose pods need it to their end.
func (b *bed) scripted(t *testing.T, name, onAdd string) {
	t.Helper()
	busybox, err := exec.LookPath("busybox")
	must(t, err)
	content, err := os.ReadFile(busybox)
	must(t, err)
	bin := filepath.Join(b.Root, "opt/cni/bin")
	// The agent's image has no shell.
	must(t, os.WriteFile(filepath.Join(bin, "busybox"), content, 0o755))
	must(t, os.WriteFile(filepath.Join(bin, name), []byte("#!/opt/cni/bin/busybox sh\nif [ \"$CNI_COMMAND\" = ADD ]; then\n"+onAdd+"\nfi\n"), 0o755))
	t.Cleanup(func() {
		must(t, os.Remove(filepath.Join(bin, name)))
		must(t, os.Remove(filepath.Join(bin, "busybox")))
	})
}

// leasesOf are the addresses that host-local has given away in the network.
func (b *bed) leasesOf(t *testing.T, network string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(b.Root, "lib/cni/networks", network, "[0-9]*"))
	must(t, err)
	return files
}

// applyNICClass makes a DeviceClass of NICs with a config, for the time of the test.
func (s *scenario) applyNICClass(name, parameters string) {
	s.Helper()
	s.Cleanup(func() {
		if _, err := command(context.WithoutCancel(s.ctx), "", "kubectl", "delete", "--ignore-not-found", "deviceclass", name); err != nil {
			s.Error(err)
		}
	})
	s.apply(fmt.Sprintf(`apiVersion: resource.k8s.io/v1
kind: DeviceClass
metadata: {name: %s}
spec:
  selectors:
  - cel: {expression: 'device.driver == "hostler.dev" && device.attributes["hostler.dev"].type == "nic"'}
  config:
  - opaque:
      driver: hostler.dev
      parameters:
%s`, name, indent(parameters, 8)))
}

// Three networks for one device: one upon it, one on top of it in the pod, and one that
// has nothing to do with it. Two pods talk over what the second made.
func TestSeveralNetworksOfOneDevice(t *testing.T) {
	s := newScenario(t)
	s.installNetworkAttachmentDefinitions()
	const bridge = "e2e-chain0"
	s.apply(
		definition("tuned", `{"type": "tuning", "mtu": 1420, "sysctl": {"net.ipv4.conf.IFNAME.arp_filter": "1"}}`),
		definition("above", `{"type": "macvlan", "master": "fabric0", "linkInContainer": true, "mode": "bridge", "capabilities": {"ips": true, "mac": true}, "ipam": {"type": "static"}}, {"type": "tuning", "sysctl": {"net.ipv4.conf.IFNAME.arp_announce": "2"}}`),
		definition("apart", `{"type": "bridge", "bridge": "`+bridge+`", "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.77.0.0/24"}]]}}`),
	)
	for i, name := range []string{"left", "right"} {
		// Only a class chooses a network's hardware address.
		class := "e2e-networks-" + name
		s.applyNICClass(class, nicConfig("fabric0", fmt.Sprintf("10.75.0.%d/24", i+1), "networks:", "- {name: tuned}",
			fmt.Sprintf("- {name: above, interfaceName: mv0, ips: [10.76.0.%d/24], mac: \"02:00:5e:10:00:0%d\", defaultRoute: [10.76.0.254]}", i+1, i+1),
			"- {name: apart, interfaceName: net9}"))
		s.apply(template(name, requests(request("nic", class))), pod(name, name, ""))
	}
	s.awaitReady("left", "right")

	if mtu := s.sh("left", "cat /sys/class/net/fabric0/mtu"); mtu != "1420" {
		t.Errorf("the device's MTU in the pod is %s, want the tuning plugin's 1420", mtu)
	}
	if got := s.sh("left", "cat /sys/class/net/mv0/address /proc/sys/net/ipv4/conf/mv0/arp_announce"); got != "02:00:5e:10:00:01\n2" {
		t.Errorf("the macvlan's address and arp_announce are %q", got)
	}
	if out := s.sh("left", "ping -c 3 -W 2 -I mv0 10.76.0.2"); !strings.Contains(out, " 0% packet loss") {
		t.Errorf("ping over the networks' interfaces: %s", out)
	}
	if got := s.sh("left", "ip -4 route show default"); !strings.HasPrefix(got, "default via 10.76.0.254 dev mv0") || strings.Contains(got, "eth0") {
		t.Errorf("the pod's default route is %q, want that of the network that is to have it, alone", got)
	}
	if got := s.sh("left", "ip -o -4 addr show net9"); !strings.Contains(got, "10.77.0.") {
		t.Errorf("the bridge's interface has %q", got)
	}
	if got := s.node.leasesOf(t, "apart"); len(got) != 2 {
		t.Errorf("leases of the bridge's network: %v, want two", got)
	}

	s.pluginsSayWhatChanged("left", "right")

	s.kubectl("delete", "pod", "left", "right")
	// A bridge outlives its last port, as it does where the plugin is run by a runtime.
	s.onNode("ip link del NIC", bridge)
}

// pluginsSayWhatChanged takes the first pod's lease away while the agent is. The next one
// asks all plugins, of which one finds fault with one pod, and leaves both pods alone.
func (s *scenario) pluginsSayWhatChanged(troubled, other string) {
	s.Helper()
	address := strings.TrimSpace(s.sh(troubled, "ip -o -4 addr show net9 | sed 's/.*inet \\([0-9.]*\\).*/\\1/'"))
	s.killAgent()
	must(s.T, os.Remove(filepath.Join(s.node.Root, "lib/cni/networks/apart", address)))
	s.awaitAgent()
	attached := func(pod string) string {
		return s.kubectl("get", "resourceclaims", "-o", `jsonpath={range .items[?(@.metadata.ownerReferences[0].name=="`+pod+`")]}{.status.devices[0].conditions[?(@.type=="Attached")]}{end}`)
	}
	s.eventually("the claim's status has the plugin's words", func() error {
		if got := attached(troubled); !strings.Contains(got, "CheckFailed") || !strings.Contains(got, "host-local") || strings.Contains(got, ";") {
			return fmt.Errorf("%s, want CheckFailed with what host-local finds and nothing else", got)
		}
		return s.eventsContain(troubled, "NetworkCheckFailed")
	})
	if got := attached(other); !strings.Contains(got, `"True"`) {
		s.Errorf("of the other pod's claim the plugins say %s", got)
	}
	s.awaitReady(troubled, other)
}

// The chain's first plugin takes the device from the node itself, by its PCI address.
func TestNetworkThatTakesTheDeviceItself(t *testing.T) {
	s := newScenario(t)
	s.installNetworkAttachmentDefinitions()
	s.apply(
		definition("whole", `{"type": "host-device", "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.78.0.0/24"}]]}, "dns": {"nameservers": ["192.0.2.53"]}}, {"type": "tuning", "mtu": 1430}`),
		template("whole", requests(request("nic", anyNIC), request("egress", "egress.hostler.dev"))+
			"config:\n- requests: [nic]\n  opaque: {driver: hostler.dev, parameters: {apiVersion: hostler.dev/v1alpha1, kind: NICConfig, interfaceName: data0, rdma: None, networks: [{name: whole}]}}\n"),
		pod("whole", "whole", ""))
	s.awaitReady("whole")
	if got := s.sh("whole", "cat /sys/class/net/data0/mtu; ip -o -4 addr show data0"); !strings.HasPrefix(got, "1430") || !strings.Contains(got, "10.78.0.") {
		t.Errorf("the device in the pod: %q", got)
	}
	content, err := s.told("whole", "main", "resourceclaimtemplates/claim", "nic")
	must(t, err)
	if data := content.Requests[0].Devices[0].NetworkData; data == nil || data.InterfaceName != "data0" || len(data.IPs) != 1 || !strings.HasPrefix(data.IPs[0], "10.78.0.") {
		t.Errorf("the workload is told %+v, want the interface with the address that IPAM gave", data)
	}
	if out, err := s.trySh("whole", "ping -c 1 -W 1 10.78.0.99"); err == nil {
		t.Errorf("the scope does not hold on a device that a chain brought: %s", out)
	}

	// Killed between ADD and DEL, the agent knows from its records and libcni's cache.
	s.killAgent()
	s.kubectl("delete", "pod", "whole")
	s.awaitAgent()
}

func TestNetworkWhoseSecondPluginFails(t *testing.T) {
	node1.scripted(t, "e2e-refuses", `echo '{"cniVersion": "1.0.0", "code": 100, "msg": "no luck today"}'; exit 1`)
	s := newScenario(t)
	s.installNetworkAttachmentDefinitions()
	s.apply(
		definition("half", `{"type": "macvlan", "master": "fabric0", "linkInContainer": true, "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.79.0.0/24"}]]}}, {"type": "e2e-refuses"}`),
		template("half", requests(request("nic", anyNIC))+config("nic", nicConfig("fabric0", "10.75.1.1/24", "networks: [{name: half, interfaceName: mv0}]"))),
		pod("half", "half", ""))
	s.eventually("the pod's events say which network failed and why", func() error { return s.eventsContain("half", "no luck today") })
	s.eventually("what the first plugin did is undone", func() error {
		if left := s.node.leasesOf(t, "half"); len(left) > 1 { // of an attempt that is under way
			return fmt.Errorf("leases %v", left)
		}
		return nil
	})
	if phase := s.kubectl("get", "pod", "half", "-o", "jsonpath={.status.phase}"); phase != "Pending" {
		t.Errorf("the pod is %s without its network", phase)
	}
}

// A plugin may take longer than the runtime waits for hooks. Then the sandbox starts, and
// the container waits until its network is there.
func TestNetworkThatIsSlow(t *testing.T) {
	node1.scripted(t, "e2e-sleeps", `sleep 3; echo '{"cniVersion": "1.0.0"}'`)
	s := newScenario(t)
	s.installNetworkAttachmentDefinitions()
	s.apply(
		definition("slow", `{"type": "tuning", "mtu": 1410}, {"type": "e2e-sleeps"}`),
		template("slow", requests(request("nic", anyNIC))+config("nic", nicConfig("fabric0", "10.75.2.1/24", "networks: [{name: slow}]"))),
		pod("slow", "slow", ""))
	s.awaitReady("slow")
	if mtu := s.sh("slow", "cat /sys/class/net/fabric0/mtu"); mtu != "1410" {
		t.Errorf("the device's MTU in the pod is %s, want 1410", mtu)
	}
	if events := s.events("slow"); strings.Contains(events, "FailedCreatePodSandBox") {
		t.Errorf("the sandbox was given up for a network that was only slow:\n%s", events)
	}
}
