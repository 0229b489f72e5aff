package attach

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/hostler-dev/hostler/netattach"
)

// plugin puts a CNI plugin in place that writes down how it is called and does what
// its script says on ADD.
func (n *node) plugin(t *testing.T, name, onAdd string) {
	t.Helper()
	if n.bin == "" {
		n.bin = t.TempDir()
		n.restart(t)
	}
	script := "#!/bin/sh\ncat > /dev/null\necho \"" + name + " $CNI_COMMAND $CNI_IFNAME\" >> " + n.calls() + "\n" +
		"if [ \"$CNI_COMMAND\" = ADD ]; then\n" + onAdd + "\necho '{\"cniVersion\": \"1.0.0\"}'\nfi\n"
	if err := os.WriteFile(filepath.Join(n.bin, name), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
}

func (n *node) calls() string { return filepath.Join(n.run, "calls") }

// called lists the plugins' calls, and forgets them.
func (n *node) called(t *testing.T) []string {
	t.Helper()
	raw, err := os.ReadFile(n.calls())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err := errors.Join(err, os.Remove(n.calls())); err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSpace(string(raw)), "\n")
}

func network(name, iface string, plugins ...string) netattach.NetworkIntent {
	var list []string
	for _, plugin := range plugins {
		list = append(list, fmt.Sprintf(`{"type": %q}`, plugin))
	}
	return netattach.NetworkIntent{Namespace: "ns", Name: name, Interface: iface, Config: fmt.Appendf(nil, `{"cniVersion": "1.0.0", "name": %q, "plugins": [%s]}`, name, strings.Join(list, ","))}
}

func (n *node) withNetworks(t *testing.T, host, pod, address string, networks ...netattach.NetworkIntent) netattach.DeviceIntent {
	t.Helper()
	device := n.device(t, host, pod, address)
	device.Networks = networks
	return device
}

func equal(t *testing.T, what string, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: got\n%s\nwant\n%s", what, strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestChainsOfTwoClaimsAreTakenBackApart(t *testing.T) {
	n := newNode(t)
	n.plugin(t, "first", "")
	n.plugin(t, "second", "")
	n.claim("claim-1", nil, n.withNetworks(t, "rail0", "net1", "10.1.0.5/24", network("a", "", "first", "second"), network("b", "mv0", "second")))
	n.claim("claim-2", nil, n.withNetworks(t, "rail1", "net2", "10.2.0.5/24", network("a", "", "first")))
	for range 2 { // the second call finds everything done
		n.attach(t)
	}
	equal(t, "to attach", n.called(t), "first ADD net1", "second ADD net1", "second ADD mv0", "first ADD net2")

	n.restart(t)
	if err := n.attacher.Release(context.Background(), "claim-1"); err != nil {
		t.Fatal(err)
	}
	equal(t, "to release the first claim", n.called(t), "second DEL mv0", "second DEL net1", "first DEL net1")
	if err := n.attacher.DetachSandbox(context.Background(), "pod-1", "sandbox-1"); err != nil {
		t.Fatal(err)
	}
	equal(t, "to detach the pod", n.called(t), "first DEL net2")
}

func TestFailedChainTakesTheOthersWithIt(t *testing.T) {
	n := newNode(t)
	n.plugin(t, "good", "")
	n.plugin(t, "bad", `echo '{"cniVersion": "1.0.0", "code": 7, "msg": "no luck"}'; exit 1`)
	n.claim("claim-1", nil, n.withNetworks(t, "rail0", "net1", "10.1.0.5/24", network("a", "", "good"), network("b", "", "good", "bad")))
	err := n.attacher.Attach(context.Background(), n.sandbox)
	if err == nil || !strings.Contains(err.Error(), "no luck") || !strings.Contains(err.Error(), "ns/b") {
		t.Errorf("got %v, want the network and the plugin's reason", err)
	}
	// Of the failed chain the second pair of DELs is the claim's undoing, which does not
	// know how far the first came.
	equal(t, "calls", n.called(t), "good ADD net1", "good ADD net1", "bad ADD net1", "bad DEL net1", "good DEL net1",
		"bad DEL net1", "good DEL net1", "good DEL net1")
	if !n.host.Has(t, "rail0") || n.recordCount(t) != 0 {
		t.Errorf("rail0 is home: %t, records: %d", n.host.Has(t, "rail0"), n.recordCount(t))
	}
}

// A chain that is killed with its agent leaves nothing in libcni's cache.
func TestChainThatWasCutShortIsTakenBack(t *testing.T) {
	n := newNode(t)
	n.plugin(t, "first", "")
	n.claim("claim-1", nil, n.withNetworks(t, "rail0", "net1", "10.1.0.5/24", network("a", "", "first")))
	n.attach(t)
	n.called(t)
	record, _, err := n.attacher.records.read("claim-1", "pod-1")
	if err != nil {
		t.Fatal(err)
	}
	record.State = StateAttaching
	if err := errors.Join(n.attacher.records.write(record), os.RemoveAll(filepath.Join(n.run, "cni"))); err != nil {
		t.Fatal(err)
	}
	n.restart(t)
	n.attach(t)
	equal(t, "to attach again", n.called(t), "first DEL net1", "first ADD net1")
}

