package attach

// RDMA devices follow their netdevs, whatever becomes of the agent on the way. The
// kernel that moves them is a fake: see rdmatest.

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/types"

	"github.com/hostler-dev/hostler/api/v1alpha1"
	"github.com/hostler-dev/hostler/netattach"
	"github.com/hostler-dev/hostler/netattach/internal/rdmatest"
	"github.com/hostler-dev/hostler/netattach/rdma"
)

// rdmaNode is a node whose rail0 and rail1 have RDMA devices mlx5_0 and mlx5_1, and
// whose mlx5_2 has no netdev.
type rdmaNode struct {
	*node
	kernel *rdmatest.Kernel
}

func newRDMANode(t *testing.T, mode rdma.Mode) *rdmaNode {
	n := &rdmaNode{node: newNode(t)}
	var devices []rdmatest.Device
	for i := range 3 {
		devices = append(devices, rdmatest.Device{Device: rdma.Device{Name: fmt.Sprintf("mlx5_%d", i), NodeGUID: fmt.Sprintf("946d:ae03:0012:345%d", i)}})
	}
	n.kernel = rdmatest.New(mode, n.host.FD, devices...)
	n.restart(t)
	return n
}

func (n *rdmaNode) restart(t *testing.T) {
	t.Helper()
	n.node.restart(t)
	host, err := rdma.NewHost(rdma.HostConfig{Namespace: &n.host.FD, Kernel: n.kernel})
	if err != nil {
		t.Fatal(err)
	}
	n.attacher.rdma = host
}

func (n *rdmaNode) device(t *testing.T, i int, mode v1alpha1.RDMAMode) netattach.DeviceIntent {
	device := netattach.DeviceIntent{Device: fmt.Sprintf("nic-%d", i), Pool: "node/nic", Request: "nic"}
	if i < 2 {
		device = n.node.device(t, fmt.Sprintf("rail%d", i), fmt.Sprintf("net%d", i), fmt.Sprintf("10.%d.0.5/24", i+1))
	}
	device.RDMA = &netattach.RDMAIntent{Device: fmt.Sprintf("mlx5_%d", i), Mode: mode}
	return device
}

// inPod lists the RDMA devices that are in the pod.
func (n *rdmaNode) inPod(t *testing.T) string {
	t.Helper()
	devices, err := n.kernel.Devices(n.pod.FD)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, device := range devices {
		names = append(names, device.Name)
	}
	return strings.Join(names, " ")
}

// asBefore fails unless every device is home under its name and nothing is on record.
func (n *rdmaNode) asBefore(t *testing.T) {
	t.Helper()
	devices, err := n.kernel.Devices(n.host.FD)
	if err != nil || len(devices) != 3 {
		t.Errorf("%v; RDMA devices at home: %v", err, devices)
	}
	for i, device := range devices {
		if want := fmt.Sprintf("mlx5_%d", i); device.Name != want {
			t.Errorf("%s came home as %s", want, device.Name)
		}
	}
	if !n.host.Has(t, "rail0") || !n.host.Has(t, "rail1") || n.recordCount(t) != 0 {
		t.Errorf("rail0 home: %t, rail1 home: %t, records: %d", n.host.Has(t, "rail0"), n.host.Has(t, "rail1"), n.recordCount(t))
	}
}

func TestRDMADevicesOfTwoClaimsAreInTheirPodAndHomeEachOnItsOwn(t *testing.T) {
	n := newRDMANode(t, rdma.Exclusive)
	n.claim("claim-1", nil, n.device(t, 0, v1alpha1.RDMAAuto), n.device(t, 2, v1alpha1.RDMAExclusive))
	n.claim("claim-2", nil, n.device(t, 1, v1alpha1.RDMAAuto))
	for range 2 { // the second call finds everything done
		n.attach(t)
	}
	if got := n.inPod(t); got != "mlx5_0 mlx5_1 mlx5_2" {
		t.Errorf("RDMA devices in the pod: %s", got)
	}
	for _, claim := range []string{"claim-1", "claim-2"} {
		if err := n.attacher.Check(t.Context(), "pod-1", types.UID(claim), n.pod.FD); err != nil {
			t.Errorf("%s: %v", claim, err)
		}
	}
	states, err := n.attacher.InPods("claim-1")
	if err != nil || len(states) != 2 || *states[0].RDMA != (netattach.RDMAState{Device: "mlx5_0", Exclusive: true}) || *states[1].RDMA != (netattach.RDMAState{Device: "mlx5_2", Exclusive: true}) {
		t.Errorf("%v; in the pod: %+v", err, states)
	}
	if states[1].Interface != "" || states[1].Pool != "node/nic" {
		t.Errorf("a device without netdev is told as %+v", states[1])
	}
	if err := n.attacher.Release(t.Context(), "claim-1"); err != nil {
		t.Fatal(err)
	}
	if got := n.inPod(t); got != "mlx5_1" || !n.pod.Has(t, "net1") {
		t.Errorf("after the first claim's end the pod has %s", got)
	}
	if err := n.attacher.DetachSandbox(t.Context(), "pod-1", "sandbox-1"); err != nil {
		t.Fatal(err)
	}
	n.asBefore(t)
}

