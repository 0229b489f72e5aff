package e2e

// Uplinks: what the node comes to live on while it runs is tainted within
// seconds, is not prepared even where it was allocated before, and is free again
// when the node lets go of it.

import (
	"fmt"
	"os/exec"
	"strings"
	"sync"
	"testing"
)

const uplinkTaint = "hostler.dev/uplink"

func TestNICBecomesAnUplink(t *testing.T) {
	s := newScenario(t)
	nic := "nic-0000-18-00-0"
	netdev := attribute(s.device(nic), "hostler.dev/ifName")
	for _, route := range []struct{ what, destination, reason string }{
		{"a default route that is only the second choice", "default", "carries-the-default-route"},
		{"a second route to the API server, of which only the cluster's EndpointSlice tells", apiServerNetwork(s), "to-the-API-server"},
	} {
		if taint := s.taintOf(nic, uplinkTaint); taint != nil {
			t.Fatalf("%s is tainted before: %v", nic, taint)
		}
		remove := s.addRoute(route.destination, netdev)
		s.soon("tainted for "+route.what, func() error {
			if taint := s.taintOf(nic, uplinkTaint); taint == nil || !strings.Contains(taint.Value, route.reason) {
				return fmt.Errorf("%s has the taint %v, want %s", nic, taint, route.reason)
			}
			return nil
		})
		remove()
		s.soon("free again without "+route.what, func() error { return s.tainted(nic, false) })
	}
}

// A pod whose volume is missing has its NIC allocated and not prepared: the kubelet
// mounts first. So the route comes between the two, every time.
func TestAllocatedNICBecomesAnUplink(t *testing.T) {
	s := newScenario(t)
	nic := "nic-0000-18-00-0"
	netdev := attribute(s.device(nic), "hostler.dev/ifName")
	selector := fmt.Sprintf(`device.attributes["hostler.dev"].ifName == %q`, netdev)
	s.apply(template("late", requests(request("nic", anyNIC, selector))), pod("late", "late", "")+
		"    volumeMounts: [{name: missing, mountPath: /missing}]\n  volumes: [{name: missing, configMap: {name: missing}}]\n")
	s.eventually("the NIC is allocated and the pod waits for its volume", func() error {
		if out, err := s.try("get", "resourceclaims", "-o", "jsonpath={.items[*].status.allocation.devices.results[*].device}"); err != nil || out != nic {
			return fmt.Errorf("allocated: %q %w", out, err)
		}
		return s.eventsContain("late", `configmap "missing" not found`)
	})
	remove := s.addRoute("default", netdev)
	s.kubectl("create", "configmap", "missing")
	s.eventually("preparing it is refused with the reason", func() error {
		return s.eventsContain("late", "it carries the default route 0.0.0.0/0 via "+netdev)
	})
	remove()
	s.soon("free again", func() error { return s.tainted(nic, false) })
	s.awaitReady("late")
}

// apiServerNetwork is the network between node and API server.
func apiServerNetwork(s *scenario) string {
	s.Helper()
	server := s.kubectl("get", "endpointslices", "-n", "default", "kubernetes", "-o", "jsonpath={.endpoints[0].addresses[0]}")
	octets := strings.Split(server, ".")
	return strings.Join(octets[:3], ".") + ".0/24"
}

// addRoute gives the node a second-choice route over the netdev; remove takes it
// back, at the end of the test at the latest.
func (s *scenario) addRoute(destination, netdev string) (remove func()) {
	s.Helper()
	s.route("add", destination, netdev)
	remove = sync.OnceFunc(func() { s.route("del", destination, netdev) })
	s.Cleanup(remove)
	return remove
}

func (s *scenario) route(verb, destination, netdev string) {
	s.Helper()
	out, err := exec.Command("nsenter", "--net="+s.node.NetNS, "ip", "route", verb, destination, "dev", netdev, "metric", "5000").CombinedOutput()
	if err != nil {
		s.Fatalf("ip route %s %s dev %s: %v: %s", verb, destination, netdev, err, out)
	}
}
