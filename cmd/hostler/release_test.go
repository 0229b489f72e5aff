package main

// `hostler release` as an administrator runs it, on a node that its agent has
// left with a claim on a netdev, a GPU partition and an egress scope.

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/hostler-dev/hostler/api/v1alpha1"
	"github.com/hostler-dev/hostler/driver"
	"github.com/hostler-dev/hostler/driver/claim"
	"github.com/hostler-dev/hostler/netattach"
	"github.com/hostler-dev/hostler/netattach/attach"
	"github.com/hostler-dev/hostler/test/machine"
	"github.com/hostler-dev/hostler/topology"
)

// namespaces are the node's and a pod's, with the netdev rail0 in the node's. The
// test's thread is in the node's, and so is every command that it starts.
type namespaces struct {
	host, pod           netns.NsHandle
	hostLinks, podLinks *netlink.Handle
}

func enterNamespaces(t *testing.T) namespaces {
	t.Helper()
	runtime.LockOSThread() // without end: a thread that changed its namespace is not used again
	var n namespaces
	var errs [5]error
	n.pod, errs[0] = netns.New()
	if errors.Is(errs[0], unix.EPERM) {
		t.Skip("needs CAP_SYS_ADMIN and CAP_NET_ADMIN to make a network namespace: run as root")
	}
	n.host, errs[1] = netns.New()
	n.hostLinks, errs[2] = netlink.NewHandleAt(n.host)
	n.podLinks, errs[3] = netlink.NewHandleAt(n.pod)
	if err := errors.Join(errs[:]...); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		n.hostLinks.Close()
		n.podLinks.Close()
		if err := errors.Join(n.host.Close(), n.pod.Close()); err != nil {
			t.Error(err)
		}
	})
	rail := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "rail0", MTU: 1400}, PeerName: "peer"}
	if err := n.hostLinks.LinkAdd(rail); err != nil {
		t.Fatal(err)
	}
	return n
}

const (
	releasedClaim = "6d8a4cb2-7c6d-4a3e-9d0e-b5a7f7f8f3d1"
	// administrators is what hgx-a100-mig's third GPU is cut into without the claim's.
	administrators = "9 4:4"
	claimed        = "19 0:1"
)

// leaveClaim is what an agent leaves behind that prepared and attached the claim.
func (n *node) leaveClaim(t *testing.T, spaces namespaces) {
	t.Helper()
	profile, err := machine.Load("hgx-a100-mig")
	if err != nil {
		t.Fatal(err)
	}
	if n.machine, err = machine.Render(profile, filepath.Join(machine.TempDir(t), "machine"), machine.RenderOptions{}); err != nil {
		t.Fatal(err)
	}
	rail, err := spaces.hostLinks.LinkByName("rail0")
	if err != nil {
		t.Fatal(err)
	}
	boot, err := bootID()
	if err != nil {
		t.Fatal(err)
	}
	pod := netattach.PodReference{UID: "pod-1", Namespace: "team", Name: "train-0"}
	scope := v1alpha1.EgressConfig{Allow: []v1alpha1.EgressRule{{Name: "peer", To: []v1alpha1.EgressPeer{{CIDR: &v1alpha1.CIDRPeer{CIDR: "192.0.2.0/24"}}}}}}
	v1alpha1.SetDefaults_EgressConfig(&scope)
	entry := &claim.Entry{
		ClaimUID: releasedClaim, ClaimNamespace: "team", ClaimName: "train-0-all", BootID: boot, Pods: []netattach.PodReference{pod},
		Egress: &netattach.EgressIntent{Config: scope},
		Devices: []claim.Device{
			{Request: "part", Pool: "n1/gpu", Name: "gpu-0000-47-00-0-mig-1g-5gb-0",
				GPU:       &topology.GPU{Name: "gpu-0000-47-00-0", Placement: topology.Placement{PCI: "0000:47:00.0"}},
				Partition: &claim.Partition{Profile: "1g.5gb", ProfileID: 19, Placement: topology.MIGPlacement{Start: 0, Size: 1}}},
			{Request: "nic", Pool: "n1/nic", Name: "nic-0000-18-00-0",
				NIC: &topology.NIC{Name: "nic-0000-18-00-0"},
				Network: &netattach.DeviceIntent{Device: "nic-0000-18-00-0", HostName: "rail0", PodName: "rdma0", HostMAC: rail.Attrs().HardwareAddr.String(),
					Addresses: []netip.Prefix{netip.MustParsePrefix("10.1.0.5/24")}}},
			{Request: "scope", Pool: "n1/egress", Name: "egress"},
		},
	}
	journal, err := driver.OpenJournal(t.Context(), v1alpha1.PathsConfig{State: n.path("state"), CDI: n.path("cdi")})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(journal.Put(entry), os.Mkdir(n.path("cdi"), 0o755)); err != nil {
		t.Fatal(err)
	}
	n.write(t, "cdi/hostler.dev-claim_"+releasedClaim+".json", "{}")
	host := int(spaces.host)
	attacher, err := attach.New(attach.Config{Intents: claim.NewStore(journal), Run: n.path("run"), HostNamespace: &host})
	if err != nil {
		t.Fatal(err)
	}
	sandbox := attach.Sandbox{ID: "sandbox-1", Pod: pod, NetNS: n.path("netns")}
	if err := errors.Join(os.Symlink(fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), int(spaces.pod)), sandbox.NetNS), attacher.Attach(t.Context(), sandbox), attacher.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := spaces.podLinks.LinkByName("rdma0"); err != nil {
		t.Fatalf("the netdev is not in the pod: %v", err)
	}
}

