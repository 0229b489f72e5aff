package claim

import (
	"context"
	"errors"
	"testing"

	"k8s.io/apimachinery/pkg/types"
)

func TestDrainWaitsForWorkThatOutlivedItsCall(t *testing.T) {
	r := NewRunner(RunnerConfig{})
	begun, finish := make(chan struct{}), make(chan struct{})
	call, giveUp := context.WithCancel(t.Context())
	answer := make(chan error, 1)
	go func() {
		answer <- r.operate(call, "a", func(context.Context) error { close(begun); <-finish; return nil })
	}()
	<-begun
	giveUp()
	if err := <-answer; err == nil {
		t.Fatal("the call waited for the work after it had ended")
	}

	patience, impatient := context.WithCancel(t.Context())
	impatient()
	if err := r.Drain(patience); !errors.Is(err, context.Canceled) {
		t.Errorf("while a claim is worked on: %v", err)
	}
	for _, claim := range []types.UID{"a", "b"} {
		work := func(context.Context) error { t.Error("work was begun after the drain"); return nil }
		if err := r.operate(t.Context(), claim, work); !errors.Is(err, ErrDrained) {
			t.Errorf("work on claim %s after the drain began: %v", claim, err)
		}
	}
	close(finish)
	if err := r.Drain(t.Context()); err != nil {
		t.Errorf("once the work is over: %v", err)
	}
}
