// A prepare can be held up until after its claim's unprepare: in the kubelet, in the
// API server's answer, or in the socket of an agent that waits for its turn while
// its predecessor still serves. It must not bring the claim back. So the journal
// remembers for a while which claims were unprepared, and when.
//
// A claim may be prepared again after that, for its next pod. What counts is which
// call arrived first: by number if the same process took both, and by the clock if
// a predecessor took the unprepare. A clock that was set back in between might
// refuse a call that is in order; the kubelet repeats it a moment later, and what
// lies in the future refuses nothing.

package claim

import (
	"context"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"
)

const (
	// stragglerLimit is how long tombstones are kept. A call does not live longer than
	// the kubelet's own limit of 45 seconds by that much.
	stragglerLimit = 10 * time.Minute
	// tombstoneLimit bounds the file where claims come and go by the second: at ten in
	// a second these are the last 50 seconds, in 45 KB.
	tombstoneLimit = 500
)

// Tombstone says when a claim was unprepared.
type Tombstone struct {
	Claim types.UID
	// At is when that was asked for.
	At time.Time
	// arrival is the number of that call, 0 if an earlier process took it.
	arrival uint64
}

// Arrival is when a call came in, which is before the claim is read from the API
// server, since that may take a while.
type Arrival struct {
	number uint64
	at     time.Time
}

// Arrive notes a call that has just come in.
func (r *Runner) Arrive() Arrival { return r.cfg.Arrivals.Next() }

// refuses reports whether a prepare that arrived then came before the unprepare.
func (t Tombstone) refuses(arrival Arrival, now time.Time) bool {
	if t.arrival != 0 {
		return arrival.number < t.arrival
	}
	return arrival.at.Before(t.At) && !t.At.After(now)
}

func (r *Runner) straggles(claim types.UID, arrival Arrival) bool {
	j := r.cfg.Journal
	j.mu.Lock()
	defer j.mu.Unlock()
	stone, buried := j.unprepared[claim]
	return buried && stone.refuses(arrival, time.Now())
}

// bury has prepares of the claim refused that arrived earlier. The journal's next
// write makes that last.
func (r *Runner) bury(claim types.UID, arrival Arrival) {
	j := r.cfg.Journal
	j.mu.Lock()
	defer j.mu.Unlock()
	j.unprepared[claim] = Tombstone{Claim: claim, At: arrival.at.Round(0).UTC(), arrival: arrival.number}
}

// forget is what is left to do for a claim of which the journal knows nothing: its
// tombstone is brought to disk, for the next agent. Where that fails the claim is
// no less unprepared.
func (r *Runner) forget(ctx context.Context, claim types.UID) error {
	if err := r.cfg.Journal.Later(claim, r.cfg.BootID); err != nil {
		return err
	}
	if err := r.cfg.Journal.save(); err != nil {
		klog.FromContext(ctx).Error(err, "That a claim was unprepared is not on disk; should the agent end now, the next one would not refuse a call that is older than that", "claimUID", claim)
	}
	return nil
}

// tombstones returns those that still matter, oldest first, and forgets the others.
// It is called with the journal's lock held.
func (j *Journal) tombstones(now time.Time) []Tombstone {
	var stones []Tombstone
	for claim, stone := range j.unprepared {
		if now.Sub(stone.At) > stragglerLimit {
			delete(j.unprepared, claim)
			continue
		}
		stones = append(stones, stone)
	}
	slices.SortFunc(stones, func(a, b Tombstone) int { return a.At.Compare(b.At) })
	for len(stones) > tombstoneLimit {
		delete(j.unprepared, stones[0].Claim)
		stones = stones[1:]
	}
	return stones
}
