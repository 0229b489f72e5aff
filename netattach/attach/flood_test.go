package attach

// The promise of the order of steps, held against a process that knows it.

import (
	"testing"

	"github.com/hostler-dev/hostler/netattach/egress"
	"github.com/hostler-dev/hostler/netattach/internal/nettest"
)

// A process in the pod's namespace writes raw frames to net1 from before the
// device is there.
func TestNoRawFramePassesWhileADeviceIsMovedIn(t *testing.T) {
	n := newNode(t)
	n.claim("claim-1", scope("10.1.0.0/24", 80), n.device(t, "rail0", "net1", "10.1.0.2/24"))
	sniffed := n.peer.Sniff(t, "to-rail0")
	tried := n.pod.Flood(t, "net1")
	n.attach(t)
	for start := tried.Load(); tried.Load() < start+1000; {
	}
	// Frames of one veth keep their order, so one of the flood would come first.
	n.pod.Solicit(t, "net1")
	if got := <-sniffed; got != nettest.Solicitation {
		t.Errorf("%q got out", got)
	}
	counters, err := egress.Counters(n.pod.FD)
	if err != nil {
		t.Fatal(err)
	}
	if counters[egress.RuleRaw].Packets < 1000 {
		t.Errorf("only %d frames came to the rules, the test shows nothing", counters[egress.RuleRaw].Packets)
	}
}
