package main

// What a figure is: a value, the floor that this machine set in the same run,
// and the budget, whose verdict is never softer than value <= budget.

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"text/tabwriter"
	"time"
)

// Result is one line of the table and one object of the JSON list.
type Result struct {
	Name string `json:"name"`
	// Value is null where nothing could be measured; Error says why.
	Value *float64 `json:"value"`
	Unit  string   `json:"unit"`
	// Floor is what the machine itself needs, null where nothing sets one.
	Floor *float64 `json:"floor"`
	// Budget is 0 where it follows from a figure that could not be measured.
	Budget float64 `json:"budget"`
	OK     bool    `json:"ok"`
	// Samples behind the value.
	Samples int `json:"samples"`
	// Note says what value and floor are, as far as the name does not.
	Note  string `json:"note,omitempty"`
	Error string `json:"error,omitempty"`
}

// Set gives the value. A value that is not a number is not one.
func (r *Result) Set(value float64, samples int) {
	if math.IsNaN(value) || math.IsInf(value, 0) {
		r.Error = fmt.Sprintf("the measurement yielded %v", value)
		return
	}
	r.Value, r.Samples = &value, samples
}

// SetFloor gives the floor.
func (r *Result) SetFloor(floor float64) { r.Floor = &floor }

// Judge sets OK.
func (r *Result) Judge() {
	if r.Value == nil && r.Error == "" {
		r.Error = "nothing was measured"
	}
	r.OK = r.Error == "" && *r.Value <= r.Budget
}

func (r *Result) String() string {
	if r.Error != "" {
		return r.Name + ": not measured: " + r.Error
	}
	return fmt.Sprintf("%s: %s %s, budget %s: %s", r.Name, number(r.Value), r.Unit, number(&r.Budget), r.verdict())
}

func (r *Result) verdict() string {
	switch {
	case r.Error != "":
		return "ERROR"
	case r.OK:
		return "ok"
	}
	return "MISS"
}

// number prints three significant digits and no exponent.
func number(value *float64) string {
	if value == nil {
		return "-"
	}
	decimals := 0
	for limit := 100.0; decimals < 3 && math.Abs(*value) < limit; limit /= 10 {
		decimals++
	}
	return strconv.FormatFloat(*value, 'f', decimals, 64)
}

// WriteTable writes the table for people.
func WriteTable(w io.Writer, results []Result) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "FIGURE\tVALUE\tFLOOR\tBUDGET\tUNIT\t\tSAMPLES\tNOTE")
	for _, r := range results {
		note := r.Note
		if r.Error != "" {
			note = r.Error
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\t%d\t%s\n",
			r.Name, number(r.Value), number(r.Floor), number(&r.Budget), r.Unit, r.verdict(), r.Samples, note)
	}
	return table.Flush()
}

// WriteJSON writes the list for programs.
func WriteJSON(path string, results []Result) error {
	raw, err := json.MarshalIndent(results, "", "  ")
	if err != nil {
		return fmt.Errorf("encode the figures: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("make the directory of %s: %w", path, err)
	}
	if err := os.WriteFile(path, append(raw, '\n'), 0o644); err != nil {
		return fmt.Errorf("write the figures: %w", err)
	}
	return nil
}

// samples are durations of one kind, in milliseconds.
type samples []float64

func (s *samples) add(d time.Duration) { *s = append(*s, milliseconds(d)) }

// percentile is the nearest-rank one: the smallest sample that at least that
// share of all samples does not exceed, so it is always a sample. NaN of none.
func (s samples) percentile(share float64) float64 {
	if len(s) == 0 {
		return math.NaN()
	}
	sorted := slices.Sorted(slices.Values(s))
	rank := int(math.Ceil(share * float64(len(sorted))))
	return sorted[min(max(rank, 1), len(sorted))-1]
}

func (s samples) p50() float64 { return s.percentile(0.50) }
func (s samples) p99() float64 { return s.percentile(0.99) }

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
