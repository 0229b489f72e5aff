package topology_test

// docs/topology.md shows what the code does: its pictures are those of the
// profiles, and its claims are claims that an API server and its scheduler accept.

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	resourceapi "k8s.io/api/resource/v1"
	dracel "k8s.io/dynamic-resource-allocation/cel"
	"sigs.k8s.io/yaml"
)

const docs = "../docs"

func TestTheDocumentationShowsEveryProfile(t *testing.T) {
	page := string(read(t, filepath.Join(docs, "topology.md")))
	drawings, err := filepath.Glob("host/testdata/*.svg")
	if err != nil || len(drawings) == 0 {
		t.Fatalf("no drawings of profiles: %v", err)
	}
	shown := map[string]bool{}
	for _, drawing := range drawings {
		name := "topology-" + filepath.Base(drawing)
		shown[name] = true
		want := read(t, drawing)
		path := filepath.Join(docs, name)
		if *update {
			if err := os.WriteFile(path, want, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if !bytes.Equal(want, read(t, path)) {
			t.Errorf("%s is not %s (run with -update)", path, drawing)
		}
		if !strings.Contains(page, "("+name+")") {
			t.Errorf("docs/topology.md does not show %s", name)
		}
	}
	for _, picture := range regexp.MustCompile(`\((topology-[^)]+\.svg)\)`).FindAllStringSubmatch(page, -1) {
		if !shown[picture[1]] {
			t.Errorf("docs/topology.md shows %s, which no profile is drawn as", picture[1])
		}
	}
}

func TestTheDocumentedClaimsAreClaims(t *testing.T) {
	page := string(read(t, filepath.Join(docs, "topology.md")))
	blocks := regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllStringSubmatch(page, -1)
	if len(blocks) == 0 {
		t.Fatal("no example")
	}
	for _, block := range blocks {
		template := &resourceapi.ResourceClaimTemplate{}
		if err := yaml.UnmarshalStrict([]byte(block[1]), template); err != nil {
			t.Errorf("%v in\n%s", err, block[1])
			continue
		}
		t.Run(template.Name, func(t *testing.T) { checkClaim(t, &template.Spec.Spec.Devices) })
	}
}

// checkClaim looks at what strict decoding does not: names that refer to each other, classes that exist, and selectors.
func checkClaim(t *testing.T, devices *resourceapi.DeviceClaim) {
	names := map[string]bool{}
	for _, request := range devices.Requests {
		names[request.Name] = true
		kind, ours := strings.CutSuffix(request.Exactly.DeviceClassName, ".hostler.dev")
		if !ours || !strings.Contains(" gpu mig nic pair egress ", " "+kind+" ") {
			t.Errorf("the chart has no class %s", request.Exactly.DeviceClassName)
		}
		for _, selector := range request.Exactly.Selectors {
			compiled := dracel.GetCompiler(dracel.Features{}).CompileCELExpression(selector.CEL.Expression, dracel.Options{})
			if compiled.Error != nil {
				t.Errorf("selector %s: %v", selector.CEL.Expression, compiled.Error)
			}
		}
	}
	for _, constraint := range devices.Constraints {
		for _, request := range constraint.Requests {
			if !names[request] {
				t.Errorf("a constraint is about request %s, which there is none of", request)
			}
		}
	}
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}
