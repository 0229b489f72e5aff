package e2e

// The samples are what users begin with: each is applied as it stands, and its pod runs.

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// needPairs and needMIG are the samples for another arrangement of the chart and for another node.
const (
	needPairs = "pair.yaml"
	needMIG   = "mig.yaml"
)

func TestSamples(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(repository(), "deploy", "samples", "*.yaml"))
	must(t, err)
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".yaml")
		switch filepath.Base(file) {
		case needPairs, needShares:
			continue // TestPair and TestSharedNICs apply them
		}
		t.Run(name, func(t *testing.T) {
			on := &node1
			if filepath.Base(file) == needMIG {
				on = &node2
			}
			s := newScenarioOn(t, on)
			s.installNetworkAttachmentDefinitions()
			s.applySample(filepath.Base(file))
		})
	}
}

// applySample applies a file of deploy/samples, with an image that is there, and waits for its pods.
func (s *scenario) applySample(file string) {
	s.Helper()
	raw, err := os.ReadFile(filepath.Join(repository(), "deploy", "samples", file))
	must(s.T, err)
	manifest := runnable(string(raw))
	if s.node == &node2 {
		manifest = onMIGNode(strings.TrimRight(manifest, "\n") + "\n")
	}
	s.apply(manifest)
	pods := strings.Fields(s.kubectl("get", "pods", "-o", "jsonpath={.items[*].metadata.name}"))
	if len(pods) == 0 {
		s.Fatalf("%s has no pod", file)
	}
	s.awaitReady(pods...)
}

var busyboxImage = regexp.MustCompile(`(?m)^( *)image: busybox\n`)

// runnable gives a user's pods an image that is there, and an end that is not waited for.
func runnable(manifests string) string {
	manifests = busyboxImage.ReplaceAllString(manifests, "${1}image: "+testImage+"\n${1}imagePullPolicy: Never\n")
	return strings.ReplaceAll(manifests, "  restartPolicy: Never\n", "  restartPolicy: Never\n  terminationGracePeriodSeconds: 0\n")
}
