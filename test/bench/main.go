// Command bench measures the agent against the budgets of its design and prints
// a table; `make bench` runs it. It starts a real cluster with a simulated
// DGX H100, installs the chart, and then plays kubelet, Prometheus, user and
// breaking hardware. A figure that misses its budget is shown as a miss and one
// that could not be measured as an error; neither is left out, and only
// --strict makes them the program's failure.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"k8s.io/klog/v2"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var o options
	flag.StringVar(&o.image, "image", filepath.Join("bin", "hostler-image.tar"), "archive of the agent's image, made by `make image`")
	flag.StringVar(&o.output, "output", filepath.Join(".run", "bench.json"), "where to write the figures as JSON")
	flag.StringVar(&o.only, "only", "", "comma-separated names of figures; the others that come with them are measured too")
	flag.BoolVar(&o.strict, "strict", false, "exit with status 1 if a budget is missed")
	flag.BoolVar(&o.keep, "keep", false, "leave the cluster up, for a look or a faster next run")
	flag.Parse()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

type options struct {
	image, output, only string
	strict, keep        bool
}

// measurement yields one or several figures. Its run gets a result for each of
// them, with name, unit and budget filled in where the budget is a constant.
type measurement struct {
	what    string
	figures []Result
	cluster bool // needs the cluster
	run     func(context.Context, *bed, []*Result) error
}

// measurements in the order that they disturb each other least: idle first, and
// the one that takes the agent away last.
func measurements() []measurement {
	return []measurement{
		{"the idle agent", []Result{{Name: "rss", Unit: "MiB", Budget: 40}, {Name: "cpu", Unit: "millicores", Budget: 5}}, true, measureIdle},
		{"scrapes", []Result{{Name: "scrape_p99", Unit: "ms", Budget: 1}}, true, measureScrape},
		{"preparing claims", []Result{
			{Name: "prepare_one_p50", Unit: "ms"}, {Name: "prepare_batch8_p50", Unit: "ms"}, {Name: "prepare_concurrent8_p99", Unit: "ms"},
		}, true, measurePrepare},
		{"faults", []Result{{Name: "fault_to_taint_p99", Unit: "ms", Budget: 100}}, true, measureFaults},
		{"one VF's change", []Result{{Name: "one_vf_change_slices", Unit: "slices", Budget: 1}}, true, measureRewrite},
		{"starting pods", []Result{{Name: "pod_start_added_p50", Unit: "ms", Budget: 100}, {Name: "pod_start_added_gpu_nic_p50", Unit: "ms", Budget: 100}}, true, measurePods},
		{"the start of the agent", []Result{{Name: "start_to_slices", Unit: "ms", Budget: 300}}, true, measureStart},
		{"a scope of 1,000 prefixes", []Result{{Name: "scope_1000_enforce", Unit: "ms", Budget: 5}}, false, measureEnforce},
		{"attaching NICs", attachFigures(), false, measureAttach},
		{"the scheduler's search for a GPU with its NIC", allocateFigures(), false, measureAllocate},
		{"discovery of 16 PFs with 128 VFs each", []Result{{Name: "discover_2000", Unit: "ms", Budget: 1000}}, false, measureDiscover},
	}
}

func run(ctx context.Context, o options) (err error) {
	began := time.Now()
	klog.LogToStderr(false) // what rooms log while they are measured in this process
	chosen, err := choose(measurements(), o.only)
	if err != nil {
		return err
	}
	b := &bed{say: func(format string, args ...any) {
		fmt.Printf("%5.0fs  %s\n", time.Since(began).Seconds(), fmt.Sprintf(format, args...))
	}}
	load, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return fmt.Errorf("ask how busy the machine is: %w", err)
	}
	b.say("%d CPUs, load average %s; a busy machine shows in floors and values alike", runtime.NumCPU(), strings.Fields(string(load))[0])
	var down error
	if slices.ContainsFunc(chosen, func(m measurement) bool { return m.cluster }) {
		down = b.up(ctx, o.image)
		if !o.keep {
			defer func() { err = errors.Join(err, b.down()) }()
		}
	}
	var results []Result
	for _, m := range chosen {
		results = append(results, measure(ctx, b, m, down)...)
	}
	if ctx.Err() != nil {
		return errors.New("interrupted")
	}
	fmt.Println()
	if err := WriteTable(os.Stdout, results); err != nil {
		return err
	}
	for _, a := range b.accounts {
		if err := a.write(os.Stdout); err != nil {
			return err
		}
	}
	if err := WriteJSON(o.output, results); err != nil {
		return err
	}
	missed := 0
	for _, r := range results {
		if !r.OK {
			missed++
		}
	}
	fmt.Printf("\n%d of %d figures within budget; %.0f s; written to %s\n", len(results)-missed, len(results), time.Since(began).Seconds(), o.output)
	if o.strict && missed > 0 {
		return fmt.Errorf("%d figures miss their budget", missed)
	}
	return nil
}

// measure runs one measurement; whatever fails becomes the text of its figures.
func measure(ctx context.Context, b *bed, m measurement, down error) []Result {
	// Values only: no figure of a measurement that fails halfway passes as measured.
	results := slices.Clone(m.figures)
	pointers := make([]*Result, len(results))
	for i := range results {
		pointers[i] = &results[i]
	}
	b.say("measuring %s", m.what)
	err := down
	if err == nil || !m.cluster {
		ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
		defer cancel()
		err = m.run(ctx, b, pointers)
	}
	for _, r := range pointers {
		if err != nil {
			r.Error = strings.ReplaceAll(err.Error(), "\n", "; ")
		}
		r.Judge()
		b.say("  %s", r)
	}
	return results
}

func choose(all []measurement, only string) ([]measurement, error) {
	if only == "" {
		return all, nil
	}
	var chosen []measurement
	for _, name := range strings.Split(only, ",") {
		at := slices.IndexFunc(all, func(m measurement) bool {
			return slices.ContainsFunc(m.figures, func(r Result) bool { return r.Name == name })
		})
		if at < 0 {
			return nil, fmt.Errorf("--only: there is no figure %q", name)
		}
		if !slices.ContainsFunc(chosen, func(m measurement) bool { return m.what == all[at].what }) {
			chosen = append(chosen, all[at])
		}
	}
	return chosen, nil
}
