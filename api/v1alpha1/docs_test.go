package v1alpha1

import (
	"flag"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"
)

var update = flag.Bool("update", false, "write docs/configuration.md anew")

// docs/configuration.md is written from the types, so that it cannot drift.
func TestConfigurationReferenceIsCurrent(t *testing.T) {
	const path = "../../docs/configuration.md"
	got := reference(t)
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

// The examples in the reference are decoded, are valid and set every field.
func TestExamplesAreCompleteAndValid(t *testing.T) {
	for _, kind := range documentedKinds() {
		t.Run(kindOf(kind), func(t *testing.T) {
			var shown []string
			for raw := range strings.SplitSeq(example(t, kindOf(kind)), "---\n") {
				object, err := decode([]byte(raw), []runtime.Object{kind.DeepCopyObject()})
				if err != nil {
					t.Fatal(err)
				}
				SetDefaults(object)
				if faults := Validate(object); len(faults) > 0 {
					t.Error(faults.ToAggregate())
				}
				var document map[string]any
				if err := yaml.Unmarshal([]byte(raw), &document); err != nil {
					t.Fatal(err)
				}
				shown = append(shown, paths(document, "")...)
			}
			want := []string{"apiVersion", "kind"}
			for _, row := range readSource(t).settings(t, reflect.TypeOf(kind).Elem(), "") {
				want = append(want, row.path)
				if strings.HasPrefix(row.kind, "map") {
					shown = slices.DeleteFunc(shown, func(path string) bool { return strings.HasPrefix(path, row.path+".") })
				}
			}
			slices.Sort(want)
			slices.Sort(shown)
			if diff := cmp.Diff(want, slices.Compact(shown)); diff != "" {
				t.Errorf("the examples do not show exactly the fields there are (-kind +examples):\n%s", diff)
			}
		})
	}
}

// The claim that shows where a config belongs is one that the API server and the driver take.
func TestTheDocumentedClaimHoldsAConfig(t *testing.T) {
	var claim resourceapi.ResourceClaim
	if err := yaml.UnmarshalStrict([]byte(docClaim), &claim); err != nil {
		t.Fatal(err)
	}
	object, err := Decode(claim.Spec.Devices.Config[0].Opaque.Parameters.Raw)
	if err != nil {
		t.Fatal(err)
	}
	if nic, ok := object.(*NICConfig); !ok || nic.MTU == nil {
		t.Errorf("the claim holds %#v, want a NICConfig with an MTU", object)
	}
}

func TestFlagNamesFollowTheFields(t *testing.T) {
	for field, want := range map[string]string{
		"nodeName":           "node-name",
		"paths.sys":          "paths-sys",
		"paths.driverRoot":   "paths-driver-root",
		"paths.nvmlLibrary":  "paths-nvml-library",
		"paths.hostCDI":      "paths-host-cdi",
		"health.ignoredXIDs": "health-ignored-xids",
	} {
		if got := FlagName(field); got != want {
			t.Errorf("the flag of %s is %q, want %q", field, got, want)
		}
	}
}

func documentedKinds() []runtime.Object {
	return []runtime.Object{&AgentConfig{}, &GPUConfig{}, &NICConfig{}, &EgressConfig{}}
}

func example(t *testing.T, kind string) string {
	t.Helper()
	raw, err := os.ReadFile("testdata/" + kind + ".yaml")
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

func reference(t *testing.T) string {
	t.Helper()
	read := readSource(t)
	var doc strings.Builder
	doc.WriteString(docIntroduction)
	for _, object := range documentedKinds() {
		kind := kindOf(object)
		if kind == "GPUConfig" {
			doc.WriteString(docClaimConfigs + "\n```yaml\n" + docClaim + "```\n")
		}
		fmt.Fprintf(&doc, "\n## %s\n\n%s\n\n", kind, read.types[kind])
		rows := read.settings(t, reflect.TypeOf(object).Elem(), "")
		if kind == "AgentConfig" {
			writeAgentRows(&doc, rows)
		} else {
			writeRows(&doc, rows)
		}
		fmt.Fprintf(&doc, "\nEvery field in an example:\n\n```yaml\n%s```\n", example(t, kind))
	}
	return doc.String()
}

func writeRows(doc *strings.Builder, rows []setting) {
	doc.WriteString("| Field | Type | Default | Meaning |\n|---|---|---|---|\n")
	for _, row := range rows {
		fmt.Fprintf(doc, "| `%s` | %s | %s | %s |\n", row.path, row.kind, orDash(row.fallback), row.meaning)
	}
}

// writeAgentRows begins a table where a section of the file begins.
func writeAgentRows(doc *strings.Builder, rows []setting) {
	const head = "| Field | Flag | Type | Default | Meaning |\n|---|---|---|---|---|\n"
	doc.WriteString(head)
	for _, row := range rows {
		if row.kind == "object" {
			fmt.Fprintf(doc, "\n### %s\n\n%s\n\n%s", row.path, row.meaning, head)
			continue
		}
		fmt.Fprintf(doc, "| `%s` | `--%s` | %s | %s | %s |\n", row.path, FlagName(row.path), row.kind, orDash(row.fallback), row.meaning)
	}
}

func orDash(text string) string {
	if text == "" {
		return "–"
	}
	return text
}

const docIntroduction = `<!-- Written by go test ./api/v1alpha1 -update from the comments in agentconfig.go and claimconfig.go. -->
# Configuration

Users of Hostler write four kinds, all with ` + "`apiVersion: hostler.dev/v1alpha1`" + `: AgentConfig for the agent on a node, and GPUConfig,
NICConfig and EgressConfig in ResourceClaims and DeviceClasses. All are read strictly: a field that is not known, written twice
or of the wrong type is an error that names it, and nothing is prepared or started with a config that is wrong. Durations are
written like ` + "`300ms`, `5s` or `1m30s`" + `.

The agent reads its file from ` + "`--config`" + `. Without one, defaults and flags are all there is. On a command line, a list is written as
` + "`--health-ignored-xids=13,31`" + `. The Helm chart takes the file's content under ` + "`config`" + ` of its values.
`

const docClaimConfigs = `
## Configs of claims and classes

A config belongs in ` + "`spec.devices.config`" + ` of a ResourceClaim (or its template), or in ` + "`spec.config`" + ` of a DeviceClass. A claim's
fields win over its class's, with two exceptions. An EgressConfig in a class is a ceiling, which a claim can lower and never
raise. And what a NICConfig in a class says under ` + "`vf`" + `, or in another field of which the table says "only in a DeviceClass", no
claim can change: a claim that has another value is refused, as is one that has such a field where its class has none. Objects
such as ` + "`vf`" + ` are merged field by field, maps such as ` + "`sysctls`" + ` key by key; lists and ` + "`vrf`" + `, whose name means nothing without its
table, are replaced as a whole. Merged, a config has to be valid as a whole; whatever is wrong with it is told at once, and the
claim is not prepared. A config that no device of its claim can use is refused.
`

const docClaim = `apiVersion: resource.k8s.io/v1
kind: ResourceClaim
metadata:
  name: rail
spec:
  devices:
    requests:
      - name: nic
        exactly:
          deviceClassName: nic.hostler.dev
    config:
      - requests: [nic]
        opaque:
          driver: hostler.dev
          parameters:
            apiVersion: hostler.dev/v1alpha1
            kind: NICConfig
            mtu: 9000
`
