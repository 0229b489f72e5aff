package attach

// What an agent keeps open. It attaches pods for months, and each of them costs it
// netlink sockets, namespaces and files.

import (
	"os"
	"path/filepath"
	"runtime/debug"
	"testing"

	"k8s.io/apimachinery/pkg/types"

	"github.com/hostler-dev/hostler/netattach"
)

// openFiles tells what this process has open, by number.
func openFiles(t *testing.T) map[string]string {
	t.Helper()
	const descriptors = "/proc/self/fd"
	entries, err := os.ReadDir(descriptors)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for _, entry := range entries {
		if target, err := os.Readlink(filepath.Join(descriptors, entry.Name())); err == nil { // the one of this reading is closed
			files[entry.Name()] = target
		}
	}
	return files
}

func TestAttachmentsLeaveNothingOpen(t *testing.T) {
	// The collector closes what was forgotten, now and then.
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	n := newNode(t)
	n.plugin(t, "first", "")
	share := n.share(t, "share-1", "net2", "10.1.0.6/24", 20e6)
	share.HostName, share.HostMAC = "rail1", n.host.Link(t, "rail1").Attrs().HardwareAddr.String()
	rich := n.withNetworks(t, "rail0", "net1", "10.1.0.5/24", network("a", "", "first"))
	rich.Sysctls, rich.Features = map[string]string{"net/ipv4/conf/IFNAME/arp_ignore": "1"}, map[string]bool{"tx-scatter-gather": false}
	n.claim("claim-1", scope("10.1.0.0/24", 80), rich)
	n.claim("claim-2", nil, share)
	broken := n.intents["claim-1"]
	broken.Devices = []netattach.DeviceIntent{n.device(t, "rail0", "net1", "10.1.0.5/24")}
	broken.Devices[0].MTU = 65536 // more than a veth takes
	whole := n.intents["claim-1"]

	life := func() {
		// Not even the same numbers serve again: what is forgotten under one of them is found.
		other, err := os.Open(os.DevNull)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { other.Close() })
		n.attach(t)
		for _, claim := range []types.UID{"claim-1", "claim-2"} {
			if err := n.attacher.Admit(t.Context(), Container{Sandbox: n.sandbox, Claim: claim}, n.pod.FD); err != nil {
				t.Fatal(err)
			}
		}
		if err := n.attacher.Reconcile(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := n.attacher.DetachSandbox(t.Context(), "pod-1", "sandbox-1"); err != nil {
			t.Fatal(err)
		}
		n.intents["claim-1"] = broken
		if err := n.attacher.Attach(t.Context(), n.sandbox); err == nil {
			t.Fatal("the broken claim was attached")
		}
		n.intents["claim-1"] = whole
	}
	life() // which opens what is opened once
	before := openFiles(t)
	for range 3 {
		life()
	}
	for descriptor, target := range openFiles(t) {
		if _, known := before[descriptor]; !known && target != os.DevNull {
			t.Errorf("%s was left open", target)
		}
	}
}
