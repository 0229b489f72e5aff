package status

import (
	"testing"

	"k8s.io/apimachinery/pkg/types"

	"github.com/hostler-dev/hostler/driver/claim"
	"github.com/hostler-dev/hostler/netattach/attach"
)

// What a prepare and an attachment wait for: the Writer's word that it has heard.
func BenchmarkTold(b *testing.B) {
	s := newServer()
	entry := entryOf(nicDevice())
	w := New(Config{NodeName: "node-a", Client: s, Entry: func(types.UID) *claim.Entry { return entry }})
	defer w.queue.ShutDown()
	for b.Loop() {
		w.Prepared(s.claim, nil)
		w.Attached(attach.Change{Claim: "uid", Pod: "pod-a", Attached: true})
	}
}
