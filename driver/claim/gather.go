// What is about to change the journal is waited for, a moment, before the journal is
// written: claims of one call are planned side by side, and the first to be ready
// would otherwise write alone and have the others wait for a second write. A disk
// takes longer for one write than the wait may last.

package claim

import (
	"maps"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// gatherLimit bounds the wait: a claim whose plan needs the API server or a GPU
// holds nobody up for longer.
const gatherLimit = time.Millisecond

// gatherPatience is how long one is expected at all: whoever waits for earlier work on
// its claim, or in a step, must not cost every write the limit.
const gatherPatience = 10 * gatherLimit

// gathering knows who is about to change the journal.
type gathering struct {
	mu sync.Mutex
	// expected says since when.
	expected map[types.UID]time.Time
	// none is closed when nobody is expected any more; nil while nobody waits for that.
	none chan struct{}
}

// Expect says that a change for each of the claims will come soon. With the change the
// claim has arrived; the caller calls arrived when there will be none, or none any more.
// Further calls do nothing. A claim that is expected twice has arrived with the first.
func (j *Journal) Expect(claims ...types.UID) (arrived func()) {
	g := &j.gathering
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.expected == nil {
		g.expected = map[types.UID]time.Time{}
	}
	for _, claim := range claims {
		g.expected[claim] = time.Now()
	}
	return sync.OnceFunc(func() { g.arrived(claims...) })
}

func (g *gathering) arrived(claims ...types.UID) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, claim := range claims {
		delete(g.expected, claim)
	}
	if len(g.expected) == 0 && g.none != nil {
		close(g.none)
		g.none = nil
	}
}

// wait returns when those who are expected have arrived, or after the limit.
func (g *gathering) wait() {
	none := g.awaited()
	if none == nil {
		return
	}
	limit := time.NewTimer(gatherLimit)
	defer limit.Stop()
	select {
	case <-none:
	case <-limit.C:
	}
}

// awaited is closed when nobody is expected; nil if nobody is now.
func (g *gathering) awaited() <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	maps.DeleteFunc(g.expected, func(_ types.UID, since time.Time) bool { return time.Since(since) > gatherPatience })
	switch {
	case len(g.expected) == 0 && g.none != nil:
		close(g.none)
		g.none = nil
	case len(g.expected) > 0 && g.none == nil:
		g.none = make(chan struct{})
	}
	return g.none
}
