package metrics

import (
	"bytes"
	"flag"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"pgregory.net/rapid"
)

var update = flag.Bool("update", false, "rewrite golden files and docs/metrics.md")

// golden compares with a file, or rewrites it under -update.
func golden(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s is out of date; run go test -update if the change is meant (-file +now):\n%s", path, diff)
	}
}

const partition = "gpu-0000-2a-00-0-mig-1g-10gb-1"

func holders() []Holder {
	return []Holder{
		{Device: "gpu-0000-17-00-0", GPU: "gpu-0000-17-00-0", Pool: "node1/gpu", Request: "gpu", ClaimUID: "uid-1", ClaimNamespace: "team-a", ClaimName: "train-0-gpu",
			Pods: []Pod{{UID: "pod-uid-1", Namespace: "team-a", Name: "train-0"}, {UID: "pod-uid-2", Namespace: "team-a", Name: "train-1"}}},
		{Device: "gpu-0000-17-00-0", GPU: "gpu-0000-17-00-0", Pool: "node1/gpu", Request: "all", ClaimUID: "uid-2", ClaimNamespace: "monitoring", ClaimName: "look",
			Pods: []Pod{{UID: "pod-uid-3", Namespace: "monitoring", Name: "profiler"}}, AdminAccess: true},
		{Device: "nic-0000-18-00-2", NIC: "nic-0000-18-00-2", Pool: "node1/nic", Request: "nic", ClaimUID: "uid-3", ClaimNamespace: "team-b", ClaimName: "unbound"},
		{Device: partition, GPU: "gpu-0000-2a-00-0", Pool: "node1/gpu", Request: "slice", ClaimUID: "uid-4", ClaimNamespace: "team-b", ClaimName: "serve-0-slice",
			Pods: []Pod{{UID: "pod-uid-4", Namespace: "team-b", Name: "serve-0"}}},
		{Device: "egress", Pool: "node1/egress", Request: "out", ClaimUID: "uid-5", ClaimNamespace: "team-b", ClaimName: "serve-0-out",
			Pods: []Pod{{UID: "pod-uid-4", Namespace: "team-b", Name: "serve-0"}}},
	}
}

func fullView(t *testing.T) *View {
	t.Helper()
	b := newBench(t)
	b.ledger.holders = holders()
	b.SetFaults([]Fault{{Device: "gpu-0000-2a-00-0", Family: "xid", Reason: "79", Severity: 4}, {Family: "driver", Reason: "failed", Severity: 4}})
	b.run(t)
	v := b.pass(t, "every device is sampled", allSampled)
	v.Now = v.Now.Truncate(time.Hour).Add(2500 * time.Millisecond)
	for i := range v.GPUs {
		v.GPUs[i].SampledAt = v.Now.Add(-1500 * time.Millisecond)
	}
	for i := range v.NICs {
		v.NICs[i].SampledAt = v.Now.Add(-1500 * time.Millisecond)
	}
	v.Containers = Containers{
		{"team-a", "train-0", "team-a", "train-0-gpu", "node1/gpu", "gpu-0000-17-00-0"}: {"main", "sidecar"},
		{"team-b", "serve-0", "team-b", "serve-0-slice", "node1/gpu", partition}:        {"server"},
	}
	return v
}

func TestPageOfATwoGPUMachine(t *testing.T) {
	text := string(appendFamilies(nil, specification(), fullView(t)))
	golden(t, "testdata/two-gpus.prom", text)
	for _, absent := range []string{
		`hw_gpu_utilization_ratio{device="gpu-0000-2a-00-0"`, // MIG: not supported is absent, not zero
		`pod="profiler"`, // an administrator looking on does not use the device
	} {
		if strings.Contains(text, absent) {
			t.Errorf("the page has %s", absent)
		}
	}
}

func TestPagePassesTheLinterAndTheParser(t *testing.T) {
	recorder := NewRecorder()
	observeEach(recorder)
	text, err := appendGathered(appendFamilies(nil, specification(), fullView(t)), recorder.registry)
	if err != nil {
		t.Fatal(err)
	}
	problems, err := promlint.New(bytes.NewReader(text)).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	if _, err := parser.TextToMetricFamilies(bytes.NewReader(text)); err != nil {
		t.Error(err)
	}
}

// observeEach lets every self-metric have a series.
func observeEach(r *Recorder) {
	r.ObservePrepare("ok", time.Millisecond)
	r.ObserveUnprepare("ok", time.Millisecond)
	r.ObserveStep("cdi", "do", "ok", time.Millisecond)
	r.ObserveHook("gate", "ok", time.Millisecond)
	r.ObservePublish("ok", time.Millisecond)
	r.ObserveReconcile("claims", "ok", time.Millisecond)
	r.CountDrift("claim-gone")
	r.SetDrift("undo-failed", 1)
	r.ObserveXID("gpu-0000-17-00-0", 79)
}

func TestAnyLabelAndValueSurvivesTheParser(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		label, value := rapid.String().Draw(t, "label"), rapid.Float64().Draw(t, "value")
		f := family{"hostler_test", gauge, "Help with \\ and\nnewline.", []string{"a", "b"}, func(_ *View, emit emitter) { emit(value, label, "x"); emit(1, label, "x") }}
		text := appendFamilies(nil, []family{f}, nil)
		parser := expfmt.NewTextParser(model.UTF8Validation)
		families, err := parser.TextToMetricFamilies(bytes.NewReader(text))
		if err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		series := families["hostler_test"].GetMetric()
		if len(series) != 1 || series[0].GetGauge().GetValue() != value || series[0].GetLabel()[0].GetValue() != strings.ToValidUTF8(label, "\uFFFD") {
			t.Fatalf("label %q, value %v came back as %v", label, value, series)
		}
	})
}
