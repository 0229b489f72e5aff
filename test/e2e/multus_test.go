package e2e

// A real Multus of the cluster attaches the claimed device: it is the node's CNI
// network for the time of a test, delegates to the cluster's own, and finds the
// device as it does in production, by the kubelet's list of pods' resources.

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	resourceapi "k8s.io/api/resource/v1"
)

// withMultus makes Multus the node's network. It comes before the scenario, whose pods
// have to be gone when it ends. To the plugin host-device the node shows no PCI bus but
// the machine's own; the simulated NICs' netdevs are shown to it in its place.
func withMultus(t *testing.T, b *bed) {
	t.Helper()
	bus := filepath.Join(b.Root, "run/e2e-pci")
	for _, port := range b.profile(t).Ports(b.index) {
		must(t, os.MkdirAll(filepath.Join(bus, port.PCI, "net", port.Name), 0o755))
		must(t, os.MkdirAll(filepath.Join(bus, port.PCI, "driver"), 0o755))
	}
	b.inside(t, "", "mount --bind /run/e2e-pci /sys/bus/pci/devices")
	t.Cleanup(func() {
		b.inside(t, "", "umount /sys/bus/pci/devices")
		must(t, os.RemoveAll(bus))
	})
	conf, err := json.Marshal(map[string]any{
		"cniVersion": "1.0.0", "name": "multus", "type": "multus", "kubeconfig": testbed.Kubeconfig(),
		"clusterNetwork": "/etc/cni/net.d/10-pods.conflist", "logLevel": "verbose", "logFile": "/var/log/multus.log",
	})
	must(t, err)
	// The runtime watches the folder, and the first file in it is the network of new pods.
	b.inside(t, string(conf), "cat > /etc/cni/net.d/00-multus.conf")
	t.Cleanup(func() {
		b.inside(t, "", "rm /etc/cni/net.d/00-multus.conf")
		if t.Failed() {
			log, err := os.ReadFile(filepath.Join(b.Root, "log/multus.log"))
			t.Logf("Multus says (%v):\n%s", err, log[max(0, len(log)-8000):])
		}
	})
}

// inside runs a script where the node's own programs run.
func (b *bed) inside(t *testing.T, stdin, script string) {
	t.Helper()
	cmd := exec.Command("nsenter", "--target", strconv.Itoa(b.PID), "--mount", "--net", "--", "sh", "-c", script)
	cmd.Stdin = strings.NewReader(stdin)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", script, err, out)
	}
}

// multusPod names its networks to Multus; the claim is used by its name.
func multusPod(name, claims, networks string) string {
	return strings.Replace(podWith(name, claims, ""), "metadata: {name: "+name+"}", "metadata: {name: "+name+", annotations: {k8s.v1.cni.cncf.io/networks: "+networks+"}}", 1)
}

const toMultus = "apiVersion: hostler.dev/v1alpha1\nkind: NICConfig\nattach: Multus\nrdma: None\n"

