package e2e

// The kubelet probes the address at which the chart lets the agent listen.

import (
	"path/filepath"
	"strings"
	"testing"
)

func TestChartTellsTheKubeletWhereToProbe(t *testing.T) {
	chart := filepath.Join(repository(), "deploy", "chart")
	for address, want := range map[string]struct{ probe, refusal string }{
		":9484":           {probe: "path: /readyz\n              port: 9484\n            periodSeconds"},
		"[::]:9484":       {probe: "path: /readyz\n              port: 9484\n            periodSeconds"},
		"127.0.0.1:9484":  {probe: "path: /readyz\n              port: 9484\n              host: \"127.0.0.1\"\n"},
		"[::1]:9000":      {probe: "path: /readyz\n              port: 9000\n              host: \"::1\"\n"},
		"127.0.0.1:0":     {refusal: "/config/metrics/address"},
		"127.0.0.1":       {refusal: "/config/metrics/address"},
		"127.0.0.1:65536": {refusal: "/config/metrics/address"},
	} {
		t.Run(address, func(t *testing.T) {
			out, err := command(t.Context(), "", "helm", "template", "hostler", chart, "--kube-version=1.37.0", "--set=config.metrics.address="+address)
			if want.refusal != "" {
				if err == nil || !strings.Contains(err.Error(), want.refusal) {
					t.Errorf("the answer is %v, want a refusal that names %s", err, want.refusal)
				}
				return
			}
			if err != nil || !strings.Contains(out, want.probe) {
				t.Errorf("%v: the DaemonSet has no probe\n%s", err, want.probe)
			}
			// On the host's network these would keep a new agent from starting beside the old one.
			if strings.Contains(out, "containerPort") {
				t.Error("the DaemonSet's pods ask for ports of the host")
			}
		})
	}
}
