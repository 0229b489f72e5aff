package metrics

// The queries of docs/metrics.md, run by Prometheus's own engine on a page.

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// promtool's unit tests of rules, as far as they are used here; JSON is YAML.
type (
	ruleTests struct {
		Tests []ruleTest `json:"tests"`
	}
	ruleTest struct {
		Interval string            `json:"interval"`
		Series   []promSeries      `json:"input_series"`
		Queries  []promExpectation `json:"promql_expr_test"`
	}
	promSeries struct {
		Series string `json:"series"`
		Values string `json:"values"`
	}
	promExpectation struct {
		Query string       `json:"expr"`
		At    string       `json:"eval_time"`
		Want  []promSample `json:"exp_samples"`
	}
	promSample struct {
		Labels string  `json:"labels"`
		Value  float64 `json:"value"`
	}
)

// scraped are the series of a page as Prometheus stores them, unchanged for an hour.
func scraped(t *testing.T, page string) (all []promSeries) {
	t.Helper()
	line := regexp.MustCompile(`(?m)^([a-z_]+)(?:\{(.*)\})? (\S+)$`)
	for _, part := range line.FindAllStringSubmatch(page, -1) {
		all = append(all, promSeries{part[1] + `{instance="node1",` + part[2] + "}", part[3] + "x60"})
	}
	return all
}

func TestQueriesOfTheDocumentation(t *testing.T) {
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("needs promtool, which comes with Prometheus")
	}
	v := fullView(t)
	v.Containers = nil
	v.Holders = []Holder{
		{Device: pair, GPU: "gpu-0000-17-00-0", NIC: "nic-0000-18-00-2", ClaimUID: "uid-1", ClaimNamespace: "team-a", ClaimName: "both",
			Pods: []Pod{{UID: "pod-uid-1", Namespace: "team-a", Name: "train-0"}, {UID: "pod-uid-2", Namespace: "team-a", Name: "train-1"}}},
		{Device: partition, GPU: "gpu-0000-2a-00-0", ClaimUID: "uid-2", ClaimNamespace: "team-b", ClaimName: "slice",
			Pods: []Pod{{UID: "pod-uid-3", Namespace: "team-b", Name: "serve-0"}}},
	}
	test := ruleTest{Interval: "1m", Series: scraped(t, string(appendFamilies(nil, specification(), v)))}
	want := map[string][]promSample{
		"GPU utilization by pod": {{`{namespace="team-a", pod="train-0"}`, 0.93}, {`{namespace="team-a", pod="train-1"}`, 0.93}},
		"Memory in use":          {{`{claim="both", claim_namespace="team-a"}`, 20 << 30}},
		"GPUs that are claimed":  {},
		"Power of the GPUs": {
			{`{gpu="gpu-0000-17-00-0", instance="node1", namespace="team-a", pod="train-0"}`, 512.25},
			{`{gpu="gpu-0000-17-00-0", instance="node1", namespace="team-a", pod="train-1"}`, 512.25},
			{`{gpu="gpu-0000-2a-00-0", instance="node1", namespace="team-b", pod="serve-0"}`, 70},
		},
	}
	for title, samples := range want {
		_, rest, found := strings.Cut(docQueries, "\n"+title)
		if !found {
			t.Fatalf("docs/metrics.md has no query %q", title)
		}
		_, rest, _ = strings.Cut(rest, "```promql\n")
		query, _, _ := strings.Cut(rest, "```")
		test.Queries = append(test.Queries, promExpectation{Query: query, At: "40m", Want: samples})
	}
	raw, err := json.Marshal(ruleTests{[]ruleTest{test}})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "queries.yaml")
	if err := os.WriteFile(file, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), promtool, "test", "rules", file).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
