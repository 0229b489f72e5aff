package host_test

// A simulated machine to discover, and to give bad days: a profile of test/machine
// with the NVML simulator as its driver.

import (
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/hostler-dev/hostler/test/machine"
	"github.com/hostler-dev/hostler/test/simulated"
	"github.com/hostler-dev/hostler/topology"
)

// callTimeout is how long the simulated driver's calls are waited for (test/simulated).
const callTimeout = 2 * time.Second

type bench struct {
	*simulated.Machine
	observer *topology.Observer
}

// inOwnProcess runs the test in a process of its own and returns false in the
// parent: a process can bind only one NVML library, and every rendered machine has its own.
func inOwnProcess(t *testing.T) bool {
	t.Helper()
	const variable = "HOSTLER_TEST_PROCESS"
	if os.Getenv(variable) == t.Name() {
		return true
	}
	pattern := "^" + strings.ReplaceAll(regexp.QuoteMeta(t.Name()), "/", "$/^") + "$"
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run="+pattern, "-test.v", fmt.Sprintf("-update=%t", *update))
	// The race detector's runtime else sleeps for a second at each exit.
	cmd.Env = append(os.Environ(), variable+"="+t.Name(), "GORACE=atexit_sleep_ms=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return false
}

func simulate(t *testing.T, profile string, options machine.RenderOptions) *bench {
	t.Helper()
	m, err := simulated.New(profile, machine.TempDir(t), options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Close() }) // a test may have killed the driver
	return &bench{Machine: m, observer: m.Observer()}
}

func (b *bench) observe(t *testing.T) *topology.Snapshot {
	t.Helper()
	snapshot := b.observer.Observe(t.Context())
	if snapshot == nil {
		t.Fatal("no snapshot")
	}
	return snapshot
}
