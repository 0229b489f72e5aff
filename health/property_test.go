package health

import (
	"encoding/json"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func anyObservation(bad bool) *rapid.Generator[Observation] {
	return rapid.Custom(func(t *rapid.T) Observation {
		device := rapid.SampledFrom([]string{gpuA, gpuB}).Draw(t, "device")
		kind := rapid.IntRange(0, 3).Draw(t, "kind")
		if !bad {
			kind = rapid.IntRange(0, 5).Draw(t, "kind")
		}
		switch kind {
		case 0:
			return XIDEvent{device, rapid.Uint64Range(1, CatalogueSize+3).Draw(t, "xid")}
		case 1:
			return MemoryEvent{device}
		case 2, 3:
			return ProbeResult{
				Device: device, Lost: rapid.Bool().Draw(t, "lost"), Hung: rapid.Bool().Draw(t, "hung"),
				Action:       rapid.SampledFrom([]RecoveryAction{ActionUnknown, ActionNone, ActionReset, ActionReboot}).Draw(t, "action"),
				RemapPending: rapid.Bool().Draw(t, "pending"),
			}
		case 4:
			return well(device)
		default:
			return Tick{}
		}
	})
}

// script draws a state that some history led to, and the time after it.
func anyHistory(t *rapid.T) (State, time.Time) {
	now := start
	state, _ := rules.Step(State{}, inventory("boot1", gpuA, gpuB), now)
	for _, o := range rapid.SliceOfN(anyObservation(false), 0, 20).Draw(t, "history") {
		now = now.Add(time.Duration(rapid.IntRange(0, 12_000).Draw(t, "pause")) * time.Millisecond)
		state, _ = rules.Step(state, o, now)
	}
	return state, now.Add(time.Millisecond)
}

// Without a Tick nothing lowers: whatever the machine says, each verdict stays
// and its severity only rises.
func TestSeverityNeverFallsWithoutRecovery(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		state, now := anyHistory(t)
		for _, o := range rapid.SliceOfN(anyObservation(true), 1, 10).Draw(t, "observations") {
			next, _ := rules.Step(state, o, now)
			for _, before := range state.Faults {
				i, found := next.fault(before.Device, before.Family)
				if !found || next.Faults[i].Severity < before.Severity {
					t.Fatalf("%T lowered %v", o, before.Verdict)
				}
			}
			state, now = next, now.Add(time.Second)
		}
	})
}

func TestOrderWithinAnInstantIsIrrelevant(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		state, now := anyHistory(t)
		observations := rapid.SliceOfN(anyObservation(true), 2, 6).Draw(t, "observations")
		shuffled := rapid.Permutation(slices.Clone(observations)).Draw(t, "shuffled")
		one, other := state, state
		for i := range observations {
			one, _ = rules.Step(one, observations[i], now)
			other, _ = rules.Step(other, shuffled[i], now)
		}
		if diff := cmp.Diff(one, other); diff != "" {
			t.Fatalf("the order of observations of one instant changed the state:\n%s", diff)
		}
	})
}

func TestRestartIsIdentity(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		state, _ := anyHistory(t)
		raw, err := encodeState(state)
		if err != nil {
			t.Fatal(err)
		}
		restored, err := decodeState(raw)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(normal(state), normal(restored)); diff != "" {
			t.Fatalf("a restart changed the state:\n%s", diff)
		}
		if !slices.Equal(state.Verdicts(), restored.Verdicts()) {
			t.Fatal("a restart changed the verdicts' bit patterns, so that they would be told again")
		}
	})
}

// normal makes empty lists nil, the one difference that JSON makes.
func normal(s State) State {
	if len(s.Faults) == 0 {
		s.Faults = nil
	}
	return s
}

func TestStepDoesNotTouchItsInput(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		state, now := anyHistory(t)
		before, _ := json.Marshal(state)
		rules.Step(state, anyObservation(false).Draw(t, "observation"), now)
		if after, _ := json.Marshal(state); string(after) != string(before) {
			t.Fatalf("Step changed the state it was given:\n%s\n%s", before, after)
		}
	})
}

func FuzzDecodeState(f *testing.F) {
	raw, err := encodeState(State{BootID: "b", Faults: []Fault{{Verdict: Verdict{Device: gpuA, Family: FamilyXID, Severity: Fatal}}}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Add([]byte(`{"version":1}`))
	f.Add([]byte(`{`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		state, err := decodeState(raw)
		if err != nil {
			return
		}
		again, err := encodeState(state)
		if err != nil {
			t.Skip("a time beyond the year 9999 cannot be written")
		}
		if _, err := decodeState(again); err != nil {
			t.Fatalf("what was read cannot be read again after writing: %v", err)
		}
	})
}
