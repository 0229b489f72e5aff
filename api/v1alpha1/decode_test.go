package v1alpha1

import (
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/api/equality"
	"sigs.k8s.io/yaml"
)

func TestDecodeNamesWhatIsWrongAndWhatWouldBeRight(t *testing.T) {
	tests := map[string]struct {
		raw  string
		says []string
	}{
		"nothing":                       {``, []string{`apiVersion: ""`, `hostler.dev/v1alpha1`}},
		"not an object":                 {`[1]`, []string{"neither JSON nor YAML", "EgressConfig, GPUConfig, NICConfig"}},
		"another group":                 {`{"apiVersion":"resource.nvidia.com/v1beta1","kind":"GPUConfig"}`, []string{`"resource.nvidia.com/v1beta1" is not known`, `write "hostler.dev/v1alpha1"`}},
		"an unknown kind":               {`{"apiVersion":"hostler.dev/v1alpha1","kind":"GpuConfig"}`, []string{`kind: "GpuConfig" is not known`, "EgressConfig, GPUConfig, NICConfig"}},
		"the agent's config in a claim": {`{"apiVersion":"hostler.dev/v1alpha1","kind":"AgentConfig"}`, []string{`kind: "AgentConfig" is not known`}},
		"an unknown field":              {`{"apiVersion":"hostler.dev/v1alpha1","kind":"NICConfig","mttu":9000}`, []string{`NICConfig: unknown field "mttu"`, "correct its spelling", "interfaceName", "mtu"}},
		"a field in another case":       {`{"apiVersion":"hostler.dev/v1alpha1","kind":"NICConfig","MTU":9000}`, []string{`unknown field "MTU"`, "mtu"}},
		"an unknown nested field":       {`{"apiVersion":"hostler.dev/v1alpha1","kind":"EgressConfig","allow":[{"name":"a","to":[{"cidr":{"cidr":"10.0.0.0/8","excpet":[]}}]}]}`, []string{`unknown field "allow[0].to[0].cidr.excpet"`, "the fields there are: cidr, except"}},
		"a field twice":                 {`{"apiVersion":"hostler.dev/v1alpha1","kind":"NICConfig","mtu":1,"mtu":2}`, []string{`field "mtu" is there twice`, "remove all but one"}},
		"a value of the wrong type":     {`{"apiVersion":"hostler.dev/v1alpha1","kind":"NICConfig","mtu":"9000"}`, []string{"NICConfig", "mtu", "string", "a whole number of 32 bits", "correct the value"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			object, err := Decode([]byte(test.raw))
			if err == nil {
				t.Fatalf("Decode accepted it as %#v", object)
			}
			for _, want := range test.says {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error does not say %q:\n%v", want, err)
				}
			}
		})
	}
}

