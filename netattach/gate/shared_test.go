package gate_test

// What the hook sees of a child of a shared NIC while the agent is away.

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"k8s.io/apimachinery/pkg/types"

	"github.com/hostler-dev/hostler/netattach"
)

const shareBandwidth = 40e9 // more than 32 bits of bytes per second

func (n *node) share(t *testing.T, bandwidth uint64) {
	id := types.UID("share-1")
	n.host.Up(t, "rail0")
	n.intents.put(netattach.Intent{ClaimUID: "claim-1", ClaimNamespace: "ns", ClaimName: "c", Pods: []netattach.PodReference{{UID: "pod-1"}},
		Devices: []netattach.DeviceIntent{{
			Pool: "node-a/nic", Device: "nic-rail0", ShareID: &id, HostName: "rail0", PodName: "net1", HostMAC: n.host.Link(t, "rail0").Attrs().HardwareAddr.String(),
			Child: &netattach.ChildIntent{Kind: "macvlan", Mode: "bridge"}, Bandwidth: bandwidth, Addresses: []netip.Prefix{netip.MustParsePrefix("10.1.0.5/24")},
		}}})
}

// arrivals is the ifb device that limits what the child receives.
func (n *node) arrivals(t *testing.T) netlink.Link {
	t.Helper()
	links, err := n.pod.Handle.LinkList()
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range links {
		if link.Type() == "ifb" {
			return link
		}
	}
	t.Fatal("the pod has no ifb device")
	return nil
}

func (n *node) unlimit(t *testing.T, link netlink.Link) {
	t.Helper()
	root := &netlink.GenericQdisc{QdiscAttrs: netlink.QdiscAttrs{LinkIndex: link.Attrs().Index, Parent: netlink.HANDLE_ROOT, Handle: netlink.MakeHandle(1, 0)}, QdiscType: "tbf"}
	if err := n.pod.Handle.QdiscDel(root); err != nil {
		t.Fatal(err)
	}
}

func TestHookProvesAShareWithoutTheAgent(t *testing.T) {
	for name, test := range map[string]struct {
		change func(t *testing.T, n *node)
		says   string // "" if the container may start
	}{
		"as it was attached": {func(*testing.T, *node) {}, ""},
		"a container that could lift the limit": {func(t *testing.T, n *node) {
			n.bounding = []string{"CAP_NET_ADMIN"}
			n.writeBundle(t)
		}, "held to its bandwidth, which this container could undo because it has CAP_NET_ADMIN"},
		"the child is gone": {func(t *testing.T, n *node) {
			if err := n.pod.Handle.LinkDel(n.pod.Link(t, "net1")); err != nil {
				t.Fatal(err)
			}
		}, "nic-rail0 is no longer in the pod"},
		"a device of the pod's own with its name and index": {func(t *testing.T, n *node) {
			index := n.pod.Link(t, "net1").Attrs().Index
			own := &netlink.Macvlan{LinkAttrs: netlink.LinkAttrs{Name: "net1", Index: index, ParentIndex: n.pod.Link(t, "eth0").Attrs().Index, TxQLen: -1}, Mode: netlink.MACVLAN_MODE_BRIDGE}
			if err := errors.Join(n.pod.Handle.LinkDel(n.pod.Link(t, "net1")), n.pod.Handle.LinkAdd(own)); err != nil {
				t.Fatal(err)
			}
		}, "no longer the macvlan that was made for it"},
		"one of another kind": {func(t *testing.T, n *node) {
			index := n.pod.Link(t, "net1").Attrs().Index
			own := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "net1", Index: index, TxQLen: -1}}
			if err := errors.Join(n.pod.Handle.LinkDel(n.pod.Link(t, "net1")), n.pod.Handle.LinkAdd(own)); err != nil {
				t.Fatal(err)
			}
		}, "no longer the macvlan that was made for it"},
		"nothing limits what it sends":    {func(t *testing.T, n *node) { n.unlimit(t, n.pod.Link(t, "net1")) }, "no longer held to its bandwidth, 40000000000 bits"},
		"nothing limits what it receives": {func(t *testing.T, n *node) { n.unlimit(t, n.arrivals(t)) }, "no longer held to its bandwidth"},
		"what it receives is not kept at all": {func(t *testing.T, n *node) {
			if err := n.pod.Handle.LinkDel(n.arrivals(t)); err != nil {
				t.Fatal(err)
			}
		}, "no longer held to its bandwidth"},
		"the limit is another": {func(t *testing.T, n *node) { n.edit(t, `"bandwidth": 40000000000`, `"bandwidth": 20000000000`) }, "no longer held to its bandwidth"},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			n.share(t, shareBandwidth)
			if err := n.startContainer(t, "claim-1"); err != nil {
				t.Fatal(err)
			}
			n.stop()
			test.change(t, n)
			err := n.startContainer(t, "claim-1")
			switch {
			case test.says == "" && err != nil:
				t.Errorf("refused: %v", err)
			case test.says != "" && (err == nil || !strings.Contains(err.Error(), test.says)):
				t.Errorf("want a refusal that says %q, got %v", test.says, err)
			}
		})
	}
}

func TestAgentMendsAShareThatLostItsLimit(t *testing.T) {
	n := newNode(t)
	n.share(t, shareBandwidth)
	for _, lift := range []func(){
		func() {},
		func() { n.unlimit(t, n.pod.Link(t, "net1")) },
		func() { n.unlimit(t, n.arrivals(t)) },
	} {
		lift()
		if err := n.startContainer(t, "claim-1"); err != nil {
			t.Fatal(err)
		}
	}
	n.unlimit(t, n.arrivals(t))
	if err := n.attacher.Reconcile(t.Context()); err != nil {
		t.Fatal(err)
	}
	n.stop()
	if err := n.startContainer(t, "claim-1"); err != nil {
		t.Errorf("after reconciling, without the agent: %v", err)
	}
}

// A whole NIC that its pod has by a child is nobody else's to protect.
func TestPowerfulContainerMayHaveAChildWithoutALimit(t *testing.T) {
	n := newNode(t)
	n.share(t, 0)
	n.bounding = []string{"CAP_NET_ADMIN"}
	n.writeBundle(t)
	if err := n.startContainer(t, "claim-1"); err != nil {
		t.Fatal(err)
	}
	n.stop()
	if err := n.startContainer(t, "claim-1"); err != nil {
		t.Errorf("while the agent is away: %v", err)
	}
}

func TestAgentRefusesAContainerThatCouldLiftTheLimit(t *testing.T) {
	n := newNode(t)
	n.share(t, shareBandwidth)
	n.bounding = []string{"CAP_SYS_ADMIN"}
	n.writeBundle(t)
	if err := n.startContainer(t, "claim-1"); err == nil || !strings.Contains(err.Error(), "may send through a NIC that others share") {
		t.Errorf("%v; want a refusal", err)
	}
}
