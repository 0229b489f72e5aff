package attach

import (
	"context"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/hostler-dev/hostler/api/v1alpha1"
	"github.com/hostler-dev/hostler/netattach/internal/nettest"
)

// multusBrings does to rail0 what host-device does on ADD; home what it does on DEL.
func (n *node) multusBrings(t *testing.T) {
	t.Helper()
	n.watched = true // the device leaves the host by another hand
	carry(t, n.host, "rail0", n.pod, "net1")
	n.pod.Up(t, "net1", "10.1.0.5/24")
}

func (n *node) multusTakes(t *testing.T) {
	t.Helper()
	carry(t, n.pod, "net1", n.host, "rail0")
}

func carry(t *testing.T, from *nettest.Namespace, name string, to *nettest.Namespace, target string) {
	t.Helper()
	link := from.Link(t, name)
	for _, err := range []error{from.Handle.LinkSetDown(link), from.Handle.LinkSetNsFd(link, to.FD)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	moved := to.Link(t, name)
	if err := to.Handle.LinkSetName(moved, target); err != nil {
		t.Fatal(err)
	}
}

// external claims rail0 for Multus, as it is on the host at prepare.
func (n *node) external(t *testing.T, scope *v1alpha1.EgressConfig) {
	t.Helper()
	n.host.Up(t, "rail0", "192.0.2.7/24")
	device := n.device(t, "rail0", "", "10.9.9.9/24")
	device.Addresses, device.External, device.ResourceName, device.PCI = nil, true, "example.com/rail", ""
	noted, err := n.attacher.HostState(device)
	if err != nil {
		t.Fatal(err)
	}
	n.claim("claim-1", scope, noted)
}

func (n *node) railAddresses(t *testing.T) (list []string) {
	t.Helper()
	addresses, err := n.host.Handle.AddrList(n.host.Link(t, "rail0"), netlink.FAMILY_V4)
	if err != nil {
		t.Fatal(err)
	}
	for _, address := range addresses {
		list = append(list, address.IPNet.String())
	}
	return list
}

func TestDeviceOfMultusIsFoundScopedAndTold(t *testing.T) {
	n := newNode(t)
	n.peer.ServeTCP(t, 80)
	n.peer.ServeTCP(t, 81)
	n.external(t, scope("10.1.0.0/24", 80))
	n.multusBrings(t)
	n.attach(t)
	if err := n.dial(t, "10.1.0.1:80"); err != nil {
		t.Errorf("allowed: %v", err)
	}
	if err := n.dial(t, "10.1.0.1:81"); err == nil {
		t.Error("what the scope refuses passes over the device that Multus brought")
	}
	states, err := n.attacher.InPods("claim-1")
	if err != nil || len(states) != 1 || states[0].Interface != "net1" || !slices.Equal(states[0].Addresses, []netip.Prefix{netip.MustParsePrefix("10.1.0.5/24")}) ||
		states[0].MAC == "" || states[0].MAC != n.pod.Link(t, "net1").Attrs().HardwareAddr.String() {
		t.Errorf("told of the device: %+v, %v", states, err)
	}
	// So it is on record, from which the claim's status has it.
	record, found, err := n.attacher.records.read("claim-1", "pod-1")
	if err != nil || !found || record.State != StateAttached || !reflect.DeepEqual(record.Devices, states) {
		t.Errorf("on record: %+v, %v, %v", record.Devices, found, err)
	}
	if err := n.attacher.Admit(context.Background(), Container{Sandbox: n.sandbox, Claim: "claim-1"}, n.pod.FD); err != nil {
		t.Errorf("the container is refused: %v", err)
	}
}

func TestDeviceThatMultusDidNotBringIsRefused(t *testing.T) {
	n := newNode(t)
	n.external(t, nil)
	before := n.host.Snapshot(t)
	err := n.attacher.Attach(context.Background(), n.sandbox)
	for _, word := range []string{"nic-rail0", "k8s.v1.cni.cncf.io/networks", "k8s.v1.cni.cncf.io/resourceName: example.com/rail"} {
		if err == nil || !strings.Contains(err.Error(), word) {
			t.Errorf("got %v, want a refusal that says %q", err, word)
		}
	}
	n.host.Same(t, "after the refusal", before)
	if n.recordCount(t) != 0 {
		t.Errorf("%d records are left", n.recordCount(t))
	}
}

// The runtime says that a sandbox stops before Multus takes its networks apart, and
// that it is removed after.
func TestMultusIsLeftToBringItsDeviceHome(t *testing.T) {
	n := newNode(t)
	n.external(t, nil)
	n.multusBrings(t)
	n.attach(t)
	n.restart(t)
	if err := n.attacher.DetachSandbox(context.Background(), "pod-1", "sandbox-1"); err != nil {
		t.Fatal(err)
	}
	if !n.pod.Has(t, "net1") {
		t.Fatal("the device was taken from the pod before Multus came for it")
	}
	n.multusTakes(t)
	if err := n.attacher.DetachSandbox(context.Background(), "pod-1", "sandbox-1"); err != nil {
		t.Fatal(err)
	}
	equal(t, "addresses that Multus did not put back", n.railAddresses(t), "192.0.2.7/24")
	if n.recordCount(t) != 0 {
		t.Errorf("%d records are left", n.recordCount(t))
	}
}

func TestDeviceThatMultusLeftBehindIsBroughtHome(t *testing.T) {
	n := newNode(t)
	n.external(t, nil)
	n.multusBrings(t)
	n.attach(t)
	if err := n.attacher.DetachSandbox(context.Background(), "pod-1", "sandbox-1"); err != nil {
		t.Fatal(err)
	}
	// The kubelet unprepares a claim after its pod's sandbox was stopped.
	if err := n.attacher.Release(context.Background(), "claim-1"); err != nil {
		t.Fatal(err)
	}
	if n.pod.Has(t, "net1") || !n.host.Has(t, "rail0") {
		t.Error("the device is still in the pod")
	}
	equal(t, "addresses", n.railAddresses(t), "192.0.2.7/24")
	if n.recordCount(t) != 0 {
		t.Errorf("%d records are left", n.recordCount(t))
	}
}
