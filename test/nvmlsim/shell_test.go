package nvmlsim

import (
	"os/exec"
	"sync"
	"testing"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
)

// The recipes of README.md, typed by an administrator into a plain shell.
func TestShellRecipes(t *testing.T) {
	control, lib := install(t, Build)
	d := device(t, lib, 0)
	set, r := lib.EventSetCreate()
	ok(t, r)
	defer set.Free()
	ok(t, device(t, lib, 3).RegisterEvents(nvml.EventTypeXidCriticalError, set))
	shell := func(script string) {
		t.Helper()
		command := exec.Command("sh", "-ec", script)
		command.Dir = control.Dir
		if said, err := command.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", script, err, said)
		}
	}

	shell("echo 93 > gpu0/utilization")
	load, r := d.GetUtilizationRates()
	ok(t, r)
	equal(t, "utilization", load.Gpu, 93)

	shell(`echo "xid gpu3 94 gi=1 ci=0" >> events`)
	e, r := set.Wait(5000)
	ok(t, r)
	equal(t, "XID", e.EventData, 94)
	equal(t, "GPU instance", e.GpuInstanceId, 1)

	shell(`echo 1 > gpu0/lost`)
	if _, r := d.GetName(); r != nvml.ERROR_GPU_IS_LOST {
		t.Errorf("after echo 1 > lost the GPU answers %v", r)
	}
	shell(`rm gpu0/lost; echo "nvmlDeviceGetTemperature gpu0 return=999" >> calls`)
	if _, r := d.GetTemperature(nvml.TEMPERATURE_GPU); r != nvml.ERROR_UNKNOWN {
		t.Errorf("after a return=999 rule the call answers %v", r)
	}
	shell(`: > calls; echo dead > driver`)
	if _, r := d.GetName(); r != nvml.ERROR_DRIVER_NOT_LOADED {
		t.Errorf("after echo dead > driver a call answers %v", r)
	}
	shell(`echo alive > driver`)
	_, r = d.GetName()
	ok(t, r)
}

// Samplers ask many GPUs at once while a test changes them; an answer is the
// old value or the new one, never half of either.
func TestConcurrentCallsSeeWholeValues(t *testing.T) {
	control, lib := install(t, Build)
	var readers sync.WaitGroup
	stop := make(chan struct{})
	for i := range 10 {
		d := device(t, lib, i)
		readers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				m, r := d.GetMemoryInfo_v2()
				if r != nvml.SUCCESS || (m.Used != 1000 && m.Used != 70000000000) {
					t.Errorf("memory used is %d (%v), which nobody wrote", m.Used, r)
					return
				}
			}
		})
	}
	for round := range 20 {
		for i := range 10 {
			must(t, control.SetMemoryUsed(i, []uint64{70000000000, 1000}[round%2]))
		}
	}
	close(stop)
	readers.Wait()
}
