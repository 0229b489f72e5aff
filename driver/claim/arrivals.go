// Calls are noted in the order in which they come in. An agent that waits for its
// turn takes calls before it has a Runner: both share one count.

package claim

import (
	"sync/atomic"
	"time"
)

// Arrivals notes the calls of one process. The zero value is ready.
type Arrivals struct{ last atomic.Uint64 }

// Next notes a call that has just come in.
func (a *Arrivals) Next() Arrival { return Arrival{number: a.last.Add(1), at: time.Now()} }
