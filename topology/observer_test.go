package topology_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/hostler-dev/hostler/topology"
)

// fake is a machine whose two views a test sets.
type fake struct {
	mu       sync.Mutex
	hardware topology.Hardware
	err      error
	driver   topology.Driver
	gpus     []topology.GPU
	reads    int
	// takes and gpusTake, if set, are how long the readers take.
	takes, gpusTake func()
}

func (f *fake) ReadHardware(context.Context) (topology.Hardware, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.reads++
	f.wait(f.takes)
	return f.hardware, f.err
}

func (f *fake) ReadGPUs(context.Context) (topology.Driver, []topology.GPU, []topology.Problem) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.wait(f.gpusTake)
	return f.driver, slices.Clone(f.gpus), nil
}

func (f *fake) wait(takes func()) {
	if takes != nil {
		f.mu.Unlock()
		defer f.mu.Lock()
		takes()
	}
}

func (f *fake) set(change func(*fake)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(f)
}

const address = "0000:17:00.0"

func ready() *fake {
	place := topology.Placement{PCI: address, PCIeRoot: "pci0000:16", Path: []string{"0000:16:01.0"}, NUMANode: 0, Socket: 0}
	return &fake{
		hardware: topology.Hardware{
			Placements:   map[string]topology.Placement{address: place},
			GPUFunctions: []topology.GPUFunction{{PCI: address, Bound: true}},
			Bridges:      []topology.Bridge{{PCI: "0000:16:01.0"}, {PCI: "0000:64:01.0"}},
		},
		driver: topology.Driver{State: topology.DriverReady, Version: "570.124.06"},
		gpus:   []topology.GPU{{Name: topology.GPUName(address), UUID: "GPU-1", Placement: topology.Placement{PCI: address, NUMANode: -1, Socket: -1}}},
	}
}

func observe(t *testing.T, f *fake, watchers ...topology.Watcher) *topology.Observer {
	t.Helper()
	bootID := filepath.Join(t.TempDir(), "boot_id")
	if err := os.WriteFile(bootID, []byte("boot-1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	return topology.NewObserver(topology.ObserverConfig{
		Hardware: f, GPUs: f, Watchers: watchers, BootIDPath: bootID, Interval: time.Hour, Debounce: time.Millisecond,
	})
}

func TestTheSnapshotJoinsBothViews(t *testing.T) {
	s := observe(t, ready()).Observe(t.Context())
	if s.BootID != "boot-1" || len(s.GPUs) != 1 || s.GPUs[0].UUID != "GPU-1" || s.GPUs[0].Placement.PCIeRoot != "pci0000:16" {
		t.Errorf("the snapshot is %+v", s)
	}
	if len(s.Bridges) != 1 || s.Bridges[0].PCI != "0000:16:01.0" {
		t.Errorf("bridges that lead to no device are listed: %v", s.Bridges)
	}
}