// What a reboot leaves of a chain is in libcni's cache and nowhere else.
func TestChainsOfAnEarlierBootAreTakenBack(t *testing.T) {
	n := newNode(t)
	n.plugin(t, "first", "")
	n.claim("claim-1", nil, n.withNetworks(t, "rail0", "net1", "10.1.0.5/24", network("a", "", "first")))
	n.attach(t)
	n.called(t)
	if err := n.attacher.Reconcile(context.Background()); err != nil {
		t.Fatal(err)
	}
	equal(t, "while the pod lives", n.called(t))
	if err := os.RemoveAll(filepath.Join(n.run, "attached")); err != nil { // it is on a tmpfs
		t.Fatal(err)
	}
	n.lost = true
	n.restart(t)
	for range 2 {
		if err := n.attacher.Reconcile(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	equal(t, "after the reboot", n.called(t), "first DEL net1")
}

func TestNetworkThatIsTheDefaultTakesThePodsRoute(t *testing.T) {
	n := newNode(t)
	n.plugin(t, "first", "")
	n.host.Up(t, "lo")
	n.pod.Up(t, "lo")
	eth0 := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth0"}, PeerName: "far"}
	if err := n.pod.Handle.LinkAdd(eth0); err != nil {
		t.Fatal(err)
	}
	n.pod.Up(t, "eth0", "192.0.2.5/24", "2001:db8::5/64")
	n.pod.Route(t, "0.0.0.0/0", "192.0.2.1")
	n.pod.Route(t, "::/0", "2001:db8::1")
	rail := network("a", "", "first")
	rail.DefaultRoute = []netip.Addr{netip.MustParseAddr("10.1.0.1")}
	n.claim("claim-1", nil, n.withNetworks(t, "rail0", "net1", "10.1.0.5/24", rail))
	for range 2 {
		n.attach(t)
	}
	for family, want := range map[int]string{netlink.FAMILY_V4: "10.1.0.1", netlink.FAMILY_V6: "2001:db8::1"} {
		routes, err := n.pod.Handle.RouteList(nil, family)
		if err != nil {
			t.Fatal(err)
		}
		var gateways []string
		for _, route := range routes {
			if ones, _ := route.Dst.Mask.Size(); ones == 0 && route.Dst.IP.IsUnspecified() {
				gateways = append(gateways, route.Gw.String())
			}
		}
		equal(t, "default gateways", gateways, want)
	}
}

func TestGatewayThatIsNotOnTheNetworkIsRefused(t *testing.T) {
	n := newNode(t)
	n.plugin(t, "first", "")
	rail := network("a", "", "first")
	rail.DefaultRoute = []netip.Addr{netip.MustParseAddr("198.51.100.1")}
	n.claim("claim-1", nil, n.withNetworks(t, "rail0", "net1", "10.1.0.5/24", rail))
	if err := n.attacher.Attach(context.Background(), n.sandbox); err == nil || !strings.Contains(err.Error(), "198.51.100.1") {
		t.Errorf("got %v, want a refusal that names the gateway", err)
	}
}

// The hook's time is over before the chain is. The sandbox starts, and its container is
// let in when the chain has ended, and no sooner.
func TestSlowChainOutlivesItsHook(t *testing.T) {
	n := newNode(t)
	held := filepath.Join(n.run, "held")
	n.plugin(t, "slow", "while [ -e "+held+" ]; do sleep 0.01; done")
	if err := os.WriteFile(held, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	n.claim("claim-1", nil, n.withNetworks(t, "rail0", "net1", "10.1.0.5/24", network("a", "", "slow")))
	hook, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if err := n.attacher.Attach(hook, n.sandbox); err != nil {
		t.Fatalf("the hook fails the sandbox: %v", err)
	}
	answer := make(chan error, 1)
	go func() {
		answer <- n.attacher.Admit(context.Background(), Container{Sandbox: n.sandbox, Claim: "claim-1"}, n.pod.FD)
	}()
	select {
	case err := <-answer:
		t.Fatalf("the container is answered before its network is there: %v", err)
	case <-time.After(100 * time.Millisecond):
	}
	if err := os.Remove(held); err != nil {
		t.Fatal(err)
	}
	if err := <-answer; err != nil {
		t.Errorf("the container is refused: %v", err)
	}
	equal(t, "calls", n.called(t), "slow ADD net1")
}

// Of a sandbox that ended while no agent was there nobody tells the next one. Plugins
// would keep its addresses for ever.
func TestChainsOfASandboxThatEndedUnheardAreTakenBack(t *testing.T) {
	n := newNode(t)
	n.plugin(t, "first", "")
	n.claim("claim-1", nil, n.withNetworks(t, "rail0", "net1", "10.1.0.5/24", network("a", "", "first")))
	n.attach(t)
	n.called(t)
	if err := errors.Join(os.Remove(n.sandbox.NetNS), n.giveBack(t)); err != nil {
		t.Fatal(err)
	}
	n.restart(t)
	for range 2 {
		if err := n.attacher.Reconcile(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	equal(t, "after the sandbox", n.called(t), "first DEL net1")
	if !n.host.Has(t, "rail0") || n.recordCount(t) != 0 {
		t.Errorf("rail0 is home: %t, records: %d", n.host.Has(t, "rail0"), n.recordCount(t))
	}
}
