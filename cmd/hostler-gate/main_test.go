package main

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// The whole hook is tested with the agent's side in netattach/gate; here is
// what it says to bad input.
func TestBadInputIsNamed(t *testing.T) {
	bundle := t.TempDir()
	state := func(pid int) string { return fmt.Sprintf(`{"id":"c","pid":%d,"bundle":%q}`, pid, bundle) }
	self := os.Getpid()
	for name, test := range map[string]struct {
		args          []string
		stdin, config string
		says          string
	}{
		"no claim":               {nil, state(self), `{}`, "names no claim"},
		"an unknown flag":        {[]string{"--clam", "c"}, state(self), `{}`, "clam"},
		"no state":               {[]string{"--claim", "c"}, ``, `{}`, "container's state"},
		"no pid":                 {[]string{"--claim", "c"}, state(0), `{}`, "has no pid"},
		"a broken configuration": {[]string{"--claim", "c"}, state(self), `{`, "container's configuration"},
		"a process that is gone": {[]string{"--claim", "c"}, state(1 << 30), `{}`, "network namespace"},
		"no agent and no record": {[]string{"--claim", "c", "--timeout", "0s", "--socket", bundle + "/none", "--records", bundle}, state(self), `{}`, "see that the hostler agent runs on this node"},
	} {
		t.Run(name, func(t *testing.T) {
			if err := os.WriteFile(filepath.Join(bundle, "config.json"), []byte(test.config), 0o600); err != nil {
				t.Fatal(err)
			}
			err := run(test.args, strings.NewReader(test.stdin))
			if err == nil || !strings.Contains(err.Error(), test.says) {
				t.Errorf("want an error that says %q, got %v", test.says, err)
			}
		})
	}
}

func TestPodIsFoundByEitherRuntimesAnnotations(t *testing.T) {
	want := question{Claim: "claim", Container: "c", Sandbox: "s", PodUID: "u", PodNamespace: "ns", PodName: "p"}
	for runtime, annotations := range map[string]map[string]string{
		"containerd": {"io.kubernetes.cri.sandbox-id": "s", "io.kubernetes.cri.sandbox-uid": "u", "io.kubernetes.cri.sandbox-namespace": "ns", "io.kubernetes.cri.sandbox-name": "p"},
		"CRI-O":      {"io.kubernetes.cri-o.SandboxID": "s", "io.kubernetes.pod.uid": "u", "io.kubernetes.pod.namespace": "ns", "io.kubernetes.pod.name": "p"},
	} {
		if got := (container{ID: "c", Annotations: annotations}).question("claim"); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %+v", runtime, got)
		}
	}
}
