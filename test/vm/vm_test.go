package vm_test

// The tests that boot machines. Each takes some ten seconds of two CPUs, so they
// run where HOSTLER_VM=1 asks for them. Go does not see that they depend on the
// code that is compiled for the machine: run them with -count=1, as make test-vm does.

import (
	"bytes"
	"context"
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

// TestDiscovery runs the tests of test/vm/guest in the machine, those that
// HOSTLER_VM_RUN matches if that is set (as in go test -run).
func TestDiscovery(t *testing.T) {
	needMachine(t)
	result, err := vm.Run(t.Context(), vm.Options{
		TestBinary: buildTest(t, "./guest"),
		Args:       []string{"-test.v", "-test.timeout=14m", "-test.run=" + os.Getenv("HOSTLER_VM_RUN")},
		Files:      map[string]string{"hostler-gate": build(t, "../../cmd/hostler-gate", "go", "build")},
		Output:     t.Output(),
		Timeout:    15 * time.Minute, // alone it takes a minute; beside builds, many times that
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
	return build(t, pkg, "go", "test", "-c")
}

// build has a command of Go's make a static binary of a package.
func build(t *testing.T, pkg string, command ...string) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "binary")
	cmd := exec.CommandContext(t.Context(), command[0], append(command[1:], "-o", binary, pkg)...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s of %s: %v\n%s", strings.Join(command, " "), pkg, err, out)
	}
	return binary
}

func TestRunReportsHowTheProgramEnds(t *testing.T) {
	needMachine(t)
	for name, tc := range map[string]struct {
		script     string
		cancelAt   string // cancels the run when the program writes this
		exitStatus int
		output     string
		stopped    string // the StoppedError's reason
		console    string // what the console's last lines must show
	}{
		"it fails: its status, output, arguments, environment and files": {
			script:     "echo \"args:$1,$2\"; echo \"env:$NAME\"; cat sub/file; echo to stderr >&2; exit 7",
			exitStatus: 7,
			output:     "args:it's one,two\nenv:a b\nfrom the host\nto stderr\n",
		},
		"the kernel panics": {
			script:  "echo c >/proc/sysrq-trigger",
			stopped: "the kernel panicked while the program ran",
			console: "sysrq triggered crash",
		},
		"it hangs until the run is cancelled": {
			script:   "echo last words >/dev/console; echo waiting; sleep 1000",
			cancelAt: "waiting",
			output:   "waiting\n",
			stopped:  "the run was cancelled while the program ran",
			console:  "last words",
		},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			var output bytes.Buffer
			result, err := vm.Run(ctx, vm.Options{
				TestBinary: write(t, "script", "#!/bin/sh\n"+tc.script+"\n"),
				Args:       []string{"it's one", "two"},
				Env:        []string{"NAME=a b"},
				Files:      map[string]string{"sub/file": write(t, "file", "from the host\n")},
				Output: writerFunc(func(p []byte) (int, error) {
					if tc.cancelAt != "" && strings.Contains(string(p), tc.cancelAt) {
						cancel()
					}
					return output.Write(p)
				}),
			})
			if output.String() != tc.output {
				t.Errorf("output %q, want %q", output.String(), tc.output)
			}
			if tc.stopped == "" {
				if err != nil || result.ExitStatus != tc.exitStatus {
					t.Errorf("exit status %d, error %v; want status %d", result.ExitStatus, err, tc.exitStatus)
				}
				return
			}
			stopped := (*vm.StoppedError)(nil)
			if !errors.As(err, &stopped) || stopped.Reason != tc.stopped || !strings.Contains(stopped.Console, tc.console) {
				t.Errorf("error %v, want one that says %q and shows %q", err, tc.stopped, tc.console)
			}
		})
	}
}

func TestRunStopsABootThatTakesTooLong(t *testing.T) {
	needMachine(t)
	_, err := vm.Run(t.Context(), vm.Options{TestBinary: write(t, "script", "#!/bin/sh\n"), Timeout: time.Second})
	stopped := (*vm.StoppedError)(nil)
	if !errors.As(err, &stopped) || stopped.Reason != "the time was up while it booted" {
		t.Errorf("error %v, want one that says that the time was up while it booted", err)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func write(t *testing.T, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}
