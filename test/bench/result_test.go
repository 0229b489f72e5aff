package main

import (
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestPercentileIsTheNearestRank(t *testing.T) {
	for name, test := range map[string]struct {
		samples samples
		share   float64
		want    float64
	}{
		"one sample is every percentile":          {samples{7}, 0.99, 7},
		"the median of an odd number":             {samples{3, 1, 2}, 0.50, 2},
		"the lower median of an even number":      {samples{4, 1, 3, 2}, 0.50, 2},
		"p99 of fewer than 100 is the largest":    {samples{1, 9, 5}, 0.99, 9},
		"p99 of 100 leaves one above":             {upTo(100), 0.99, 99},
		"p99 of 200 leaves two above":             {upTo(200), 0.99, 198},
		"the hundredth percentile is the largest": {upTo(10), 1, 10},
	} {
		t.Run(name, func(t *testing.T) {
			if got := test.samples.percentile(test.share); got != test.want {
				t.Errorf("got %v, want %v", got, test.want)
			}
		})
	}
}

func upTo(n int) samples {
	var s samples
	for i := range n {
		s = append(s, float64(n-i))
	}
	return s
}

func TestPercentileNeedsTheShareItNames(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := samples(rapid.SliceOfN(rapid.Float64Range(0, 1e6), 1, 300).Draw(t, "samples"))
		share := rapid.Float64Range(0.01, 1).Draw(t, "share")
		before := slices.Clone(s)
		got := s.percentile(share)
		if !slices.Equal(s, before) {
			t.Fatal("the samples were reordered")
		}
		below, notAbove := 0, 0
		for _, sample := range s {
			if sample < got {
				below++
			}
			if sample <= got {
				notAbove++
			}
		}
		if n := float64(len(s)); float64(notAbove) < share*n || float64(below) >= share*n {
			t.Fatalf("%v: %d below it, %d not above it, of %d", got, below, notAbove, len(s))
		}
	})
}

func TestVerdict(t *testing.T) {
	for name, test := range map[string]struct {
		measure func(*Result)
		ok      bool
		error   string
	}{
		"below the budget":                    {func(r *Result) { r.Set(9, 1) }, true, ""},
		"exactly the budget":                  {func(r *Result) { r.Set(10, 1) }, true, ""},
		"above the budget":                    {func(r *Result) { r.Set(10.001, 1) }, false, ""},
		"nothing measured":                    {func(*Result) {}, false, "nothing was measured"},
		"a percentile of no samples":          {func(r *Result) { r.Set(samples{}.p50(), 0) }, false, "the measurement yielded NaN"},
		"good at first, then an error":        {func(r *Result) { r.Set(1, 1); r.Error = "lost" }, false, "lost"},
		"a budget that could not be computed": {func(r *Result) { r.Set(1, 1); r.Budget = 0 }, false, ""},
	} {
		t.Run(name, func(t *testing.T) {
			r := Result{Name: "figure", Budget: 10}
			test.measure(&r)
			r.Judge()
			if r.OK != test.ok || r.Error != test.error {
				t.Errorf("ok %t, error %q; want %t, %q", r.OK, r.Error, test.ok, test.error)
			}
		})
	}
}

func TestNumbersHaveThreeDigits(t *testing.T) {
	for value, want := range map[float64]string{0.1234: "0.123", 1.2345: "1.23", 12.345: "12.3", 123.45: "123", 12345: "12345", 0: "0.000"} {
		if got := number(&value); got != want {
			t.Errorf("%v is printed %q, want %q", value, got, want)
		}
	}
	if got := number(nil); got != "-" {
		t.Errorf("no value is printed %q", got)
	}
}

