// What is about to change the journal is waited for, a moment, before the journal is
// written: claims of one call are planned side by side, and the first to be ready
// would otherwise write alone and have the others wait for a second write. A disk
// takes longer for one write than the wait may last.

package claim

import (
	"runtime"
	"sync"
	"time"
)

// gatherLimit bounds the wait: a claim whose plan needs the API server or a GPU
// holds nobody up for longer.
const gatherLimit = 300 * time.Microsecond

// gathering counts who is about to change the journal.
type gathering struct {
	mu       sync.Mutex
	expected int
	// none is closed when nobody is expected any more; nil while nobody waits for that.
	none chan struct{}
}

// Expect says that a change will come soon. The caller calls arrived right before it
// makes the change, or when there will be none; further calls do nothing.
func (j *Journal) Expect() (arrived func()) {
	g := &j.gathering
	g.mu.Lock()
	g.expected++
	g.mu.Unlock()
	return sync.OnceFunc(func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		if g.expected--; g.expected == 0 && g.none != nil {
			close(g.none)
			g.none = nil
		}
	})
}

// wait returns when those who are expected have arrived, or after the limit.
func (g *gathering) wait() {
	if none := g.awaited(); none != nil {
		limit := time.NewTimer(gatherLimit)
		defer limit.Stop()
		select {
		case <-none:
		case <-limit.C:
		}
	}
	// Those who have arrived are about to make their change.
	runtime.Gosched()
}

// awaited is closed when nobody is expected; nil if nobody is now.
func (g *gathering) awaited() <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.expected > 0 && g.none == nil {
		g.none = make(chan struct{})
	}
	return g.none
}
