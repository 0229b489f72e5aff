package attach

// Agents that are killed around CNI chains: between what they write down, what libcni
// does, and what the plugins themselves do, which end with the agent as they do with its
// container. Whatever a plugin keeps is given back in the end.

import (
	"context"
	"fmt"
	"maps"
	"testing"

	"k8s.io/apimachinery/pkg/types"

	"github.com/hostler-dev/hostler/netattach"
)

func TestKilledAroundAChain(t *testing.T) {
	ctx := context.Background()
	again := func(n *node) error { return n.attacher.Attach(ctx, n.sandbox) }
	rebooted := func(t *testing.T, n *node) error {
		n.reboot(t)
		return n.attacher.Reconcile(ctx)
	}
	for _, test := range []struct {
		act     string
		before  func(t *testing.T, n *node)
		atLeast int
		// next are what may come after it. Those that do not end with a whole attachment
		// end with none.
		next []succession
	}{
		{"attach", func(*testing.T, *node) {}, 20, []succession{
			{"the same is asked for again", func(_ *testing.T, n *node) error { return again(n) }, true},
			{"the sandbox ends", func(_ *testing.T, n *node) error { return n.attacher.DetachSandbox(ctx, "pod-1", "sandbox-1") }, false},
			{"its claim has gone, and nobody says so", func(_ *testing.T, n *node) error {
				maps.DeleteFunc(n.intents, func(types.UID, netattach.Intent) bool { return true })
				return n.attacher.Reconcile(ctx)
			}, false},
		}},
		{"attach", func(*testing.T, *node) {}, 20, []succession{{"the node is rebooted", rebooted, false}}},
		{"detach", func(t *testing.T, n *node) {
			if err := again(n); err != nil {
				t.Fatal(err)
			}
		}, 10, []succession{
			{"its claim is released", func(_ *testing.T, n *node) error { return n.attacher.Release(ctx, "claim-1") }, false},
			{"the node is rebooted", rebooted, false},
		}},
	} {
		t.Run(test.act+", then "+test.next[0].name, func(t *testing.T) {
			moments, each := 1, 1
			if raceDetector {
				each = 5
			}
			for at := 0; at <= moments; at += each { // 0 counts the moments
				n := newNode(t)
				n.leasing(t, "leases")
				device := n.device(t, "rail0", "net1", "10.1.0.5/24")
				device.Networks = []netattach.NetworkIntent{noted("old")}
				n.claim("claim-1", nil, device)
				test.before(t, n)
				lived, last, killed := n.begin(t, test.act, at)
				if at == 0 {
					moments = lived
				} else if !killed {
					t.Fatalf("the agent outlived moment %d of %d", at, moments)
				}
				next := test.next[at%len(test.next)]
				n.restart(t)
				name := fmt.Sprintf("killed at moment %d of %d (%s), then %s:", at, moments, last, next.name)
				if err := next.goOn(t, n); err != nil {
					t.Fatalf("%s %v", name, err)
				}
				n.kept(t, name, next.complete)
			}
			if t.Logf("%d moments", moments); moments < test.atLeast {
				t.Errorf("only %d moments to be killed at, want %d", moments, test.atLeast)
			}
		})
	}
}

// kept sees that the plugin keeps what it should, and nothing in the end.
func (n *node) kept(t *testing.T, name string, complete bool) {
	t.Helper()
	if complete {
		if err := n.attacher.Check(context.Background(), "pod-1", "claim-1", n.pod.FD); err != nil || len(n.leases(t)) != 1 {
			t.Errorf("%s %v, leases %v", name, err, n.leases(t))
		}
		if err := n.attacher.DetachSandbox(context.Background(), "pod-1", "sandbox-1"); err != nil {
			t.Errorf("%s taken back: %v", name, err)
		}
	}
	if left := append(n.leases(t), n.cacheFiles(t)...); len(left) != 0 || n.recordCount(t) != 0 || !n.host.Has(t, "rail0") {
		t.Errorf("%s left are %v and %d records; rail0 is home: %t", name, left, n.recordCount(t), n.host.Has(t, "rail0"))
	}
}
