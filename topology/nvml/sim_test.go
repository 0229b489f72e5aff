package nvml

// The library on its good and bad days, played by test/nvmlsim. One driver root
// serves the whole process, because a process binds NVML's symbols once.

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/hostler-dev/hostler/test/nvmlsim"
	"github.com/hostler-dev/hostler/topology"
)

var driverRoot string

func TestMain(m *testing.M) {
	var err error
	if driverRoot, err = os.MkdirTemp("", "hostler-driver-root-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	os.RemoveAll(driverRoot)
	os.Exit(code)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// a100 as the NVIDIA MIG user guide lists the A100-SXM4-40GB.
const a100 = `0 19 1g.5gb 1 7 14 1 0 0 0 0 4864 0:1,1:1,2:1,3:1,4:1,5:1,6:1
7 20 1g.5gb+me 1 1 14 1 1 0 1 1 4864 0:1,1:1,2:1,3:1,4:1,5:1,6:1
9 15 1g.10gb 1 4 14 1 1 0 0 0 9856 0:2,2:2,4:2,6:2
1 14 2g.10gb 2 3 28 2 1 0 0 0 9856 0:2,2:2,4:2
2 9 3g.20gb 3 2 42 3 2 0 0 0 19968 0:4,4:4
3 5 4g.20gb 4 1 56 4 2 0 0 0 19968 0:4
4 0 7g.40gb 7 1 98 7 5 0 1 1 40192 0:8`

const (
	first, second = "0000:10:00.0", "0000:11:00.0"
	busy          = "4711 1048576 gi=2 ci=0"
)

// simulate makes a machine with two GPUs, of which the first is in MIG mode, and reads it once.
func simulate(t testing.TB, build func(string) (string, error), timeout time.Duration) (nvmlsim.Control, *Source) {
	t.Helper()
	control := nvmlsim.Control{Dir: filepath.Join(driverRoot, "nvmlsim")}
	must(t, os.RemoveAll(control.Dir))
	must(t, control.NewMachine("570.124.06", "12.8"))
	for i := range 2 {
		must(t, control.AddGPU(i, map[string]string{
			"uuid": fmt.Sprintf("GPU-%08d-0000-4000-8000-000000000000", i), "pci_bus_id": fmt.Sprintf("0000:%02x:00.0", 0x10+i),
			"pci_device_id": "0x20b010de", "pci_subsystem_id": "0x134f10de", "name": "NVIDIA A100-SXM4-40GB", "minor": fmt.Sprint(i),
			"memory_total": "42949672960", "memory_used": "0", "temperature": "31", "mig_mode": "0 0", "mig_profiles": a100,
		}))
	}
	must(t, control.SetMIGMode(0, true))
	installLibrary(t, build)
	source := NewSource(Config{DriverRoot: driverRoot, CallTimeout: timeout})
	t.Cleanup(func() {
		must(t, control.ClearAll())
		must(t, control.ReviveDriver())
		must(t, source.Close())
	})
	read(t, source)
	return control, source
}

func installLibrary(t testing.TB, build func(string) (string, error)) {
	t.Helper()
	path := filepath.Join(driverRoot, "usr/lib64/libnvidia-ml.so.1")
	if _, err := os.Stat(path); err == nil {
		return
	}
	library, err := build("")
	must(t, err)
	content, err := os.ReadFile(library)
	must(t, err)
	must(t, os.MkdirAll(filepath.Dir(path), 0o755))
	must(t, os.WriteFile(path, content, 0o755))
}

// inOwnProcess runs the test in a process of its own and returns false in the parent.
func inOwnProcess(t *testing.T) bool {
	t.Helper()
	const variable = "HOSTLER_TEST_PROCESS"
	if os.Getenv(variable) == t.Name() {
		return true
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), variable+"="+t.Name(), "GORACE=atexit_sleep_ms=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return false
}

func read(t testing.TB, source *Source) []topology.GPU {
	t.Helper()
	driver, gpus, problems := source.ReadGPUs(t.Context())
	if driver.State != topology.DriverReady || len(problems) > 0 || len(gpus) != 2 {
		t.Fatalf("the driver is %+v with %d GPUs, problems %v", driver, len(gpus), problems)
	}
	return gpus
}
