package e2e

// Many pods and few NICs, with an agent that dies and a runtime that dies while
// netdevs are on their way into pods and home. Each pod checks that it has the interfaces
// that it asked for and no others; and after the last one the node's network is what it was.

import (
	"fmt"
	"testing"
)

// eightNICs are those of one speed, among which the node's uplink is not.
const eightNICs = `device.attributes["hostler.dev"].linkSpeed == 400000`

// hasInterfaces is for a pod with these besides lo and its own network's eth0.
func hasInterfaces(names string) string {
	return fmt.Sprintf(`[ "$(cd /sys/class/net && echo *)" = "eth0 %s lo" ]`, names)
}

func nicKinds() []churning {
	kind := func(name string, share int, script string) churning {
		return churning{name, share, func(kind, name string, _ int) string {
			return brief(name, "resourceClaimTemplateName: "+kind, false, briefly("main", script, useClaim))
		}}
	}
	return []churning{
		kind("netdev", 52, hasInterfaces("fabric0")+" && ip route show dev fabric0 | grep 10.9.0.0/16"),
		kind("pair", 24, hasInterfaces("fabric0 fabric1")),
		kind("chain", 24, hasInterfaces("fabric0")+` && [ "$(cat /sys/class/net/fabric0/mtu)" = 1400 ]`),
	}
}

func TestManyPodsThroughEightNICs(t *testing.T) {
	s := newScenario(t)
	pods := churnPods(t, 2*churnUnit)
	s.installNetworkAttachmentDefinitions()
	before := s.node.snapshot(t)
	s.apply(`apiVersion: k8s.cni.cncf.io/v1
kind: NetworkAttachmentDefinition
metadata: {name: tuned}
spec:
  config: '{"cniVersion": "1.0.0", "name": "tuned", "plugins": [{"type": "tuning", "mtu": 1400}]}'`,
		template("netdev", requests(request("nic", anyNIC, eightNICs))+config("nic", nicConfig("fabric0", "10.1.0.5/24", "routes: [{destination: 10.9.0.0/16, gateway: 10.1.0.1}]"))),
		template("pair", requests(request("one", anyNIC, eightNICs), request("two", anyNIC, eightNICs))+
			config("one", nicConfig("fabric0", "10.1.0.5/24"))+config("two", nicConfig("fabric1", "10.2.0.5/24"))[len("config:\n"):]),
		template("chain", requests(request("nic", anyNIC, eightNICs))+config("nic", nicConfig("fabric0", "10.1.0.5/24", "networks: [{name: tuned}]"))))

	s.churn("rough", pods, nicKinds(), before, map[int]func(){
		pods * 1 / 8: s.killAgent, pods * 5 / 8: s.killAgent,
		pods * 3 / 8: func() { must(t, testbed.RestartRuntime(s.ctx, s.node.Name)) },
	})
	s.awaitAgent()
}