func TestDecodeTakesJSONAndYAML(t *testing.T) {
	mtu := int32(9000)
	want := &NICConfig{MTU: &mtu, Addresses: []string{"10.1.0.5/24"}}
	want.APIVersion, want.Kind = "hostler.dev/v1alpha1", "NICConfig"
	for name, raw := range map[string]string{
		"JSON": `{"apiVersion":"hostler.dev/v1alpha1","kind":"NICConfig","mtu":9000,"addresses":["10.1.0.5/24"]}`,
		"YAML": "apiVersion: hostler.dev/v1alpha1\nkind: NICConfig\nmtu: 9000\naddresses: [10.1.0.5/24]\n",
	} {
		got, err := Decode([]byte(raw))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestDecodeAgentConfigRefusesUnknownKeys(t *testing.T) {
	_, err := DecodeAgentConfig([]byte("apiVersion: hostler.dev/v1alpha1\nkind: AgentConfig\npaths:\n  sysfs: /sys\n"))
	if err == nil || !strings.Contains(err.Error(), `unknown field "paths.sysfs"`) || !strings.Contains(err.Error(), "state, sys") {
		t.Fatalf("error does not name the key and the choice: %v", err)
	}
	if _, err := DecodeAgentConfig([]byte(`{"apiVersion":"hostler.dev/v1alpha1","kind":"GPUConfig"}`)); err == nil {
		t.Fatal("a claim's config passed as the agent's")
	}
}

func TestDecodeAgentConfigTellsAllFaultsWithTheirLines(t *testing.T) {
	tests := map[string]struct {
		text string
		says []string
	}{
		"several keys twice": {"nodeName: a\nnodeName: b\nmetrics:\n  interval: 5s\n  interval: 6s\nlogging: {format: text}\nnodeName: c\n", []string{
			`AgentConfig: field "nodeName" is there 3 times, in lines 3, 4 and 9; remove all but one`,
			`AgentConfig: field "metrics.interval" is there twice, in lines 6 and 7; remove all but one`,
		}},
		"a key twice in an item of a list, and in an unknown field": {"publish:\n  multusResourceNames:\n  - resourceName: a.b/c\n  - resourceName: a.b/d\n    resourceName: a.b/e\nnets: {a: 1, a: 2}\n", []string{
			`AgentConfig: field "publish.multusResourceNames[1].resourceName" is there twice, in lines 6 and 7; remove all but one`,
			`AgentConfig: field "nets.a" is there twice, in line 8; remove all but one`,
			`AgentConfig: unknown field "nets"; correct its spelling`,
		}},
		"what is wrong besides": {"nodeName: a\nnodeName: b\nmetricz: {}\npaths: {sysfs: /sys}\ndiscovery: {callTimeout: 7}\n", []string{
			`AgentConfig: field "nodeName" is there twice, in lines 3 and 4; remove all but one`,
			`AgentConfig: field "discovery.callTimeout" in line 7 is 7, which has no unit; write 7s if seconds are meant`,
			`AgentConfig: unknown field "metricz"; correct its spelling`,
			`AgentConfig: unknown field "paths.sysfs"; correct its spelling`,
		}},
		"a wrong value besides": {"nodeName: a\nnodeName: b\nlogging: {verbosity: much}\n", []string{
			`AgentConfig: field "nodeName" is there twice, in lines 3 and 4; remove all but one`,
			`AgentConfig: field "logging.verbosity" holds a string where a whole number of 32 bits is expected; correct the value`,
		}},
		"durations without their unit": {"metrics: {interval: 5}\ndiscovery:\n  pollInterval: \"30\"\n  callTimeout: 1.5\n", []string{
			`AgentConfig: field "metrics.interval" in line 3 is 5, which has no unit; write 5s if seconds are meant`,
			`AgentConfig: field "discovery.pollInterval" in line 5 is 30, which has no unit; write 30s if seconds are meant`,
			`AgentConfig: field "discovery.callTimeout" in line 6 is 1.5, which has no unit; write 1.5s if seconds are meant`,
		}},
		"no durations": {"metrics: {interval: 1d}\ndiscovery:\n  pollInterval: [5s]\n  callTimeout:\nnodeName: &name worker\nhealth: {pollInterval: &often on, recoveryHoldDown: *name}\n", []string{
			`AgentConfig: field "metrics.interval" in line 3 is "1d", which is no duration; write a number with its unit, such as 300ms, 5s or 1m30s`,
			`AgentConfig: field "discovery.pollInterval" in line 5 is no duration; write a number with its unit`,
			`AgentConfig: field "discovery.callTimeout" in line 6 is empty; write a duration, such as 300ms, 5s or 1m30s, or remove the field to have its default`,
			`AgentConfig: field "health.pollInterval" in line 8 is "on", which is no duration`,
			`AgentConfig: field "health.recoveryHoldDown" in line 8 is "worker", which is no duration`,
		}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := DecodeAgentConfig([]byte("apiVersion: hostler.dev/v1alpha1\nkind: AgentConfig\n" + test.text))
			if err == nil {
				t.Fatal("it is accepted")
			}
			said := strings.Split(err.Error(), "\n")
			if len(said) != len(test.says) {
				t.Errorf("%d faults are told, want %d", len(said), len(test.says))
			}
			for _, want := range test.says {
				if !slices.ContainsFunc(said, func(s string) bool { return strings.HasPrefix(s, want) }) {
					t.Errorf("nothing told is %s:\n%v", want, err)
				}
			}
		})
	}
}

func TestDecodeAgentConfigTakesOneDocument(t *testing.T) {
	const config = "apiVersion: hostler.dev/v1alpha1\nkind: AgentConfig\nnodeName: worker\n"
	for name, test := range map[string]struct {
		text  string
		taken bool
	}{
		"begun by ---":        {"---\n" + config, true},
		"ended by ---":        {config + "---\n", true},
		"ended by a comment":  {config + "---\n# no more\n", true},
		"a second one":        {config + "---\n" + config, false},
		"a list":              {config + "--- [1]\n", false},
		"what cannot be read": {config + "---\n}\n", false},
	} {
		_, err := DecodeAgentConfig([]byte(test.text))
		if (err == nil) != test.taken || err != nil && !strings.Contains(err.Error(), "write one object") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func mustRead(f *testing.F, path string) []byte {
	f.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	return raw
}

// What Decode accepts survives defaulting twice, validation and a round trip.
func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"apiVersion":"hostler.dev/v1alpha1","kind":"NICConfig","mtu":9000,"addresses":["10.1.0.5/24"],"routes":[{"destination":"0.0.0.0/0","gateway":"10.1.0.1"}]}`))
	f.Add([]byte("apiVersion: hostler.dev/v1alpha1\nkind: EgressConfig\nallow:\n- name: a\n  to: [{cidr: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}}]\n  ports: [{port: 1, endPort: 9}]\n"))
	f.Add([]byte(`{"apiVersion":"hostler.dev/v1alpha1","kind":"GPUConfig","driverCapabilities":["compute"]}`))
	f.Add([]byte(`{"apiVersion":"hostler.dev/v1alpha1","kind":"GPUConfig","mode":"vfio"}`))
	f.Add([]byte(`{"apiVersion":"hostler.dev/v1alpha1","kind":"NICConfig","mode":"vfio","vf":{"mac":"02:00:00:00:00:01","vlan":100,"vlanQoS":3,"spoofCheck":true,"trust":false,"minTxRate":1,"maxTxRate":10,"linkState":"Auto"}}`))
	for _, example := range strings.Split(string(mustRead(f, "testdata/NICConfig.yaml")), "---\n") {
		f.Add([]byte(example))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		object, err := Decode(raw)
		if err != nil {
			if err.Error() == "" {
				t.Fatal("an error without words")
			}
			return
		}
		SetDefaults(object)
		once := object.DeepCopyObject()
		SetDefaults(object)
		if !reflect.DeepEqual(once, object) {
			t.Fatalf("defaulting twice changes it: %s", cmp.Diff(once, object))
		}
		_ = Validate(object).ToAggregate()
		written, err := yaml.Marshal(object)
		if err != nil {
			t.Fatal(err)
		}
		again, err := Decode(written)
		if err != nil {
			t.Fatalf("cannot read back what was written: %v\n%s", err, written)
		}
		SetDefaults(again)
		// An empty list is left out in writing, so nil and empty count as equal.
		if !equality.Semantic.DeepEqual(object, again) {
			t.Fatalf("round trip: %s", cmp.Diff(object, again))
		}
	})
}
