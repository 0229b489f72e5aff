package driver

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/types"
)

func TestRunningPods(t *testing.T) {
	const uid types.UID = "4f7a2a3e-6d5c-4a39-9a42-0d8b2f6c1a11"
	for _, test := range []struct {
		name string
		// cgroups by process.
		cgroups map[string]string
		runs    bool
		refusal string
	}{
		{"a process in the control group of the kubelet's cgroupfs driver, version 1",
			map[string]string{"1": "4:memory:/init.scope", "self": "4:memory:/kubepods/pod1/agent", "77": "4:memory:/kubepods/besteffort/pod" + string(uid) + "/abc"}, true, ""},
		{"a process in the control group of its systemd driver, version 2",
			map[string]string{"1": "0::/init.scope", "self": "0::/", "77": "0::/../kubepods-besteffort-pod" + strings.ReplaceAll(string(uid), "-", "_") + ".slice/cri-abc.scope"}, true, ""},
		{"processes of other pods alone",
			map[string]string{"1": "0::/init.scope", "self": "0::/", "77": "0::/kubepods/pod5b7a2a3e-6d5c-4a39-9a42-0d8b2f6c1a11/abc"}, false, ""},
		{"an agent without hostPID", map[string]string{"1": "0::/", "self": "0::/"}, false, "hostPID: true"},
		{"no /proc", nil, false, "first process"},
	} {
		t.Run(test.name, func(t *testing.T) {
			proc := t.TempDir()
			for process, cgroup := range test.cgroups {
				if err := os.MkdirAll(filepath.Join(proc, process), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(filepath.Join(proc, process, "cgroup"), []byte(cgroup+"\n"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			running, err := RunningPods(proc)
			if test.refusal != "" {
				if err == nil || !strings.Contains(err.Error(), test.refusal) {
					t.Fatalf("the answer is %v, want one that says %q", err, test.refusal)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if running(uid) != test.runs || running("") {
				t.Errorf("the pod runs: %t, one without a UID: %t", running(uid), running(""))
			}
		})
	}
}
