package e2e

// Metrics: a real Prometheus, Debian's, scrapes the DaemonSet's pods, and a query
// gives utilization by pod. Debian builds it without Kubernetes discovery, so the
// test hands it the pods' addresses.

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// utilizationByPod is the query that docs/metrics.md gives to users; the test holds it against the page.
const utilizationByPod = `avg by (namespace, pod) (
  max by (instance, device, namespace, pod) (hostler_claim_info)
  * on (instance, device) group_left () hw_gpu_utilization_ratio
)`

func TestPrometheusKnowsUtilizationByPod(t *testing.T) {
	binary, err := exec.LookPath("prometheus")
	if err != nil {
		t.Fatal("prometheus is not installed: test/deps.sh installs it from Debian")
	}
	page, err := os.ReadFile(filepath.Join(repository(), "docs", "metrics.md"))
	must(t, err)
	if !strings.Contains(string(page), utilizationByPod) {
		t.Errorf("docs/metrics.md does not give the query that is tested here:\n%s", utilizationByPod)
	}
	s := newScenario(t)
	s.apply(template("one-gpu", requests(request("gpu", oneGPU))), pod("trainer", "one-gpu", ""))
	s.awaitReady("trainer")
	gpu := s.node.gpu(t, s.claimOf("trainer").Status.Allocation.Devices.Results[0].Device)
	must(t, s.node.nvml().SetUtilization(gpu.Index, 73))
	t.Cleanup(func() { must(t, s.node.nvml().SetUtilization(gpu.Index, 0)) })

	server := startPrometheus(s, binary)
	s.eventually("Prometheus says 0.73 for the pod", func() error {
		result, err := query(server, utilizationByPod)
		if err != nil {
			return err
		}
		for _, sample := range result {
			if sample.Metric["pod"] == "trainer" && sample.Metric["namespace"] == s.namespace && fmt.Sprint(sample.Value[1]) == "0.73" {
				return nil
			}
		}
		return fmt.Errorf("the query returned %v", result)
	})
	idle, err := query(server, "count(hw_gpu_utilization_ratio)")
	must(t, err)
	if len(idle) != 1 || fmt.Sprint(idle[0].Value[1]) != "8" {
		t.Errorf("utilization is known of %v GPUs, want all 8, idle ones included", idle)
	}
}

type sample struct {
	Metric map[string]string `json:"metric"`
	Value  [2]any            `json:"value"`
}

func query(server, expression string) ([]sample, error) {
	response, err := http.Get(server + "/api/v1/query?query=" + url.QueryEscape(expression))
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, err
	}
	var answer struct {
		Status, Error string
		Data          struct{ Result []sample }
	}
	if err := json.Unmarshal(body, &answer); err != nil || answer.Status != "success" {
		return nil, fmt.Errorf("query %q: %w: %s", expression, err, body)
	}
	return answer.Data.Result, nil
}

// startPrometheus runs a server that discovers annotated pods, and returns its URL.
func startPrometheus(s *scenario, binary string) string {
	s.Helper()
	dir := s.TempDir()
	var pods corev1.PodList
	s.getJSON(&pods, "-n", agentNamespace, "pods", "--field-selector=spec.nodeName="+s.node.Name)
	var targets strings.Builder
	for _, pod := range pods.Items {
		port, path := pod.Annotations["prometheus.io/port"], pod.Annotations["prometheus.io/path"]
		fmt.Fprintf(&targets, "  - {targets: ['%s:%s'], labels: {__metrics_path__: %s, node: %s}}\n", pod.Status.PodIP, port, path, pod.Spec.NodeName)
	}
	must(s.T, os.WriteFile(filepath.Join(dir, "prometheus.yml"), []byte(`global: {scrape_interval: 1s}
scrape_configs:
- job_name: hostler
  honor_labels: true
  static_configs:
`+targets.String()), 0o600))
	const address = "127.0.0.1:19090"
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, binary, "--config.file="+filepath.Join(dir, "prometheus.yml"), "--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+address)
	var log strings.Builder
	cmd.Stdout, cmd.Stderr = &log, &log
	must(s.T, cmd.Start())
	s.Cleanup(func() {
		cancel()
		_ = cmd.Wait() // killed by the line above; its exit status says so
		if s.Failed() {
			s.Logf("prometheus:\n%s", log.String())
		}
	})
	server := "http://" + address
	deadline := time.Now().Add(patience)
	for {
		response, err := http.Get(server + "/-/ready")
		if err == nil {
			response.Body.Close()
			if response.StatusCode == http.StatusOK {
				return server
			}
		}
		if time.Now().After(deadline) {
			s.Fatalf("prometheus is not ready: %v", err)
		}
		time.Sleep(200 * time.Millisecond) // polling pace
	}
}