func TestGPUsThatTheDriverDoesNotList(t *testing.T) {
	cases := []struct {
		name   string
		known  bool // the driver listed it before
		change func(*fake)
		want   []string // "name lost uuid"
	}{
		{"bound to the driver, never seen: lost", false, func(f *fake) { f.gpus = nil }, []string{"gpu-0000-17-00-0 true "}},
		{"seen before: lost, with what was known", true, func(f *fake) { f.gpus = nil }, []string{"gpu-0000-17-00-0 true GPU-1"}},
		{"the driver died: lost, with what was known", true, func(f *fake) {
			f.gpus, f.driver = nil, topology.Driver{State: topology.DriverFailed, Message: "no answer"}
		}, []string{"gpu-0000-17-00-0 true GPU-1"}},
		{"no driver was ever there: no GPUs", false, func(f *fake) {
			f.gpus, f.driver = nil, topology.Driver{State: topology.DriverMissing}
		}, nil},
		{"passed through to a virtual machine: not the driver's any more", true, func(f *fake) { f.gpus, f.hardware.GPUFunctions = nil, nil }, nil},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			f := ready()
			o := observe(t, f)
			if c.known {
				o.Observe(t.Context())
			}
			f.set(c.change)
			var got []string
			for _, gpu := range o.Observe(t.Context()).GPUs {
				lost := " false "
				if gpu.Lost && len(gpu.Problems) > 0 {
					lost = " true "
				}
				got = append(got, gpu.Name+lost+gpu.UUID)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestWhatIsKeptOfALostGPU(t *testing.T) {
	mig := &topology.MIG{MemorySlices: 8, Instances: []topology.MIGInstance{{ProfileID: 19, GPUInstance: 7}}}
	hangs := []topology.Problem{{Subject: "nvmlDeviceGetUUID", Message: "GPU is lost"}}
	cases := []struct {
		name string
		now  func(gpu *topology.GPU)
		want *topology.MIG
	}{
		{"a driver loaded anew cannot say what it is: it is what it was", func(gpu *topology.GPU) { gpu.UUID, gpu.MIG = "", nil }, mig},
		{"half of what it was can be read: it is what it was", func(gpu *topology.GPU) { gpu.MIG = nil }, mig},
		{"another card is in the slot: nothing is kept", func(gpu *topology.GPU) { gpu.UUID, gpu.MIG = "GPU-2", nil }, nil},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			f := ready()
			f.gpus[0].MIGEnabled, f.gpus[0].MIG = true, mig
			o := observe(t, f)
			before := o.Observe(t.Context()).GPUs[0]
			f.set(func(f *fake) {
				f.gpus[0].Lost, f.gpus[0].Problems = true, hangs
				c.now(&f.gpus[0])
			})
			gpu := o.Observe(t.Context()).GPUs[0]
			if !gpu.Lost || !cmp.Equal(gpu.MIG, c.want) || !cmp.Equal(gpu.Problems, hangs) || !cmp.Equal(gpu.Placement, before.Placement) {
				t.Errorf("the GPU is %+v", gpu)
			}
		})
	}
}

func TestAnUnchangedMachineIsNotPublishedAgain(t *testing.T) {
	f := ready()
	o := observe(t, f)
	first := o.Observe(t.Context())
	updates, stop := o.Subscribe()
	defer stop()
	if got := <-updates; got != first {
		t.Error("a subscriber does not begin with the current snapshot")
	}
	if second := o.Observe(t.Context()); second != first {
		t.Error("an unchanged machine became a new snapshot")
	}
	f.set(func(f *fake) { f.gpus[0].MIGEnabled = true })
	o.Observe(t.Context())
	f.set(func(f *fake) { f.gpus = nil })
	last := o.Observe(t.Context())
	if got := <-updates; got != last {
		t.Error("a slow subscriber did not get the newest snapshot")
	}
	select {
	case got := <-updates:
		t.Errorf("an outdated snapshot was kept: %+v", got)
	default:
	}
}

func TestHardwareThatCannotBeReadStaysAsItWas(t *testing.T) {
	f := ready()
	o := observe(t, f)
	first := o.Observe(t.Context())
	f.set(func(f *fake) {
		f.hardware, f.err = topology.Hardware{}, errors.New("sysfs is gone")
		f.gpus[0].MIGEnabled = true
	})
	want := *first
	want.GPUs = slices.Clone(first.GPUs)
	want.GPUs[0].MIGEnabled = true // the driver's side goes on
	want.Problems = []topology.Problem{{Subject: "PCI functions and NICs", Message: "sysfs is gone"}}
	if diff := cmp.Diff(&want, o.Observe(t.Context())); diff != "" {
		t.Error(diff)
	}
}

func TestHintsAndRescansReadTheMachine(t *testing.T) {
	f := ready()
	hint := make(chan struct{})
	o := observe(t, f, func(ctx context.Context, changed func()) error {
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-hint:
				changed()
			}
		}
	})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	updates, stop := o.Subscribe()
	defer stop()
	go func() { ended <- o.Run(ctx) }()
	<-updates
	f.set(func(f *fake) { f.driver.Version = "580.1" })
	hint <- struct{}{}
	if s := <-updates; s.Driver.Version != "580.1" {
		t.Errorf("after a hint the driver is %+v", s.Driver)
	}
	f.set(func(f *fake) { f.driver.Version = "590.1" })
	o.Rescan()
	if s := <-updates; s.Driver.Version != "590.1" || o.Snapshot() != s {
		t.Errorf("after a rescan the driver is %+v", s.Driver)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("the observer ended with %v", err)
	}
}