func (n *node) cut(t *testing.T) string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(n.machine.Control, "gpu2", "mig_instances"))
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// release runs the command to its end.
func (n *node) release(t *testing.T, flags ...string) (status int, says string) {
	t.Helper()
	command := n.start(t, "release", n.flags(flags...)...)
	status = command.exit(t)
	return status, command.out.String() + command.errs.String()
}

func (n *node) files(t *testing.T) []string {
	t.Helper()
	var all []string
	for _, pattern := range []string{"cdi/*", "run/attached/*"} {
		files, err := filepath.Glob(n.path(pattern))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, files...)
	}
	return all
}

func TestReleaseOfANodeWithoutAgent(t *testing.T) {
	spaces := enterNamespaces(t)
	n := newNode(t, machine.RenderOptions{NoDriver: true})
	n.leaveClaim(t, spaces)
	says := func(status, want int, text string, words ...string) {
		t.Helper()
		if status != want {
			t.Errorf("exit status %d, want %d:\n%s", status, want, text)
		}
		for _, w := range words {
			if !strings.Contains(text, w) {
				t.Errorf("it does not say %q:\n%s", w, text)
			}
		}
	}
	devices := []string{
		"gpu-0000-47-00-0-mig-1g-5gb-0: GPU partition 1g.5gb, made for the claim\n", "nic-0000-18-00-0: netdev rail0\n",
		"egress: egress scope, in force in its pods until they end\n",
	}
	named := "claim team/train-0-all (" + releasedClaim + "): "

	status, text := n.release(t, "--dry-run", "--force")
	says(status, 0, text, append(devices, named+"would be released\n")...)
	status, text = n.release(t)
	says(status, 1, text, named+"LEFT: the sandbox of pod team/train-0 still lives", "--force", "hostler: 1 of 1 claims are left")
	status, text = n.release(t, "--claim=another", "--force")
	says(status, 0, text, "Nothing of claim another is on this node.")
	if _, err := spaces.podLinks.LinkByName("rdma0"); err != nil || len(n.files(t)) != 2 || !strings.Contains(n.cut(t), claimed) {
		t.Fatalf("something of the claim is gone too early: %v, %q, %q", err, n.files(t), n.cut(t))
	}

	status, text = n.release(t, "--claim="+releasedClaim, "--force")
	says(status, 0, text, append(devices, named+"released\n")...)
	rail, err := spaces.hostLinks.LinkByName("rail0")
	if err != nil {
		t.Fatalf("the netdev is not at home: %v", err)
	}
	if addresses, err := spaces.hostLinks.AddrList(rail, netlink.FAMILY_V4); err != nil || len(addresses) > 0 || rail.Attrs().MTU != 1400 {
		t.Errorf("the netdev has addresses %v and MTU %d, which it had not before: %v", addresses, rail.Attrs().MTU, err)
	}
	if cut := n.cut(t); strings.Contains(cut, claimed) || !strings.Contains(cut, administrators) {
		t.Errorf("the GPU is cut into\n%swant the administrator's partition alone", cut)
	}
	if files := n.files(t); len(files) > 0 {
		t.Errorf("%q are left", files)
	}
	status, text = n.release(t)
	says(status, 0, text, "Nothing of any claim is on this node.")
}

func TestReleaseBesideAnAgent(t *testing.T) {
	n := newNode(t, machine.RenderOptions{NoDriver: true})
	if status, text := n.release(t); status != 1 || !strings.Contains(text, "no such file") || !strings.Contains(text, "check paths.state") {
		t.Errorf("exit status %d where no agent has ever run:\n%s", status, text)
	}
	agent := n.start(t, "agent", n.flags("--kubeconfig="+n.kubeconfig(t, "https://"+closedPort(t)))...)
	agent.says(t, "Serving metrics and health")
	if status, text := n.release(t); status != 1 || !strings.Contains(text, "it is in use by an agent") || !strings.Contains(text, "stop it first") {
		t.Errorf("exit status %d beside an agent:\n%s", status, text)
	}
	if status, text := n.release(t, "--dry-run"); status != 0 {
		t.Errorf("exit status %d of a dry run beside an agent:\n%s", status, text)
	}
	if err := agent.command.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	agent.exit(t)
	if status, text := n.release(t); status != 0 {
		t.Errorf("exit status %d after the agent was killed:\n%s", status, text)
	}
}

func TestAgentWaitsForARelease(t *testing.T) {
	n := newNode(t, machine.RenderOptions{NoDriver: true})
	if err := os.Mkdir(n.path("state"), 0o750); err != nil {
		t.Fatal(err)
	}
	release, err := driver.SeizeState(v1alpha1.PathsConfig{State: n.path("state")})
	if err != nil {
		t.Fatal(err)
	}
	agent := n.start(t, "agent", n.flags("--kubeconfig="+n.kubeconfig(t, "https://"+closedPort(t)))...)
	agent.says(t, "Waiting for `hostler release`")
	if err := release.Close(); err != nil {
		t.Fatal(err)
	}
	agent.says(t, "Serving metrics and health")
}
