package gate_test

// What a CNI chain made in the pod is proven whenever a container starts, whether the
// agent is there or not.

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/hostler-dev/hostler/netattach"
	"github.com/hostler-dev/hostler/netattach/attach"
	"github.com/hostler-dev/hostler/netattach/internal/nettest"
)

// answering has a claim whose network's only plugin answers with that, and does nothing.
func (n *node) answering(t *testing.T, result string) {
	t.Helper()
	n.stop()
	bin := t.TempDir()
	script := "#!/bin/sh\ncat > /dev/null\nif [ \"$CNI_COMMAND\" = ADD ]; then echo '" + result + "'; fi\n"
	if err := os.WriteFile(filepath.Join(bin, "answers"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	attacher, err := attach.New(attach.Config{Intents: n.intents, Run: n.run, HostNamespace: &n.host.FD, CNIBin: bin, CNICache: filepath.Join(n.run, "cni")})
	if err != nil {
		t.Fatal(err)
	}
	n.attacher = attacher
	n.start(t)
	n.intents.put(netattach.Intent{ClaimUID: "claim-1", ClaimNamespace: "ns", ClaimName: "c", Pods: []netattach.PodReference{{UID: "pod-1"}},
		Devices: []netattach.DeviceIntent{{Device: "nic-rail0", HostName: "rail0", PodName: "net1", HostMAC: n.host.Link(t, "rail0").Attrs().HardwareAddr.String(),
			Networks: []netattach.NetworkIntent{{Namespace: "ns", Name: "storage", Interface: "mv0", Config: []byte(`{"cniVersion": "1.0.0", "name": "storage", "plugins": [{"type": "answers"}]}`)}}}}})
}

const storage = `{"cniVersion": "1.0.0",
  "interfaces": [{"name": "on-the-node"}, {"name": "mv0", "mac": "02:00:00:00:00:07", "sandbox": "there"}, {"name": "mv1", "sandbox": "there"}, {"name": "net1", "sandbox": "there"}],
  "ips": [{"address": "10.3.0.5/32", "interface": 1}, {"address": "2001:db8:3::5/64", "interface": 1}, {"address": "10.9.9.9/24", "interface": 0}]}`

func TestWhatChainsMadeIsProven(t *testing.T) {
	for name, test := range map[string]struct {
		change func(t *testing.T, n *node)
		says   string // "" if the container may start
	}{
		"all is there":                           {func(*testing.T, *node) {}, ""},
		"with an address more":                   {func(t *testing.T, n *node) { n.pod.Up(t, "mv0", "10.3.0.77/24") }, ""},
		"the claimed device has another address": {func(t *testing.T, n *node) { n.pod.Up(t, "net1", "10.1.0.77/24") }, ""},
		"the interface is gone": {func(t *testing.T, n *node) {
			if err := n.pod.Handle.LinkDel(n.pod.Link(t, "mv0")); err != nil {
				t.Fatal(err)
			}
		}, "mv0"},
		"an interface is gone that the chain was not asked for by name": {func(t *testing.T, n *node) {
			if err := n.pod.Handle.LinkDel(n.pod.Link(t, "mv1")); err != nil {
				t.Fatal(err)
			}
		}, "mv1"},
		"the interface has another name": {func(t *testing.T, n *node) {
			if err := n.pod.Handle.LinkSetName(n.pod.Link(t, "mv0"), "mine"); err != nil {
				t.Fatal(err)
			}
		}, "mv0"},
		"another one has its name and addresses": {func(t *testing.T, n *node) {
			if err := n.pod.Handle.LinkDel(n.pod.Link(t, "mv0")); err != nil {
				t.Fatal(err)
			}
			nettest.Join(t, n.pod, "mv0", n.host, "y")
			n.pod.Up(t, "mv0", "10.3.0.5/24", "2001:db8:3::5/64")
		}, "mv0"},
		"an IPv4 address is gone": {func(t *testing.T, n *node) { n.lose(t, "mv0", "10.3.0.5/24") }, "10.3.0.5"},
		"an IPv6 address is gone": {func(t *testing.T, n *node) { n.lose(t, "mv0", "2001:db8:3::5/64") }, "2001:db8:3::5"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // the hook waits for an agent that is away
			n := newNode(t)
			nettest.Join(t, n.pod, "mv0", n.host, "x")
			nettest.Join(t, n.pod, "mv1", n.host, "z")
			n.pod.Up(t, "mv0", "10.3.0.5/24", "2001:db8:3::5/64")
			n.answering(t, storage)
			if err := n.startContainer(t, "claim-1"); err != nil {
				t.Fatal(err)
			}
			test.change(t, n)
			for _, agent := range []string{"there", "away"} {
				if agent == "away" {
					n.stop()
				}
				err := n.startContainer(t, "claim-1")
				switch {
				case test.says == "" && err != nil:
					t.Errorf("the agent is %s: refused: %v", agent, err)
				case test.says != "" && (err == nil || !strings.Contains(err.Error(), test.says) || !strings.Contains(err.Error(), "ns/storage")):
					t.Errorf("the agent is %s: want a refusal that names the network and says %q, got %v", agent, test.says, err)
				}
			}
		})
	}
}

func (n *node) lose(t *testing.T, name, address string) {
	t.Helper()
	parsed, err := netlink.ParseAddr(address)
	if err := errors.Join(err, n.pod.Handle.AddrDel(n.pod.Link(t, name), parsed)); err != nil {
		t.Fatal(err)
	}
}

// A chain that says that it did what it did not do is a chain that failed.
func TestPromiseThatWasNeverKeptIsRefused(t *testing.T) {
	n := newNode(t)
	n.answering(t, storage)
	err := n.startContainer(t, "claim-1")
	if err == nil || !strings.Contains(err.Error(), "no interface mv0") || !strings.Contains(err.Error(), "ns/storage") {
		t.Errorf("want a refusal that names the network and its interface, got %v", err)
	}
	if !n.host.Has(t, "rail0") {
		t.Error("the claimed device is not home")
	}
}