func TestMultusAttachesTheClaimedDevice(t *testing.T) {
	withMultus(t, &node1)
	s := newScenario(t)
	s.installNetworkAttachmentDefinitions()
	s.apply(
		definition("rail", `{"type": "host-device", "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.80.0.0/24"}]]}}, {"type": "tuning", "mtu": 1440}`, "k8s.v1.cni.cncf.io/resourceName: rail0"),
		claim("rail0", requests(request("nic", anyNIC))+config("nic", toMultus)),
		multusPod("by-name", "resourceClaimName: rail0", "rail"))
	s.awaitReady("by-name")

	var claimed struct {
		Status struct {
			Allocation struct {
				Devices struct{ Results []struct{ Device string } }
			}
		}
	}
	s.getJSON(&claimed, "resourceclaim", "rail0")
	device := s.device(claimed.Status.Allocation.Devices.Results[0].Device)
	if mac := s.sh("by-name", "cat /sys/class/net/net1/address"); mac != attribute(device, "hostler.dev/mac") {
		t.Errorf("net1 in the pod has address %s, want the claimed NIC's %s", mac, attribute(device, "hostler.dev/mac"))
	}
	if got := s.sh("by-name", "cat /sys/class/net/net1/mtu; ip -o -4 addr show net1"); !strings.HasPrefix(got, "1440") || !strings.Contains(got, "10.80.0.") {
		t.Errorf("net1 in the pod: %q", got)
	}
	content, err := s.told("by-name", "main", "resourceclaims/rail0", "nic")
	must(t, err)
	if data := content.Requests[0].Devices[0].NetworkData; data == nil || data.InterfaceName != "net1" || len(data.IPs) != 1 || !strings.HasPrefix(data.IPs[0], "10.80.0.") {
		t.Errorf("the workload is told %+v, want the interface as Multus made it", data)
	}
	// The claim's status says it too, for those who have no pod to look into.
	s.eventually("the claim's status to have networkData", func() error {
		var c resourceapi.ResourceClaim
		s.getJSON(&c, "resourceclaim", "rail0")
		if len(c.Status.Devices) != 1 || c.Status.Devices[0].NetworkData == nil {
			return fmt.Errorf("status.devices is %+v", c.Status.Devices)
		}
		data := c.Status.Devices[0].NetworkData
		if data.InterfaceName != "net1" || data.HardwareAddress != attribute(device, "hostler.dev/mac") || len(data.IPs) != 1 || !strings.HasPrefix(data.IPs[0], "10.80.0.") || !strings.HasSuffix(data.IPs[0], "/24") {
			return fmt.Errorf("networkData is %+v", *data)
		}
		return nil
	})
	pci := attribute(device, "k8s.cni.cncf.io/deviceID")
	if status := s.kubectl("get", "pod", "by-name", "-o", `jsonpath={.metadata.annotations.k8s\.v1\.cni\.cncf\.io/network-status}`); !strings.Contains(status, `"pci-address": "`+pci+`"`) {
		t.Errorf("Multus's status of the pod has not the device info of %s:\n%s", pci, status)
	}

	// The agent restarts while the pod runs, and the pod's container while the agent is new.
	s.killAgent()
	s.awaitAgent()
	s.kubectl("delete", "pod", "by-name")
	if left, err := filepath.Glob(filepath.Join(s.node.Root, "run/k8s.cni.cncf.io/devinfo/dp/*")); err != nil || len(left) > 1 {
		t.Errorf("device-info files: %v, %v", left, err)
	}
	s.kubectl("delete", "resourceclaim", "rail0")
}

func TestScopeHoldsOnWhatMultusAttached(t *testing.T) {
	withMultus(t, &node1)
	s := newScenario(t)
	s.installNetworkAttachmentDefinitions()
	s.apply(
		definition("open", `{"type": "host-device", "ipam": {"type": "static", "addresses": [{"address": "10.81.0.1/24"}]}}`, "k8s.v1.cni.cncf.io/resourceName: open0"),
		claim("open0", requests(request("nic", anyNIC))+config("nic", toMultus)),
		template("scope", requests(request("egress", "egress.hostler.dev"))),
		strings.Replace(strings.Replace(multusPod("scoped", "resourceClaimName: open0", "open"),
			"resourceClaims: [", "resourceClaims: [{name: scope, resourceClaimTemplateName: scope}, ", 1), "claims: [", "claims: [{name: scope}, ", 1))
	s.awaitReady("scoped")
	if out, err := s.trySh("scoped", "ping -c 1 -W 1 -I net1 10.81.0.2"); err == nil || !strings.Contains(out, "not permitted") {
		t.Errorf("the pod's scope does not hold on net1: %v: %s", err, out)
	}
	s.kubectl("delete", "pod", "scoped")
	s.kubectl("delete", "resourceclaim", "open0")
}

// What Multus does not bring, no container starts without, and the events say what to do.
func TestWhatMultusCannotAttachIsRefused(t *testing.T) {
	withMultus(t, &node1)
	s := newScenario(t)
	s.installNetworkAttachmentDefinitions()
	s.apply(definition("nameless", `{"type": "host-device"}`))
	for name, test := range map[string]struct{ claim, pod, want string }{
		"a pod that names no network": {claim("unnamed", requests(request("nic", anyNIC))+config("nic", toMultus)),
			podWith("unnamed", "resourceClaimName: unnamed", ""), "k8s.v1.cni.cncf.io/networks"},
		"a claim from a template and a device without a resource name": {template("templated", requests(request("nic", anyNIC))+config("nic", toMultus)),
			pod("templated", "templated", ""), "publish.multusResourceNames"},
		"two devices in a claim by its name": {claim("two", requests(request("nic", anyNIC), request("other", anyNIC))+config("nic", toMultus)),
			podWith("two", "resourceClaimName: two", ""), "a claim of its own"},
	} {
		t.Run(name, func(t *testing.T) {
			s.apply(test.claim, test.pod)
			pod := strings.Fields(test.pod[strings.Index(test.pod, "{name: ")+7:])[0]
			pod = strings.TrimRight(pod, "},")
			s.eventually("the pod's events say what to do", func() error { return s.eventsContain(pod, test.want) })
			if phase := s.kubectl("get", "pod", pod, "-o", "jsonpath={.status.phase}"); phase != "Pending" {
				t.Errorf("the pod is %s", phase)
			}
			s.kubectl("delete", "pod", pod, "--wait=true")
		})
	}
}
