package e2e

// Claims that ask for a place in the machine, exactly as docs/topology.md gives
// them, and the drawings that show who got it.

import (
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	resourceapi "k8s.io/api/resource/v1"

	"github.com/hostler-dev/hostler/test/machine"
)

func TestDocumentedClaims(t *testing.T) {
	s := newScenario(t)
	expected, err := machine.LoadExpected(s.node.machine)
	must(t, err)
	for _, claim := range []struct {
		name string
		// fits says whether the devices are what the claim asks for, by what is written down of the machine.
		fits func(gpus, nics []string) bool
	}{
		{"gpu-and-nearest-nic", func(gpus, nics []string) bool {
			return slices.ContainsFunc(expected.AffinityGroups, func(g machine.AffinityGroup) bool {
				return len(gpus) == 1 && len(nics) == 1 && slices.Contains(g.GPUs, gpus[0]) && slices.Contains(g.NICs, nics[0])
			})
		}},
		{"four-gpus-of-one-island", func(gpus, _ []string) bool {
			return slices.ContainsFunc(expected.Islands, func(island []string) bool {
				return len(gpus) == 4 && !slices.ContainsFunc(gpus, func(gpu string) bool { return !slices.Contains(island, gpu) })
			})
		}},
		{"one-numa-node", func(gpus, nics []string) bool {
			near := func(nic string) bool { return !slices.Contains([]string{"SYS", ""}, expected.Cell(gpus[0], nic)) }
			return len(gpus) == 2 && len(nics) == 1 && expected.NUMA[gpus[0]] == expected.NUMA[gpus[1]] && near(nics[0])
		}},
		{"rail-3", func(gpus, nics []string) bool {
			return slices.Equal(gpus, []string{"gpu-0000-61-00-0"}) && len(nics) == 1 && expected.Rails[nics[0]] == gpus[0]
		}},
	} {
		s.apply(documented(t, claim.name), pod(claim.name, claim.name, ""))
		s.awaitReady(claim.name)
		gpus, nics := s.gpusAndNICs(claim.name)
		if !claim.fits(gpus, nics) {
			t.Errorf("the claim %s got %v and %v", claim.name, gpus, nics)
		}
		s.kubectl("delete", "pod", claim.name)
	}
}

func (s *scenario) gpusAndNICs(pod string) (gpus, nics []string) {
	s.Helper()
	for _, result := range s.claimOf(pod).Status.Allocation.Devices.Results {
		switch attribute(s.device(result.Device), "hostler.dev/type") {
		case "gpu":
			gpus = append(gpus, result.Device)
		case "nic":
			nics = append(nics, result.Device)
		}
	}
	return gpus, nics
}

// documented is the claim template of that name in docs/topology.md.
func documented(t *testing.T, name string) string {
	t.Helper()
	page, err := os.ReadFile(filepath.Join(repository(), "docs", "topology.md"))
	must(t, err)
	for _, block := range regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllStringSubmatch(string(page), -1) {
		if strings.Contains(block[1], "\n  name: "+name+"\n") {
			return block[1]
		}
	}
	t.Fatalf("docs/topology.md has no claim %s", name)
	return ""
}

func TestDrawings(t *testing.T) {
	s := newScenario(t)
	s.apply(template("one-gpu", requests(request("gpu", oneGPU))), pod("holder", "one-gpu", ""))
	s.awaitReady("holder")
	device, claim := s.allocated("holder"), s.claimOf("holder").Name
	draw := func(format string) string {
		return s.kubectl("-n", agentNamespace, "exec", s.agent(), "--", "hostler", "topology", "--config=/etc/hostler/config.yaml", "-o", format)
	}
	for _, format := range []string{"matrix", "tree", "svg", "dot"} {
		drawing := draw(format)
		for what, word := range map[string]string{"the pod": s.namespace + "/holder", "the claim": s.namespace + "/" + claim, "the GPU": device} {
			if !strings.Contains(drawing, word) {
				t.Errorf("the drawing as %s does not show %s (%s):\n%s", format, what, word, drawing)
			}
		}
	}
	if err := wellFormed(draw("svg")); err != nil {
		t.Errorf("the SVG is no XML: %v", err)
	}
	if graph := strings.TrimSpace(draw("dot")); !strings.HasSuffix(graph, "}") || strings.Count(graph, "{") != strings.Count(graph, "}") {
		t.Errorf("the graph's braces do not match:\n%s", graph)
	}
}

func wellFormed(document string) error {
	decoder := xml.NewDecoder(strings.NewReader(document))
	for {
		if _, err := decoder.Token(); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// taintOf is the device's taint of that key, nil if it has none.
func (s *scenario) taintOf(device, key string) *resourceapi.DeviceTaint {
	s.Helper()
	taints := s.device(device).Taints
	if i := slices.IndexFunc(taints, func(t resourceapi.DeviceTaint) bool { return t.Key == key }); i >= 0 {
		return &taints[i]
	}
	return nil
}
