package claim

import (
	"context"
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// An agent that takes over refuses what its predecessor would have refused.
func TestStragglersAreRefusedByTheNextAgent(t *testing.T) {
	c := allocated("c", onGPU("gpu-0000-17-00-0"))
	for _, test := range []struct {
		name   string
		before func(t *testing.T, r *room)
	}{
		{"a claim that was prepared", func(t *testing.T, r *room) {
			if _, err := r.prepare(c); err != nil {
				t.Fatal(err)
			}
		}},
		{"a claim that never was", func(*testing.T, *room) {}},
	} {
		t.Run(test.name, func(t *testing.T) {
			directory := t.TempDir()
			first := newRoom(t, directory, boot)
			test.before(t, first)
			// The next agent takes calls already while the first one still serves.
			calls := &Arrivals{}
			late := calls.Next()
			if err := first.Unprepare(t.Context(), c.UID); err != nil {
				t.Fatal(err)
			}
			next := newRoom(t, directory, boot)
			next.cfg.Arrivals = calls
			if _, err := next.Prepare(t.Context(), late, c); !errors.Is(err, ErrStraggler) {
				t.Errorf("a prepare from before the unprepare: %v", err)
			}
			if _, err := next.prepare(c); err != nil {
				t.Errorf("a prepare from after it (the claim's next pod): %v", err)
			}
			if _, err := next.Prepare(t.Context(), late, c); !errors.Is(err, ErrStraggler) {
				t.Errorf("the late one once more: %v", err)
			}
		})
	}
}

func TestWhatATombstoneRefuses(t *testing.T) {
	now := time.Date(2026, 11, 21, 6, 0, 0, 0, time.UTC)
	at := func(number uint64, ago time.Duration) Arrival { return Arrival{number: number, at: now.Add(-ago)} }
	for _, test := range []struct {
		name    string
		stone   Tombstone
		arrival Arrival
		want    bool
	}{
		{"this agent's, a call before it", Tombstone{arrival: 5, At: now}, at(4, time.Second), true},
		{"this agent's, a call after it", Tombstone{arrival: 5, At: now}, at(6, 0), false},
		{"this agent's, a call after it by a clock that was set back", Tombstone{arrival: 5, At: now}, at(6, time.Hour), false},
		{"an earlier agent's, a call before it", Tombstone{At: now.Add(-time.Second)}, at(1, 2*time.Second), true},
		{"an earlier agent's, a call after it", Tombstone{At: now.Add(-time.Second)}, at(1, 0), false},
		{"an earlier agent's, in what is the future since the clock was set back", Tombstone{At: now.Add(time.Hour)}, at(1, 0), false},
	} {
		if got := test.stone.refuses(test.arrival, now); got != test.want {
			t.Errorf("%s: refused %v, want %v", test.name, got, test.want)
		}
	}
}

func TestTombstonesAreForgotten(t *testing.T) {
	r := newRoom(t, t.TempDir(), boot)
	now := time.Now()
	for i := range 2 * tombstoneLimit {
		r.bury(types.UID(fmt.Sprint("uid-", i)), Arrival{number: uint64(i + 1), at: now.Add(time.Duration(i) * time.Millisecond)})
	}
	r.bury("old", Arrival{number: 1, at: now.Add(-stragglerLimit - time.Second)})
	if err := r.journal.save(); err != nil {
		t.Fatal(err)
	}
	stones := mustDecode(t, mustRead(t, r.path)).Unprepared
	if len(stones) != tombstoneLimit || stones[0].Claim != types.UID(fmt.Sprint("uid-", tombstoneLimit)) || len(r.journal.unprepared) != tombstoneLimit {
		t.Errorf("%d tombstones on disk, %d in memory, the first of %s; want the last %d", len(stones), len(r.journal.unprepared), stones[0].Claim, tombstoneLimit)
	}
}

// That a claim was unprepared is true even where that cannot be written down.
func TestUnknownClaimIsUnpreparedOnAFullDisk(t *testing.T) {
	r := newRoom(t, t.TempDir(), boot)
	if err := os.RemoveAll(r.path + ".tmp"); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(r.path+".tmp", 0o700); err != nil {
		t.Fatal(err)
	}
	late := r.Arrive()
	c := allocated("c", onGPU("gpu-0000-17-00-0"))
	if err := r.Unprepare(t.Context(), c.UID); err != nil {
		t.Error(err)
	}
	if _, err := r.Prepare(context.Background(), late, c); !errors.Is(err, ErrStraggler) {
		t.Errorf("a late prepare: %v", err)
	}
}

// Neither a prepare nor an unprepare writes the journal more than once.
func TestWritesOfAClaim(t *testing.T) {
	r := newRoom(t, t.TempDir(), boot)
	d := &failingDisk{}
	r.journal.disk = d
	c := allocated("c", onGPU("gpu-0000-17-00-0"))
	if _, err := r.prepare(c); err != nil {
		t.Fatal(err)
	}
	if d.seen[atSync] != 1 || d.seen[atSyncDir] != 1 {
		t.Errorf("prepare: %v", d.seen)
	}
	if _, err := r.prepare(c); err != nil || d.seen[atSync] != 1 {
		t.Errorf("repeated prepare: %v, %v", d.seen, err)
	}
	if err := r.Unprepare(t.Context(), c.UID); err != nil || d.seen[atSync] != 2 {
		t.Errorf("unprepare: %v, %v", d.seen, err)
	}
}
