package metrics

import (
	"fmt"
	"strings"
	"testing"

	dto "github.com/prometheus/client_model/go"
)

// docs/metrics.md is written from the specification, so that it cannot drift.
func TestDocumentationIsCurrent(t *testing.T) {
	golden(t, "../docs/metrics.md", documentation(t))
}

func documentation(t *testing.T) string {
	t.Helper()
	var doc strings.Builder
	doc.WriteString(docIntroduction)
	doc.WriteString("\n## Devices\n\n| Metric | Type | Labels | Meaning |\n|---|---|---|---|\n")
	for _, f := range specification() {
		writeRow(&doc, f.name, string(f.kind), f.labels, f.help)
	}
	doc.WriteString("\n## The agent itself\n\nBeside these, the usual `process_*` and `go_*` metrics. A histogram's `_count` is the number of requests.\n\n| Metric | Type | Labels | Meaning |\n|---|---|---|---|\n")
	recorder := NewRecorder()
	observeEach(recorder)
	families, err := recorder.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if strings.HasPrefix(f.GetName(), "hostler_") {
			var labels []string
			for _, pair := range f.GetMetric()[0].GetLabel() {
				labels = append(labels, pair.GetName())
			}
			writeRow(&doc, f.GetName(), strings.ToLower(dto.MetricType_name[int32(f.GetType())]), labels, f.GetHelp())
		}
	}
	doc.WriteString(docQueries)
	return doc.String()
}

func writeRow(doc *strings.Builder, name, kind string, labels []string, help string) {
	list := "–"
	if len(labels) > 0 {
		list = "`" + strings.Join(labels, "`, `") + "`"
	}
	fmt.Fprintf(doc, "| `%s` | %s | %s | %s |\n", name, kind, list, help)
}

const docIntroduction = `<!-- Written by go test ./metrics -update from the specification in metrics/spec.go. -->
# Metrics

The agent serves Prometheus's text format on ` + "`/metrics`" + ` (port 9484 by default). Devices are measured in the
background every ` + "`metrics.interval`" + ` (5 s); the page is made at most once a second, and a scrape only copies it. A scrape
never waits for a driver, the kubelet or the API server.

What to know before you build on them:

- Names follow OpenTelemetry's hardware conventions where those have one; the convention's ` + "`hw.id`" + ` is the label ` + "`device`" + `.
- ` + "`device`" + ` is the device's name everywhere in Hostler: in ResourceSlices, taints, events, logs. It comes from the PCI address.
- Every device has its series, used or idle, and keeps the same labels for life. Who uses it is said by ` + "`hostler_claim_info`" + ` alone.
- What a device or driver does not offer is absent, never 0. With MIG enabled, NVML offers no utilization of the whole GPU.
- Partitions (MIG devices) are listed while they exist and attributed to those who hold them, but not measured: memory, temperature,
  power and energy are their GPU's, with all that runs on it. The label ` + "`gpu`" + ` leads from a partition to its GPU.
- A pair is shown as what it is made of: ` + "`hostler_claim_info`" + ` has a series with ` + "`device`" + ` for its GPU and one for its NIC, so that queries need not
  know of pairs. The name in the claim's allocation is ` + "`allocated_device`" + `, which for all other devices is the same as ` + "`device`" + `.
- A device that cannot be measured (hung, lost) goes stale alone: after three intervals its series end, and only
  ` + "`hostler_sample_age_seconds`" + ` goes on and grows. Alert on that one.
- VFs are shown while a claim holds them. The netdev counters of a NIC end while its netdev is in a pod; its RDMA counters go on.
- Scrape with ` + "`honor_labels: true`" + ` (in a PodMonitor: ` + "`honorLabels: true`" + `), or Prometheus renames ` + "`pod`, `namespace` and `container`" + ` of
  ` + "`hostler_claim_info`" + ` to ` + "`exported_pod`" + ` and so on, in favour of the agent's own.
`

const docQueries = `
## Queries

GPU utilization by pod. The claim stands on the left, since several pods may share a device:

` + "```promql" + `
avg by (namespace, pod) (
  max by (instance, device, namespace, pod) (hostler_claim_info)
  * on (instance, device) group_left () hw_gpu_utilization_ratio
)
` + "```" + `

Memory in use on the GPUs of each claim:

` + "```promql" + `
sum by (claim_namespace, claim) (
  max by (instance, device, claim_namespace, claim) (hostler_claim_info)
  * on (instance, device) group_left () hw_gpu_memory_usage_bytes
)
` + "```" + `

GPUs that are claimed and idle for half an hour:

` + "```promql" + `
max by (instance, device, namespace, pod) (hostler_claim_info)
and on (instance, device) max_over_time(hw_gpu_utilization_ratio[30m]) < 0.01
` + "```" + `

Power of the GPUs that each pod has, wholly or a partition of. All who share a GPU are shown with all of its power:

` + "```promql" + `
max by (instance, gpu, namespace, pod) (hostler_claim_info{gpu!=""})
* on (instance, gpu) group_left () label_replace(hw_power_watts, "gpu", "$1", "device", "(.+)")
` + "```" + `

Devices that no longer answer, and faults that keep pods away:

` + "```promql" + `
hostler_sample_age_seconds > 30
hostler_device_fault_severity >= 3
` + "```" + `
`
