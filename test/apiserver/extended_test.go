package apiserver

// The chart's DeviceClasses on every release: one that has no extended resources
// takes the classes all the same.

import (
	"bytes"
	"os/exec"
	"path/filepath"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/hostler-dev/hostler/test/cluster/binaries"
)

func TestDeviceClassesOfTheChart(t *testing.T) {
	t.Parallel()
	tree, err := binaries.Tree()
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		release   string
		arguments []string
		value     string
		want      string
	}{
		"1.34, where it is alpha":      {release: "1.34"},
		"1.34 with the gate on":        {release: "1.34", arguments: []string{"--feature-gates=DRAExtendedResource=true"}, want: "hostler.dev/gpu"},
		"1.35, where it is alpha":      {release: "1.35"},
		"1.36, where it is beta":       {release: "1.36", want: "hostler.dev/gpu"},
		"1.37, where it is GA":         {release: "1.37", want: "hostler.dev/gpu"},
		"1.37, switched off by values": {release: "1.37", value: "deviceClasses.extendedResources=false"},
	} {
		t.Run(name, func(t *testing.T) {
			render := exec.CommandContext(t.Context(), filepath.Join(built.tools, "helm"), "template", "hostler", filepath.Join(tree, "deploy", "chart"),
				"--kube-version="+test.release+".0", "--show-only=templates/deviceclasses.yaml", "--set="+test.value)
			classes, err := render.Output()
			if err != nil {
				t.Fatal(err)
			}
			s := startServer(t, test.release, test.arguments...)
			create := exec.CommandContext(t.Context(), filepath.Join(built.tools, "kubectl"), "--server=https://"+s.address, "--insecure-skip-tls-verify",
				"--token="+adminToken, "--kubeconfig=/dev/null", "--cache-dir="+filepath.Join(s.dir, "kubectl"), "create", "--validate=strict", "-f", "-")
			create.Stdin = bytes.NewReader(classes)
			if output, err := create.CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, output)
			}
			list, err := s.client(t, adminToken).ResourceV1().DeviceClasses().List(t.Context(), metav1.ListOptions{})
			if err != nil || len(list.Items) != 5 {
				t.Fatalf("%d classes: %v", len(list.Items), err)
			}
			for _, class := range list.Items {
				got, want := "", ""
				if class.Spec.ExtendedResourceName != nil {
					got = *class.Spec.ExtendedResourceName
				}
				if class.Name == "gpu.hostler.dev" {
					want = test.want
				}
				if got != want {
					t.Errorf("class %s has extended resource %q, want %q", class.Name, got, want)
				}
			}
		})
	}
}
