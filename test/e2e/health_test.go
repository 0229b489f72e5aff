package e2e

// Faults: an XID taints the one device, the scheduler avoids it, the pod that
// holds it is told, and recovery takes everything back.

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
)

func TestXID79(t *testing.T) {
	s := newScenario(t)
	s.apply(template("one-gpu", requests(request("gpu", oneGPU))), pod("victim", "one-gpu", ""))
	s.awaitReady("victim")
	broken := s.claimOf("victim").Status.Allocation.Devices.Results[0].Device
	gpu := s.node.gpu(t, broken)
	t.Cleanup(func() { s.heal(gpu.Index) })

	injected := time.Now()
	must(t, s.node.nvml().InjectXID(gpu.Index, 79, nil, nil))
	must(t, s.node.nvml().SetLost(gpu.Index, true))
	s.eventually("the slice taints the device", func() error { return s.tainted(broken, true) })
	t.Logf("taint seen %s after the event", time.Since(injected).Round(time.Millisecond))
	s.eventually("the pod's status says that its device is unhealthy", func() error { return s.allocatedHealth("victim", "Unhealthy") })
	s.eventually("the node has an event that names the device", func() error {
		out, err := s.try("get", "events", "-A", "--field-selector", "involvedObject.kind=Node", "-o", "jsonpath={.items[*].message}")
		if err == nil && !strings.Contains(out, broken) {
			err = fmt.Errorf("node events: %s", out)
		}
		return err
	})

	s.apply(template("seven", "requests:\n- name: gpus\n  exactly: {deviceClassName: gpu.hostler.dev, count: 7}\n"), pod("seven", "seven", ""))
	s.awaitReady("seven")
	for _, result := range s.claimOf("seven").Status.Allocation.Devices.Results {
		if result.Device == broken {
			t.Errorf("a new pod got the broken %s", broken)
		}
	}
	if node := s.nodeTaint(); node != "" {
		t.Errorf("one broken GPU must not taint the node: %s", node)
	}

	s.kubectl("delete", "pod", "victim")
	s.apply(pod("waiting", "one-gpu", ""))
	s.eventually("no healthy GPU is left, so a new pod waits", func() error { return s.unschedulable("waiting", "cannot allocate all claims") })
	s.heal(gpu.Index)
	s.eventually("recovery lifts the taint", func() error { return s.tainted(broken, false) })
	s.awaitReady("waiting")
}

func TestDeadDriverTaintsTheNode(t *testing.T) {
	s := newScenario(t)
	t.Cleanup(func() { must(t, s.node.nvml().ReviveDriver()) })
	must(t, s.node.nvml().KillDriver())
	s.eventually("the node is tainted while no accelerator answers", func() error {
		if s.nodeTaint() == "" {
			return fmt.Errorf("no taint on the node")
		}
		return nil
	})
	s.eventually("its GPUs are tainted, for pods that tolerate the node's taint", func() error { return s.driverTaints(8) })
	// A taint kept only in memory would be gone now.
	s.killAgent()
	s.eventually("the restarted agent still holds the taint", func() error {
		if ready, _ := s.try("-n", agentNamespace, "get", s.agent(), "-o", "jsonpath={.status.containerStatuses[0].restartCount}"); ready == "0" {
			return fmt.Errorf("the agent has not restarted yet")
		}
		if s.nodeTaint() == "" {
			return fmt.Errorf("no taint on the node")
		}
		return s.driverTaints(8)
	})
	must(t, s.node.nvml().ReviveDriver())
	// The agent has started without a driver: it learns all about the GPUs only now.
	s.soon("a driver that comes late is noticed", func() error {
		for _, d := range s.devices() {
			if attribute(d, "hostler.dev/type") == "gpu" && attribute(d, "hostler.dev/uuid") == "" {
				return fmt.Errorf("nothing is known of %s yet", d.Name)
			}
		}
		return s.driverTaints(0)
	})
	s.eventually("recovery lifts the node's taint", func() error {
		if taint := s.nodeTaint(); taint != "" {
			return fmt.Errorf("still tainted: %s", taint)
		}
		return nil
	})
}

// driverTaints is nil if so many of the published GPUs carry the dead driver's taint.
func (s *scenario) driverTaints(want int) error {
	tainted := 0
	for _, device := range s.devices() {
		for _, taint := range device.Taints {
			if taint.Key == "hostler.dev/driver" && taint.Effect == resourceapi.DeviceTaintEffectNoSchedule {
				tainted++
			}
		}
	}
	if tainted != want {
		return fmt.Errorf("%d GPUs have the taint hostler.dev/driver, want %d", tainted, want)
	}
	return nil
}

func (s *scenario) heal(gpu int) {
	s.Helper()
	must(s.T, s.node.nvml().SetLost(gpu, false))
}

// tainted is nil if the device carries a NoSchedule taint of ours exactly when want says so.
func (s *scenario) tainted(device string, want bool) error {
	devices := s.devices()
	i := slices.IndexFunc(devices, func(d resourceapi.Device) bool { return d.Name == device })
	if i < 0 { // a slice of it is being replaced
		return fmt.Errorf("no slice holds device %s", device)
	}
	var taints []string
	for _, taint := range devices[i].Taints {
		taints = append(taints, fmt.Sprintf("%s=%s:%s", taint.Key, taint.Value, taint.Effect))
	}
	if (len(taints) > 0) != want {
		return fmt.Errorf("device %s has taints %v", device, taints)
	}
	return nil
}

// allocatedHealth is nil once the pod's status reports that health for a claimed device (KEP-4680).
func (s *scenario) allocatedHealth(pod, want string) error {
	out, err := s.try("get", "pod", pod, "-o", "json")
	if err != nil {
		return err
	}
	var p corev1.Pod
	if err := json.Unmarshal([]byte(out), &p); err != nil {
		return err
	}
	for _, container := range p.Status.ContainerStatuses {
		for _, resource := range container.AllocatedResourcesStatus {
			for _, device := range resource.Resources {
				if string(device.Health) == want {
					return nil
				}
			}
		}
	}
	return fmt.Errorf("status of pod %s names no device as %s: %+v", pod, want, p.Status.ContainerStatuses)
}

// nodeTaint returns our taint on the node as key=value:effect, "" if there is none.
func (s *scenario) nodeTaint() string {
	s.Helper()
	return s.kubectl("get", "node", s.node.Name, "-o", `jsonpath={.spec.taints[?(@.key=="hostler.dev/accelerators-unavailable")]}`)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
