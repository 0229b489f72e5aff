package claim

import (
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	resourceapi "k8s.io/api/resource/v1"
)

// The claims of one call are prepared, and unprepared, side by side, and their
// entries go to disk together. Which claim a kill hits is not the same each time; that
// there is no moment at which it harms one of them is.
func TestClaimsOfOneCallKilledAtEveryMoment(t *testing.T) {
	claims := []*resourceapi.ResourceClaim{
		allocated("a", onGPU(part1g0)), allocated("b", onNIC("nic-0000-1d-00-1")), allocated("c", onGPU("gpu-0000-17-00-0")), allocated("d", onEgress()),
	}
	with(claims[1], class, vfSettings)
	together := func(work func(*resourceapi.ResourceClaim) error) error {
		faults := make([]error, len(claims))
		var all sync.WaitGroup
		for i, c := range claims {
			all.Go(func() { faults[i] = work(c) })
		}
		all.Wait()
		return errors.Join(faults...)
	}
	prepare := func(a *agent) error {
		return together(func(c *resourceapi.ResourceClaim) error { _, err := a.prepare(c); return err })
	}
	unprepare := func(a *agent) error { return together(a.unprepare) }
	for _, test := range []struct {
		name       string
		given, act func(*agent) error
		moments    int
	}{
		{"prepare", nil, prepare, 40},
		{"unprepare", prepare, unprepare, 40},
	} {
		for at := 1; ; at++ {
			w := newWorld(t, inMemory(t))
			start := w.still()
			if test.given != nil {
				if err := test.given(w.start(0)); err != nil {
					t.Fatal(err)
				}
			}
			doomed := w.start(at)
			err := test.act(doomed)
			if !doomed.dead {
				if at <= test.moments || err != nil {
					t.Errorf("%s: %d moments, want %d; %v", test.name, at-1, test.moments, err)
				}
				break
			}
			name := fmt.Sprintf("%s, killed at moment %d (%s)", test.name, at, doomed.last)
			a := w.start(0)
			if err := errors.Join(prepare(a), a.reconcile(claims...)); err != nil || len(a.journal.Entries()) != len(claims) {
				t.Fatalf("%s, and prepared again: %v, %d entries", name, err, len(a.journal.Entries()))
			}
			a = w.start(0)
			if err := errors.Join(unprepare(a), a.reconcile()); err != nil {
				t.Fatalf("%s, and unprepared in the end: %v", name, err)
			}
			if diff := cmp.Diff(start, w.still()); diff != "" {
				t.Fatalf("%s: the machine in the end (-want +got):\n%s", name, diff)
			}
		}
	}
}
