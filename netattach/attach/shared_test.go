package attach

// Shares of a NIC on their way through a pod's life, beside what else a pod has.

import (
	"context"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/hostler-dev/hostler/netattach"
	"github.com/hostler-dev/hostler/netattach/internal/nettest"
)

// share is a child of rail0, held to a bandwidth unless that is 0.
func (n *node) share(t *testing.T, id types.UID, pod, address string, bandwidth uint64) netattach.DeviceIntent {
	device := n.device(t, "rail0", pod, address)
	device.Pool, device.ShareID, device.Bandwidth = "node-a/nic", &id, bandwidth
	device.Child = &netattach.ChildIntent{Kind: "macvlan", Mode: "bridge"}
	return device
}

func (n *node) podLinks(t *testing.T, in *nettest.Namespace) []string {
	t.Helper()
	links, err := in.Handle.LinkList()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, link := range links {
		names = append(names, link.Attrs().Name)
	}
	return names
}

// What a limited child receives leaves an ifb device before it arrives, and the pod's
// rules are on that device, too: they must not take it for something that is sent.
func TestLimitedChildAndScopeTogether(t *testing.T) {
	n := newNode(t)
	n.peer.ServeTCP(t, 80)
	n.peer.ServeTCP(t, 81)
	n.claim("claim-1", scope("10.1.0.0/24", 80), n.share(t, "share-1", "net1", "10.1.0.5/24", 20e6))
	n.attach(t)
	echoes := func(port string) (err error) {
		n.pod.Do(t, func() {
			var conn net.Conn
			if conn, err = net.DialTimeout("tcp", "10.1.0.1:"+port, 5*time.Second); err != nil {
				return
			}
			defer conn.Close()
			if _, err = conn.Write([]byte("echo")); err == nil {
				_, err = conn.Read(make([]byte, 4))
			}
		})
		return err
	}
	if err := echoes("80"); err != nil {
		t.Errorf("what the scope allows: %v", err)
	}
	if err := echoes("81"); err == nil {
		t.Error("the pod reaches what its scope does not allow")
	}
	n.attach(t)
	if err := n.attacher.Check(context.Background(), "pod-1", "claim-1", n.pod.FD); err != nil {
		t.Error(err)
	}
	if err := echoes("80"); err != nil {
		t.Errorf("what the scope allows, after a second attachment: %v", err)
	}
}

func TestSharesOfTwoPodsComeAndGoByThemselves(t *testing.T) {
	n := newNode(t)
	before := n.podLinks(t, n.host)
	n.claim("claim-1", nil, n.share(t, "share-1", "net1", "10.1.0.5/24", 20e6))
	n.attach(t)
	second := Sandbox{ID: "sandbox-2", NetNS: nettest.New(t).Path, Pod: netattach.PodReference{UID: "pod-2", Namespace: "ns", Name: "q"}}
	first := n.sandbox
	n.sandbox = second
	n.claim("claim-2", nil, n.share(t, "share-2", "net1", "10.1.0.6/24", 0))
	n.attach(t)

	n.restart(t) // an agent that knows no more than the records say
	if err := n.attacher.DetachSandbox(context.Background(), first.Pod.UID, first.ID); err != nil {
		t.Fatal(err)
	}
	if left := n.podLinks(t, n.pod); !slices.Equal(left, []string{"lo"}) {
		t.Errorf("the first pod still has %v", left)
	}
	namespace, err := openNamespace(second.NetNS)
	if err != nil {
		t.Fatal(err)
	}
	defer namespace.Close()
	if err := n.attacher.Check(context.Background(), "pod-2", "claim-2", namespace.descriptor); err != nil {
		t.Errorf("the second pod: %v", err)
	}
	if err := n.attacher.Release(context.Background(), "claim-2"); err != nil {
		t.Fatal(err)
	}
	if after := n.podLinks(t, n.host); !slices.Equal(before, after) || n.recordCount(t) != 0 {
		t.Errorf("the host had %v and has %v, and %d records", before, after, n.recordCount(t))
	}
}

// The record is written before the child is made, and with its index after.
func TestAgentKilledWhileItMadeAChildLeavesNoSecond(t *testing.T) {
	n := newNode(t)
	n.claim("claim-1", nil, n.share(t, "share-1", "net1", "10.1.0.5/24", 20e6))
	n.attach(t)
	index := n.pod.Link(t, "net1").Attrs().Index
	record, _, err := n.attacher.records.read("claim-1", "pod-1")
	if err != nil || record.Intent.Devices[0].Child.ParentIndex != n.host.Link(t, "rail0").Attrs().Index {
		t.Fatalf("%v; the record has the parent's index %+v", err, record.Intent.Devices[0].Child)
	}
	record.State, record.Intent.Devices[0].PodIndex = StateAttaching, 0
	if err := n.attacher.records.write(record); err != nil {
		t.Fatal(err)
	}
	n.restart(t)
	n.attach(t)
	if now := n.pod.Link(t, "net1").Attrs().Index; now != index {
		t.Errorf("it was made again: index %d, then %d", index, now)
	}
	if links := n.podLinks(t, n.pod); len(links) != 3 {
		t.Errorf("the pod has %v, want the child and what limits it", links)
	}
}

func TestFailureBehindAChildTakesItBack(t *testing.T) {
	n := newNode(t)
	broken := n.device(t, "rail1", "net2", "10.2.0.5/24")
	broken.HostName, broken.HostMAC = "rail9", "02:00:00:00:00:99"
	n.claim("claim-1", nil, n.share(t, "share-1", "net1", "10.1.0.5/24", 20e6), broken)
	if err := n.attacher.Attach(context.Background(), n.sandbox); err == nil || !strings.Contains(err.Error(), "nic-rail1") {
		t.Fatalf("%v; want an error that names the other device", err)
	}
	if left := n.podLinks(t, n.pod); !slices.Equal(left, []string{"lo"}) {
		t.Errorf("the pod has %v", left)
	}
}

// A namespace that is gone took its child with it: nothing is waited for.
func TestChildOfAPodThatIsGoneIsHome(t *testing.T) {
	n := newNode(t)
	n.claim("claim-1", nil, n.share(t, "share-1", "net1", "10.1.0.5/24", 0))
	n.attach(t)
	record, _, err := n.attacher.records.read("claim-1", "pod-1")
	if err != nil {
		t.Fatal(err)
	}
	record.NetNS += "-gone"
	if err := n.attacher.records.write(record); err != nil {
		t.Fatal(err)
	}
	if err := n.attacher.Reconcile(context.Background()); err != nil || n.recordCount(t) != 0 {
		t.Errorf("%v, %d records", err, n.recordCount(t))
	}
}
