package e2e

// What became of a claim's devices, as whoever owns the claim sees it: prepared, in
// the pod, under which name and addresses; or why not; and nothing once it is over.

import (
	"bufio"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"

	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestStatusTellsWhatBecameOfDevices(t *testing.T) {
	s := newScenario(t)
	before := s.statusWrites()
	s.apply(claim("all", requests(request("gpu", oneGPU), request("nic", anyNIC), request("egress", "egress.hostler.dev"))+
		"config:\n- requests: [nic]\n  opaque: {driver: hostler.dev, parameters: {apiVersion: hostler.dev/v1alpha1, kind: NICConfig, interfaceName: fabric0, addresses: [192.168.80.1/24], rdma: None}}\n"+
		"- requests: [egress]\n  opaque: {driver: hostler.dev, parameters: {apiVersion: hostler.dev/v1alpha1, kind: EgressConfig}}\n"),
		podWith("user", "resourceClaimName: all", ""))
	s.awaitReady("user")
	s.eventually("the status says all of the devices", func() error {
		for request, conditions := range map[string][]string{"gpu": {"Ready"}, "nic": {"Ready", "Attached"}, "egress": {"Ready", "EgressEnforced"}} {
			device, err := s.statusOf("all", request)
			if err != nil {
				return err
			}
			for _, kind := range conditions {
				if !meta.IsStatusConditionTrue(device.Conditions, kind) {
					return fmt.Errorf("%s: %s is not true in %+v", request, kind, device.Conditions)
				}
			}
		}
		return nil
	})
	nic, err := s.statusOf("all", "nic")
	must(t, err)
	// One, unless the pod's sandbox took so long that it was said meanwhile that there is none.
	s.eventually("the writes are counted", func() error {
		writes := s.statusWrites() - before
		if writes == 0 {
			return errors.New("none")
		}
		if t.Logf("%d writes of the claim's status for the pod's start", writes); writes > 2 {
			t.Errorf("%d writes of the claim's status for the pod's start", writes)
		}
		return nil
	})
	mac := s.sh("user", "cat /sys/class/net/fabric0/address")
	if n := nic.NetworkData; n == nil || n.InterfaceName != "fabric0" || n.HardwareAddress != mac || len(n.IPs) != 1 || n.IPs[0] != "192.168.80.1/24" {
		t.Errorf("the status says %+v of the NIC, want fabric0, %s and 192.168.80.1/24", n, mac)
	}
	var c resourceapi.ResourceClaim
	s.getJSON(&c, "resourceclaim", "all", "--show-managed-fields")
	managers := 0
	for _, entry := range c.ManagedFields {
		if strings.HasPrefix(entry.Manager, "hostler.dev/") {
			managers++
			if entry.Manager != "hostler.dev/"+s.node.Name || entry.Operation != metav1.ManagedFieldsOperationApply || entry.Subresource != "status" {
				t.Errorf("the agent wrote as %s, %s, %s", entry.Manager, entry.Operation, entry.Subresource)
			}
		}
	}
	if managers != 1 {
		t.Errorf("%d field managers of the agent, want 1", managers)
	}
	s.kubectl("delete", "pod", "user")
	s.eventually("nothing is said of the devices of a claim that nobody uses", func() error {
		var c resourceapi.ResourceClaim
		s.getJSON(&c, "resourceclaim", "all")
		if len(c.Status.Devices) > 0 {
			return fmt.Errorf("%+v", c.Status.Devices)
		}
		return nil
	})
}

func TestStatusTellsWhyNot(t *testing.T) {
	s := newScenario(t)
	s.installNetworkAttachmentDefinitions()
	s.apply(claim("nowhere", requests(request("nic", anyNIC))+config("nic", nicConfig("n0", "192.168.81.1/24", "networks: [{name: no-such-network}]"))),
		podWith("nowhere", "resourceClaimName: nowhere", ""),
		claim("host", requests(request("nic", anyNIC))),
		strings.Replace(podWith("host", "resourceClaimName: host", ""), "spec:\n", "spec:\n  hostNetwork: true\n", 1))
	for _, refused := range []struct{ claim, kind, reason, words string }{
		{"nowhere", "Ready", "PrepareFailed", "no-such-network"},
		{"host", "Attached", "AttachFailed", "uses the host's network"},
	} {
		s.eventually("the status of claim "+refused.claim+" says why", func() error {
			device, err := s.statusOf(refused.claim, "nic")
			if err != nil {
				return err
			}
			c := meta.FindStatusCondition(device.Conditions, refused.kind)
			if c == nil || c.Status != metav1.ConditionFalse || c.Reason != refused.reason || !strings.Contains(c.Message, refused.words) {
				return fmt.Errorf("%+v", device.Conditions)
			}
			return nil
		})
	}
	s.eventually("the pod's events say so, too", func() error { return s.eventsContain("host", "uses the host's network") })
	if phase := s.kubectl("get", "pod", "host", "-o", "jsonpath={.status.phase}"); phase != "Pending" {
		t.Errorf("a pod on the host's network with a NIC is %s", phase)
	}
}

// statusWrites is how often the node's agent has written a claim's status, by its metrics.
func (s *scenario) statusWrites() (count int) {
	s.Helper()
	page := "http://" + s.kubectl("-n", agentNamespace, "get", s.agent(), "-o", `jsonpath={.status.podIP}:{.metadata.annotations.prometheus\.io/port}`) + "/metrics"
	response, err := http.Get(page)
	must(s.T, err)
	defer response.Body.Close()
	lines := bufio.NewScanner(response.Body)
	for lines.Scan() {
		if name, value, _ := strings.Cut(lines.Text(), " "); strings.HasPrefix(name, "hostler_claim_step_duration_seconds_count{") && strings.Contains(name, `step="status"`) {
			n, err := strconv.Atoi(value)
			must(s.T, err)
			count += n
		}
	}
	must(s.T, lines.Err())
	return count
}

// statusOf is what the claim's status says of the device that the request got.
func (s *scenario) statusOf(name, request string) (resourceapi.AllocatedDeviceStatus, error) {
	s.Helper()
	var c resourceapi.ResourceClaim
	s.getJSON(&c, "resourceclaim", name)
	if c.Status.Allocation == nil {
		return resourceapi.AllocatedDeviceStatus{}, fmt.Errorf("claim %s is not allocated", name)
	}
	for _, result := range c.Status.Allocation.Devices.Results {
		for _, device := range c.Status.Devices {
			if result.Request == request && device.Driver == result.Driver && device.Pool == result.Pool && device.Device == result.Device {
				return device, nil
			}
		}
	}
	return resourceapi.AllocatedDeviceStatus{}, fmt.Errorf("claim %s says nothing of request %s: %+v", name, request, c.Status.Devices)
}
