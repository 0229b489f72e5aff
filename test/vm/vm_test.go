package vm_test

// The tests that boot machines. Each takes some ten seconds of two CPUs, so they
// run where HOSTLER_VM=1 asks for them.

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hostler-dev/hostler/test/vm"
)

func needMachine(t *testing.T) {
	t.Helper()
	if os.Getenv("HOSTLER_VM") != "1" {
		t.Skip("boots an emulated machine; run it with: make test-vm")
	}
}

// TestDiscovery runs the tests of test/vm/guest in the machine.
func TestDiscovery(t *testing.T) {
	needMachine(t)
	result, err := vm.Run(t.Context(), vm.Options{
		TestBinary: buildTest(t, "./guest"),
		Args:       []string{"-test.v", "-test.timeout=60s"},
		Output:     t.Output(),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("booted in %s, powered off after %s", result.Boot.Round(time.Millisecond), result.Total.Round(time.Millisecond))
	if result.ExitStatus != 0 {
		t.Fatalf("the tests in the machine ended with status %d; its console's last lines:\n%s", result.ExitStatus, result.Console)
	}
}

// buildTest compiles a package's tests into a static binary.
func buildTest(t *testing.T, pkg string) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "guest.test")
	cmd := exec.CommandContext(t.Context(), "go", "test", "-c", "-o", binary, pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("compiling the tests of %s: %v\n%s", pkg, err, out)
	}
	return binary
}

func TestRunReportsHowTheProgramEnds(t *testing.T) {
	needMachine(t)
	for name, tc := range map[string]struct {
		script     string
		timeout    time.Duration
		exitStatus int
		output     string
		stopped    string // part of the StoppedError's text
	}{
		"it fails: its status, output, arguments, environment and files": {
			script:     "echo \"args:$1,$2\"; echo \"env:$NAME\"; cat sub/file; echo to stderr >&2; exit 7",
			exitStatus: 7,
			output:     "args:it's one,two\nenv:a b\nfrom the host\nto stderr\n",
		},
		"the kernel panics": {
			script: "echo c >/proc/sysrq-trigger", stopped: "the kernel panicked while the program ran", output: "",
		},
		"it hangs": {
			script: "echo waiting; sleep 1000", timeout: 20 * time.Second, stopped: "the time was up while the program ran", output: "waiting\n",
		},
		"it powers the machine off": {
			script: "poweroff -f", stopped: "the machine powered off while the program ran",
		},
	} {
		t.Run(name, func(t *testing.T) {
			script := write(t, "script", "#!/bin/sh\n"+tc.script+"\n")
			var output bytes.Buffer
			result, err := vm.Run(t.Context(), vm.Options{
				TestBinary: script,
				Args:       []string{"it's one", "two"},
				Env:        []string{"NAME=a b"},
				Files:      map[string]string{"sub/file": write(t, "file", "from the host\n")},
				Output:     &output,
				Timeout:    tc.timeout,
			})
			if output.String() != tc.output {
				t.Errorf("output %q, want %q", output.String(), tc.output)
			}
			stopped := (*vm.StoppedError)(nil)
			switch {
			case tc.stopped == "" && err != nil:
				t.Error(err)
			case tc.stopped != "" && (!errors.As(err, &stopped) || !strings.Contains(stopped.Reason, tc.stopped)):
				t.Errorf("error %v, want one that says %q", err, tc.stopped)
			case result.ExitStatus != tc.exitStatus:
				t.Errorf("exit status %d, want %d", result.ExitStatus, tc.exitStatus)
			}
		})
	}
}

func write(t *testing.T, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}
