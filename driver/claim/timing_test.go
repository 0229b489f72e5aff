package claim

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// observations are what a runner told, each as "step phase result".
type observations struct {
	mu   sync.Mutex
	seen []string
}

func (o *observations) observe(step, phase string, duration time.Duration, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	word := "ok"
	if err != nil || duration < 0 {
		word = "failed"
	}
	o.seen = append(o.seen, fmt.Sprintf("%s %s %s", step, phase, word))
}

// take returns what was told since the last time.
func (o *observations) take() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	seen := o.seen
	o.seen = nil
	return seen
}

func TestEachPartOfAClaimsWorkIsTimed(t *testing.T) {
	r := newRoom(t, t.TempDir(), boot)
	var told observations
	r.cfg.Observe = told.observe
	c := allocated("a", onGPU("gpu-0000-17-00-0"))
	if _, err := r.prepare(c); err != nil {
		t.Fatal(err)
	}
	first := told.take()
	for i, want := range []string{"plan do ok", "resolve do ok", "admit do ok", "journal do ok"} {
		if first[i] != want {
			t.Errorf("part %d is %q, want %q", i, first[i], want)
		}
	}
	// The steps follow in their order, each read back at once.
	var steps []string
	for _, step := range r.cfg.Steps(r.journal.Entry(c.UID)) {
		steps = append(steps, step.Kind()+" do ok", step.Kind()+" verify ok")
	}
	if got := first[4:]; !slices.Equal(got, steps) {
		t.Errorf("steps %q, want %q", got, steps)
	}

	if _, err := r.prepare(c); err != nil {
		t.Fatal(err)
	}
	if again := told.take(); !slices.Equal(again, steps) {
		t.Errorf("a repeated prepare plans and records nothing: %q", again)
	}

	r.attacher.fail = errors.New("the netdev is busy")
	if err := r.Unprepare(t.Context(), c.UID); err == nil {
		t.Fatal("unprepared")
	}
	r.attacher.fail = nil
	if err := r.Unprepare(t.Context(), c.UID); err != nil {
		t.Fatal(err)
	}
	results := map[string]bool{}
	for _, part := range told.take() {
		if !strings.Contains(part, " undo ") {
			t.Errorf("unprepare does %q", part)
		}
		results[part] = true
	}
	for _, want := range []string{"cdi undo ok", "network undo failed", "network undo ok", "journal undo ok"} {
		if !results[want] {
			t.Errorf("unprepare does not say %q: %q", want, slices.Sorted(maps.Keys(results)))
		}
	}
}
