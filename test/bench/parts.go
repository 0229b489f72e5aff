package main

// Where the time of one prepared claim goes: the agent counts its own parts, step by
// step, and what its caller sees beyond these is the kubelet plugin library's and gRPC's.

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

const (
	prepareFamily = "hostler_prepare_duration_seconds"
	stepFamily    = "hostler_claim_step_duration_seconds"
	hookFamily    = "hostler_hook_duration_seconds"
)

// clock is what the agent has counted so far of one part: how often, and how long together.
type clock struct {
	count uint64
	sum   time.Duration
}

// clocks are those of steps, by step and phase, of all of prepare, and of the runtime's
// hooks, by hook.
type clocks struct {
	prepare      clock
	steps, hooks map[string]clock
}

// clocks reads the agent's page once it counts at least that many prepared claims: it
// is made anew when something has changed, once a second at most.
func (b *bed) clocks(ctx context.Context, prepared uint64) (*clocks, error) {
	url, err := b.environment("HOSTLER_METRICS")
	if err != nil {
		return nil, err
	}
	var read *clocks
	err = eventually(ctx, fmt.Sprintf("the agent's metrics count %d prepared claims", prepared), func() (bool, error) {
		page, err := get(ctx, http.DefaultClient, url)
		if err != nil {
			return false, err
		}
		read, err = readClocks(page)
		return err == nil && read.prepare.count >= prepared, err
	})
	return read, err
}

func readClocks(page []byte) (*clocks, error) {
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(bytes.NewReader(page))
	if err != nil {
		return nil, fmt.Errorf("read the agent's metrics: %w", err)
	}
	read := &clocks{steps: map[string]clock{}, hooks: map[string]clock{}}
	for _, metric := range families[prepareFamily].GetMetric() {
		read.prepare = read.prepare.plus(metric.GetHistogram())
	}
	for _, metric := range families[hookFamily].GetMetric() {
		hook := labelsOf(metric)["hook"]
		read.hooks[hook] = read.hooks[hook].plus(metric.GetHistogram())
	}
	for _, metric := range families[stepFamily].GetMetric() {
		labels := labelsOf(metric)
		name := labels["step"] + ", " + labels["phase"]
		read.steps[name] = read.steps[name].plus(metric.GetHistogram())
	}
	return read, nil
}

func labelsOf(metric *dto.Metric) map[string]string {
	labels := map[string]string{}
	for _, pair := range metric.GetLabel() {
		labels[pair.GetName()] = pair.GetValue()
	}
	return labels
}

func (c clock) plus(h *dto.Histogram) clock {
	return clock{c.count + h.GetSampleCount(), c.sum + time.Duration(h.GetSampleSum()*float64(time.Second))}
}

func (c clock) minus(o clock) clock { return clock{c.count - o.count, c.sum - o.sum} }

// part is one line of an account, in milliseconds.
type part struct {
	name  string
	spent float64
}

// account is where time goes; the last part is all of it.
type account struct {
	of    string
	parts []part
}

// accountFor takes the calls of that many claims each that were measured between two
// readings apart: what each part took for a claim, of the calls' mean. Claims of one call
// have their parts side by side.
func accountFor(of string, before, after *clocks, calls samples, claims int) account {
	all := 0.0
	for _, call := range calls {
		all += call / float64(len(calls))
	}
	n := float64(len(calls) * claims)
	var parts []part
	counted, fetched := 0.0, 0.0
	for _, name := range slices.Sorted(maps.Keys(after.steps)) {
		mean := milliseconds(after.steps[name].minus(before.steps[name]).sum) / n
		switch {
		case strings.HasSuffix(name, ", undo"): // unprepare's
			continue
		case strings.HasPrefix(name, "fetch, "):
			fetched = mean
		default:
			counted += mean
		}
		parts = append(parts, part{name, mean})
	}
	slices.SortStableFunc(parts, func(a, b part) int {
		switch {
		case a.spent > b.spent:
			return -1
		case a.spent < b.spent:
			return 1
		}
		return 0
	})
	prepare := milliseconds(after.prepare.minus(before.prepare).sum) / n
	return account{fmt.Sprintf("%s, mean of %d calls", of, len(calls)), append(parts,
		part{"the rest of the agent", prepare - counted},
		part{"gRPC and the kubelet plugin library", all - prepare - fetched},
		part{"all", all})}
}

func (a account) write(w io.Writer) error {
	fmt.Fprintf(w, "\nWhere the time goes of %s:\n", a.of)
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "ms\tshare\t\t")
	all := a.parts[len(a.parts)-1].spent
	for _, p := range a.parts {
		fmt.Fprintf(table, "%.3f\t%.0f %%\t  %s\n", p.spent, 100*p.spent/all, p.name)
	}
	return table.Flush()
}
