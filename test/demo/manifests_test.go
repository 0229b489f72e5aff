package main

// What the demo hands to the cluster must be right before there is one: each
// manifest is decoded as strictly as the API server and the agent do it.

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"text/template"

	corev1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	"sigs.k8s.io/yaml"

	"github.com/hostler-dev/hostler/api/v1alpha1"
)

func TestManifestsAreStrictlyValid(t *testing.T) {
	for _, file := range []string{"trainers.yaml", "agent.yaml"} {
		content, err := os.ReadFile(filepath.Join("manifests", file))
		if err != nil {
			t.Fatal(err)
		}
		templates, pods := map[string]bool{}, map[string]string{}
		for document := range bytes.SplitSeq(content, []byte("\n---\n")) {
			if bytes.Contains(document, []byte("kind: Pod\n")) {
				var pod corev1.Pod
				strictly(t, file, document, &pod)
				pods[pod.Name] = *pod.Spec.ResourceClaims[0].ResourceClaimTemplateName
				if *pod.Spec.TerminationGracePeriodSeconds < 1 {
					t.Errorf("%s: pod %s is gone from the API before its devices are free; a successor would wait a minute for them", file, pod.Name)
				}
				continue
			}
			var claim resourceapi.ResourceClaimTemplate
			strictly(t, file, document, &claim)
			templates[claim.Name] = true
			for _, config := range claim.Spec.Spec.Devices.Config {
				if _, err := v1alpha1.Decode(config.Opaque.Parameters.Raw); err != nil {
					t.Errorf("%s: the config of %s: %v", file, claim.Name, err)
				}
			}
		}
		for pod, name := range pods {
			if !templates[name] {
				t.Errorf("%s: pod %s wants claim template %s, which is not there", file, pod, name)
			}
		}
		if len(pods) == 0 {
			t.Errorf("%s holds no pod", file)
		}
	}
}

func strictly(t *testing.T, file string, document []byte, into any) {
	t.Helper()
	if err := yaml.UnmarshalStrict(document, into); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
}

func TestDeviceTableShowsTaints(t *testing.T) {
	content, err := os.ReadFile("devices.gotmpl")
	if err != nil {
		t.Fatal(err)
	}
	table, err := template.New("devices").Parse(string(content))
	if err != nil {
		t.Fatal(err)
	}
	// kubectl hands a template the object's JSON.
	var list map[string]any
	strictly(t, "slices", []byte(`
items:
- spec:
    devices:
    - name: egress
      attributes: {hostler.dev/type: {string: egress}}
    - name: nic-0000-18-00-0
      attributes:
        hostler.dev/type: {string: nic}
        hostler.dev/ifName: {string: enp24s0np0}
        hostler.dev/affinityGroup: {string: switch-0000-16-00-0}
        resource.kubernetes.io/numaNode: {int: 0}
        resource.kubernetes.io/pcieRoot: {string: "pci0000:15"}
      taints: [{key: hostler.dev/uplink, value: default-route, effect: NoSchedule}]
`), &list)
	var out strings.Builder
	if err := table.Execute(&out, list); err != nil {
		t.Fatal(err)
	}
	const want = `DEVICE            TYPE    PRODUCT / INTERFACE    NUMA  PCIE ROOT   AFFINITY GROUP
egress            egress                                           
nic-0000-18-00-0  nic     enp24s0np0             0     pci0000:15  switch-0000-16-00-0
nic-0000-18-00-0  tainted hostler.dev/uplink=default-route:NoSchedule
`
	if got := trimmed(out.String()); got != trimmed(want) {
		t.Errorf("the table:\n%s\nwant:\n%s", got, trimmed(want))
	}
}

// trimmed drops the padding at the ends of lines.
func trimmed(text string) string {
	var lines []string
	for line := range strings.Lines(text) {
		lines = append(lines, strings.TrimRight(line, " \n"))
	}
	return strings.Join(lines, "\n")
}