// What a driver tells its RDMA device of a netdev, and the other way round, it tells
// within a namespace.
func TestRDMADeviceFollowsItsNetdevInAndLeavesBeforeIt(t *testing.T) {
	n := newRDMANode(t, rdma.Exclusive)
	n.claim("claim-1", nil, n.device(t, 0, v1alpha1.RDMAAuto))
	moves := 0
	n.kernel.Around = func(done bool) error {
		if moves++; !n.pod.Has(t, "net0") {
			t.Errorf("at change %d (done: %t) the netdev is not in the pod", moves, done)
		}
		return nil
	}
	n.attach(t)
	if err := n.attacher.DetachSandbox(t.Context(), "pod-1", "sandbox-1"); err != nil {
		t.Fatal(err)
	}
	if moves != 4 {
		t.Errorf("the kernel was asked for %d changes, counted before and after, want 4", moves)
	}
	n.asBefore(t)
}

// The CNI plugin rdma moves the device itself, and fails if it is not on the host.
func TestRDMADeviceIsLeftToAChainThatMovesIt(t *testing.T) {
	for name, moved := range map[string]bool{"and it does": true, "and it does not": false} {
		t.Run(name, func(t *testing.T) {
			n := newRDMANode(t, rdma.Exclusive)
			asked, answered := filepath.Join(n.run, "asked"), filepath.Join(n.run, "answered")
			for _, path := range []string{asked, answered} {
				if err := unix.Mkfifo(path, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			n.plugin(t, "rdma", "echo ADD > "+asked+"; cat "+answered+" > /dev/null")
			n.restart(t)
			device := n.device(t, 0, v1alpha1.RDMAAuto)
			device.Networks = []netattach.NetworkIntent{network("fabric", "", "rdma")}
			n.claim("claim-1", nil, device)
			plugin := make(chan error, 1)
			go func() { // the plugin's part
				_, err := os.ReadFile(asked)
				if at := n.inPod(t); at != "" {
					err = fmt.Errorf("%s is in the pod before the chain", at)
				}
				if moved {
					err = errors.Join(err, n.kernel.Move(n.host.FD, 0, n.pod.FD))
				}
				plugin <- errors.Join(err, os.WriteFile(answered, []byte("moved\n"), 0))
			}()
			n.attach(t)
			if err := <-plugin; err != nil {
				t.Error(err)
			}
			if got := n.inPod(t); got != "mlx5_0" {
				t.Errorf("RDMA devices in the pod: %q", got)
			}
			if err := n.attacher.DetachSandbox(t.Context(), "pod-1", "sandbox-1"); err != nil {
				t.Fatal(err)
			}
			n.asBefore(t)
		})
	}
}

// A container may not start once somebody took its RDMA device away.
func TestRDMADeviceThatLeftThePodIsMissed(t *testing.T) {
	n := newRDMANode(t, rdma.Exclusive)
	n.claim("claim-1", nil, n.device(t, 2, v1alpha1.RDMAAuto))
	n.attach(t)
	if err := n.kernel.Move(n.pod.FD, 2, n.host.FD); err != nil {
		t.Fatal(err)
	}
	if err := n.attacher.Check(t.Context(), "pod-1", "claim-1", n.pod.FD); err == nil || !strings.Contains(err.Error(), "nic-2") {
		t.Errorf("error %v, want one that names the device", err)
	}
	if err := n.attacher.Admit(t.Context(), Container{Sandbox: n.sandbox, Claim: "claim-1"}, n.pod.FD); err != nil || n.inPod(t) != "mlx5_2" {
		t.Errorf("the gate's attempt: %v; in the pod: %s", err, n.inPod(t))
	}
}

func TestRefusedRDMALeavesNothingBehind(t *testing.T) {
	for name, test := range map[string]struct {
		mode    rdma.Mode
		asked   v1alpha1.RDMAMode
		refused string
	}{
		"Exclusive on a shared node":  {rdma.Shared, v1alpha1.RDMAExclusive, "netns_mode=0"},
		"Shared on an exclusive node": {rdma.Exclusive, v1alpha1.RDMAShared, "cannot be opened in a pod"},
	} {
		t.Run(name, func(t *testing.T) {
			n := newRDMANode(t, test.mode)
			n.claim("claim-1", nil, n.device(t, 1, test.asked))
			if err := n.attacher.Attach(t.Context(), n.sandbox); err == nil || !strings.Contains(err.Error(), test.refused) {
				t.Errorf("error %v, want %q", err, test.refused)
			}
			n.asBefore(t)
		})
	}
}

func TestDeviceThatTheKernelDoesNotMoveIsTheStatusToTell(t *testing.T) {
	n := newRDMANode(t, rdma.Exclusive)
	n.kernel.Around = func(bool) error { return unix.EOPNOTSUPP }
	n.claim("claim-1", nil, n.device(t, 0, v1alpha1.RDMAAuto))
	n.attach(t)
	n.restart(t)
	states, err := n.attacher.InPods("claim-1")
	if err != nil || len(states) != 1 || states[0].Interface != "net0" || states[0].RDMA.Exclusive || !strings.Contains(states[0].RDMA.Fallback, "cannot change its network namespace") {
		t.Errorf("%v; in the pod: %+v", err, states)
	}
	if err := n.attacher.Check(t.Context(), "pod-1", "claim-1", n.pod.FD); err != nil {
		t.Errorf("Check: %v", err)
	}
	if err := n.attacher.DetachSandbox(t.Context(), "pod-1", "sandbox-1"); err != nil {
		t.Fatal(err)
	}
	n.asBefore(t)
}

// A kill at any of the kernel's changes, and what may happen before the agent is back.
func TestRDMADevicesSurviveAKillAtAnyChange(t *testing.T) {
	killed := errors.New("killed")
	for name, test := range map[string]struct {
		happens func(t *testing.T, n *rdmaNode)
		then    func(t *testing.T, n *rdmaNode) error
		inPod   string
	}{
		"and the pod is attached again": {func(*testing.T, *rdmaNode) {}, func(t *testing.T, n *rdmaNode) error {
			return n.attacher.Attach(t.Context(), n.sandbox)
		}, "mlx5_0 mlx5_2"},
		"and the claim is unprepared": {func(_ *testing.T, n *rdmaNode) { delete(n.intents, "claim-1") }, func(t *testing.T, n *rdmaNode) error {
			return n.attacher.Reconcile(t.Context())
		}, ""},
		"and the namespace ends": {func(t *testing.T, n *rdmaNode) {
			n.kernel.End(n.pod.FD, n.host.FD)
			if n.pod.Has(t, "net0") { // what the kernel does to a physical device
				link := n.pod.Link(t, "net0")
				if err := errors.Join(n.pod.Handle.LinkSetDown(link), n.pod.Handle.LinkSetNsFd(link, n.host.FD)); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.Remove(n.sandbox.NetNS); err != nil {
				t.Fatal(err)
			}
		}, func(t *testing.T, n *rdmaNode) error {
			return n.attacher.Reconcile(t.Context())
		}, ""},
	} {
		// Two devices move: before the first, after it, before the second, after it.
		for at := range 4 {
			t.Run(fmt.Sprintf("%s/at change %d", name, at), func(t *testing.T) {
				n := newRDMANode(t, rdma.Exclusive)
				n.claim("claim-1", nil, n.device(t, 0, v1alpha1.RDMAAuto), n.device(t, 2, v1alpha1.RDMAAuto))
				ctx, kill := t.Context(), false
				count := 0
				n.kernel.Around = func(bool) error {
					kill = kill || count == at
					count++
					if kill { // nor does a killed agent undo anything
						return killed
					}
					return nil
				}
				if err := n.attacher.Attach(ctx, n.sandbox); !errors.Is(err, killed) {
					t.Fatal(err)
				}
				n.kernel.Around = nil
				test.happens(t, n)
				n.restart(t)
				if err := test.then(t, n); err != nil {
					t.Fatal(err)
				}
				if got := n.inPod(t); got != test.inPod {
					t.Errorf("RDMA devices in the pod: %q, want %q", got, test.inPod)
				}
				if test.inPod == "" {
					n.asBefore(t)
				}
			})
		}
	}
}
