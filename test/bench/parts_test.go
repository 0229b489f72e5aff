package main

import (
	"math"
	"strings"
	"testing"
	"time"
)

// Pages of an agent: how many claims it has prepared, and how long
// they took together, in seconds, as do its steps.
const pageBefore = `
# TYPE hostler_prepare_duration_seconds histogram
hostler_prepare_duration_seconds_bucket{result="success",le="+Inf"} 10
hostler_prepare_duration_seconds_sum{result="success"} 1
hostler_prepare_duration_seconds_count{result="success"} 10
# TYPE hostler_claim_step_duration_seconds histogram
hostler_claim_step_duration_seconds_bucket{phase="do",result="success",step="fetch",le="+Inf"} 10
hostler_claim_step_duration_seconds_sum{phase="do",result="success",step="fetch"} 5
hostler_claim_step_duration_seconds_count{phase="do",result="success",step="fetch"} 10
`

const pageAfter = `
# TYPE hostler_prepare_duration_seconds histogram
hostler_prepare_duration_seconds_bucket{result="error",le="+Inf"} 1
hostler_prepare_duration_seconds_sum{result="error"} 0.002
hostler_prepare_duration_seconds_count{result="error"} 1
hostler_prepare_duration_seconds_bucket{result="success",le="+Inf"} 11
hostler_prepare_duration_seconds_sum{result="success"} 1.006
hostler_prepare_duration_seconds_count{result="success"} 11
# TYPE hostler_claim_step_duration_seconds histogram
hostler_claim_step_duration_seconds_bucket{phase="do",result="success",step="fetch",le="+Inf"} 12
hostler_claim_step_duration_seconds_sum{phase="do",result="success",step="fetch"} 5.004
hostler_claim_step_duration_seconds_count{phase="do",result="success",step="fetch"} 12
hostler_claim_step_duration_seconds_bucket{phase="do",result="error",step="journal",le="+Inf"} 1
hostler_claim_step_duration_seconds_sum{phase="do",result="error",step="journal"} 0.001
hostler_claim_step_duration_seconds_count{phase="do",result="error",step="journal"} 1
hostler_claim_step_duration_seconds_bucket{phase="do",result="success",step="journal",le="+Inf"} 1
hostler_claim_step_duration_seconds_sum{phase="do",result="success",step="journal"} 0.004
hostler_claim_step_duration_seconds_count{phase="do",result="success",step="journal"} 1
hostler_claim_step_duration_seconds_bucket{phase="undo",result="success",step="journal",le="+Inf"} 2
hostler_claim_step_duration_seconds_sum{phase="undo",result="success",step="journal"} 9
hostler_claim_step_duration_seconds_count{phase="undo",result="success",step="journal"} 2
`

func TestAccountOfACall(t *testing.T) {
	before, err := readClocks([]byte(pageBefore))
	if err != nil {
		t.Fatal(err)
	}
	after, err := readClocks([]byte(pageAfter))
	if err != nil {
		t.Fatal(err)
	}
	if after.prepare.count != 12 || after.steps["journal, undo"] != (clock{2, 9 * time.Second}) {
		t.Errorf("read %+v", after)
	}
	told := accountFor("one prepared claim", before, after, samples{6, 10}, 1)
	parts := told.parts
	// Two calls of 8 ms in the mean: in the agent 4 each, of which 2.5 are the journal's,
	// after 2 for the fetch. What unprepare does between the calls is not theirs.
	want := []part{
		{"journal, do", 2.5}, {"fetch, do", 2}, {"the rest of the agent", 1.5}, {"gRPC and the kubelet plugin library", 2}, {"all", 8},
	}
	if len(parts) != len(want) {
		t.Fatalf("parts %v, want %v", parts, want)
	}
	for i := range want {
		if parts[i].name != want[i].name || math.Abs(parts[i].spent-want[i].spent) > 1e-6 {
			t.Errorf("part %d is %v, want %v", i, parts[i], want[i])
		}
	}
	var text strings.Builder
	if err := told.write(&text); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(text.String(), "2.500   31 %  journal, do\n") {
		t.Errorf("account:\n%s", text.String())
	}
}