func TestJSONForm(t *testing.T) {
	measured := Result{Name: "prepare_one_p50", Unit: "ms", Budget: 3}
	measured.Set(2.5, 80)
	measured.SetFloor(2)
	failed := Result{Name: "rss", Unit: "MiB", Budget: 40, Error: "the node runs no agent"}
	results := []Result{measured, failed}
	for i := range results {
		results[i].Judge()
	}
	path := filepath.Join(t.TempDir(), "made", "bench.json")
	if err := WriteJSON(path, results); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var got any
	if err := json.Unmarshal(raw, &got); err != nil {
		t.Fatal(err)
	}
	want := []any{
		map[string]any{"name": "prepare_one_p50", "value": 2.5, "unit": "ms", "floor": 2.0, "budget": 3.0, "ok": true, "samples": 80.0},
		map[string]any{"name": "rss", "value": nil, "unit": "MiB", "floor": nil, "budget": 40.0, "ok": false, "samples": 0.0, "error": "the node runs no agent"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestTableShowsEveryFigureOnOneLine(t *testing.T) {
	missed := Result{Name: "scrape_p99", Unit: "ms", Budget: 1, Note: "40 KiB"}
	missed.Set(1.5, 2000)
	failed := Result{Name: "cpu", Unit: "millicores", Budget: 5, Error: "no agent"}
	results := []Result{missed, failed}
	for i := range results {
		results[i].Judge()
	}
	var b strings.Builder
	if err := WriteTable(&b, results); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(b.String()), "\n")
	if len(lines) != 3 {
		t.Fatalf("%d lines:\n%s", len(lines), b.String())
	}
	for i, want := range [][]string{{"scrape_p99", "1.50", "1.00", "ms", "MISS", "2000", "40 KiB"}, {"cpu", "-", "5.00", "ERROR", "no agent"}} {
		for _, word := range want {
			if !strings.Contains(lines[i+1], word) {
				t.Errorf("%q lacks %q", lines[i+1], word)
			}
		}
	}
}

// The names are what release notes and scripts refer to.
func TestFiguresAreComplete(t *testing.T) {
	var names []string
	for _, m := range measurements() {
		for _, f := range m.figures {
			names = append(names, f.Name)
			if f.Unit == "" {
				t.Errorf("%s has no unit", f.Name)
			}
		}
	}
	slices.Sort(names)
	want := []string{"allocate_match_four", "allocate_match_none", "allocate_match_one", "allocate_pair_four", "allocate_pair_none", "allocate_pair_one",
		"attach_eight_p50", "attach_eight_p99", "attach_one_p50", "attach_one_p99", "cpu",
		"detach_eight_p50", "detach_eight_p99", "detach_one_p50", "detach_one_p99", "discover_2000", "fault_to_taint_p99", "one_vf_change_slices",
		"pod_start_added_gpu_nic_p50", "pod_start_added_p50", "prepare_batch8_p50", "prepare_concurrent8_p99", "prepare_one_p50", "rss", "scope_1000_enforce", "scrape_p99", "start_to_slices"}
	if diff := cmp.Diff(want, names); diff != "" {
		t.Error(diff)
	}
}

func TestChoosingFigures(t *testing.T) {
	chosen, err := choose(measurements(), "prepare_one_p50,rss,prepare_batch8_p50")
	if err != nil || len(chosen) != 2 {
		t.Errorf("chose %d measurements, %v; want two, since two of the figures come together", len(chosen), err)
	}
	if _, err := choose(measurements(), "rss,speed"); err == nil || !strings.Contains(err.Error(), "speed") {
		t.Errorf("an unknown figure is answered with %v", err)
	}
}

func TestProcessTimesAreFoundBehindAnyName(t *testing.T) {
	for name, test := range map[string]struct {
		stat string
		want uint64
		fail bool
	}{
		"a plain name":              {"42 (hostler) S 1 42 42 0 -1 4194560 100 0 0 0 30 12 0 0 20 0 9", 42, false},
		"a name with parenthesis":   {"42 (a) b) 9) S 1 42 42 0 -1 4194560 100 0 0 0 5 6 0 0 20 0 9", 11, false},
		"a line that is cut off":    {"42 (hostler) S 1 42", 0, true},
		"no name":                   {"42 hostler S 1 42 42 0 -1 4194560 100 0 0 0 30 12 0 0 20 0 9", 0, true},
		"times that are no numbers": {"42 (hostler) S 1 42 42 0 -1 4194560 100 0 0 0 x 12 0 0 20 0 9", 0, true},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := ticksOf([]byte(test.stat))
			if got != test.want || (err != nil) != test.fail {
				t.Errorf("got %d, %v", got, err)
			}
		})
	}
}

func FuzzProcessTimes(f *testing.F) {
	f.Add([]byte("42 (hostler) S 1 42 42 0 -1 4194560 100 0 0 0 30 12 0 0 20 0 9"))
	f.Add([]byte(")"))
	f.Fuzz(func(t *testing.T, stat []byte) {
		if ticks, err := ticksOf(stat); err != nil && ticks != 0 {
			t.Errorf("%q: %d ticks beside the error %v", stat, ticks, err)
		}
	})
}

func TestMillisecondsKeepFractions(t *testing.T) {
	var s samples
	s.add(1500 * 1000)
	if math.Abs(s[0]-1.5) > 1e-9 {
		t.Errorf("1.5 ms are %v", s[0])
	}
}
