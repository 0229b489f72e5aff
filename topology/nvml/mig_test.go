package nvml

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
	"github.com/google/go-cmp/cmp"

	"github.com/hostler-dev/hostler/test/nvmlsim"
	"github.com/hostler-dev/hostler/topology"
)

const cut = "2 9 4:4 0/2/0:3/MIG-b\n7 19 0:1 1/0/0:1/MIG-a2 0/0/0:1/MIG-a1\n9 19 2:1\n"

var cutInstances = []topology.MIGInstance{
	{ProfileID: 19, Placement: topology.MIGPlacement{Start: 0, Size: 1}, GPUInstance: 7,
		ComputeInstances: []topology.MIGComputeInstance{{ComputeInstance: 0, UUID: "MIG-a1"}, {ComputeInstance: 1, UUID: "MIG-a2"}}},
	{ProfileID: 19, Placement: topology.MIGPlacement{Start: 2, Size: 1}, GPUInstance: 9},
	{ProfileID: 9, Placement: topology.MIGPlacement{Start: 4, Size: 4}, GPUInstance: 2,
		ComputeInstances: []topology.MIGComputeInstance{{ComputeInstance: 0, UUID: "MIG-b"}}},
}

func isA100(t *testing.T, gpus []topology.GPU) {
	t.Helper()
	mig := gpus[0].MIG
	if mig == nil || len(gpus[0].Problems) > 0 {
		t.Fatalf("MIG is %+v with problems %v", mig, gpus[0].Problems)
	}
	if gpus[1].MIG != nil || gpus[1].MIGEnabled {
		t.Error("the GPU outside MIG mode has MIG")
	}
	capacity := topology.MIGResources{ComputeSlices: 7, Multiprocessors: 98, CopyEngines: 7, Decoders: 5, JPEGEngines: 1, OFAEngines: 1, MemoryBytes: 40192 << 20}
	if diff := cmp.Diff(capacity, mig.Capacity); diff != "" || mig.MemorySlices != 8 {
		t.Errorf("%d memory slices and capacity %s", mig.MemorySlices, diff)
	}
	var names []string
	for _, p := range mig.Profiles {
		names = append(names, p.Name)
	}
	if want := []string{"7g.40gb", "4g.20gb", "3g.20gb", "2g.10gb", "1g.10gb", "1g.5gb", "1g.5gb+me"}; !slices.Equal(names, want) {
		t.Errorf("profiles by ID are %v, want %v", names, want)
	}
	if diff := cmp.Diff(cutInstances, mig.Instances); diff != "" {
		t.Error(diff)
	}
	if places := len(topology.Partitions(&gpus[0])); places != 25 {
		t.Errorf("%d partitions, want 1+1+2+3+4+7+7", places)
	}
}

func TestMIGIsReadAsTheDriverTellsIt(t *testing.T) {
	control, source := simulate(t, nvmlsim.Build, 0)
	must(t, control.SetMIGInstances(0, cut))
	isA100(t, read(t, source))
}

// The names, which an old driver does not tell, are derived.
func TestAnOldDriverTellsTheSame(t *testing.T) {
	if !inOwnProcess(t) {
		return
	}
	control, source := simulate(t, nvmlsim.BuildOldDriver, 0)
	must(t, control.SetMIGInstances(0, cut))
	isA100(t, read(t, source))
}

func TestAGPULosesMIGWithTheMode(t *testing.T) {
	control, source := simulate(t, nvmlsim.Build, 0)
	must(t, control.SetMIGInstances(0, cut))
	read(t, source)
	must(t, control.SetMIGMode(0, false))
	// Not one call about MIG may be made to a GPU that is not in MIG mode.
	for _, calls := range []string{"nvmlDeviceGetGpuInstance*", "nvmlDeviceGetMaxMig*", "nvmlDeviceGetMigDevice*"} {
		must(t, control.Fail(calls, nvmlsim.AllGPUs, nvml.ERROR_UNKNOWN))
	}
	for _, gpu := range read(t, source) {
		if gpu.MIG != nil || gpu.MIGEnabled || len(gpu.Problems) > 0 {
			t.Errorf("%s has MIG %+v, problems %v", gpu.Name, gpu.MIG, gpu.Problems)
		}
	}
	must(t, control.ClearAll())
	must(t, control.SetMIGMode(1, true))
	if gpu := read(t, source)[1]; gpu.MIG == nil || len(gpu.MIG.Profiles) != 7 || len(gpu.MIG.Instances) != 0 {
		t.Errorf("after the mode was turned on, MIG is %+v", gpu.MIG)
	}
}

func TestProfilesAreReadOncePerMIGModeAndInstancesEveryTime(t *testing.T) {
	control, source := simulate(t, nvmlsim.Build, 0)
	must(t, control.Fail("nvmlDeviceGetGpuInstanceP*", 0, nvml.ERROR_UNKNOWN))
	must(t, control.SetMIGInstances(0, cut))
	isA100(t, read(t, source))

	must(t, control.SetMIGMode(0, false))
	read(t, source)
	must(t, control.SetMIGMode(0, true))
	if gpu := read(t, source)[0]; len(gpu.MIG.Profiles) != 0 || len(gpu.Problems) == 0 {
		t.Errorf("profiles that nobody could read are %v, problems %v", gpu.MIG.Profiles, gpu.Problems)
	}
	must(t, control.ClearAll())
	must(t, control.SetMIGInstances(0, cut))
	isA100(t, read(t, source))
}

func TestOneGetterCostsOneAttributeOfMIG(t *testing.T) {
	without := func(change func(*topology.MIGInstance)) []topology.MIGInstance {
		instances := slices.Clone(cutInstances)
		for i := range instances {
			instances[i].ComputeInstances = slices.Clone(instances[i].ComputeInstances)
			change(&instances[i])
		}
		return instances
	}
	for _, test := range []struct {
		name, call string
		want       []topology.MIGInstance
	}{
		{"UUIDs", "nvmlDeviceGetUUID", without(func(i *topology.MIGInstance) {
			for c := range i.ComputeInstances {
				i.ComputeInstances[c].UUID = ""
			}
		})},
		{"the compute instances", "nvmlDeviceGetMigDeviceHandleByIndex", without(func(i *topology.MIGInstance) { i.ComputeInstances = nil })},
		{"nothing, where the instances were known", "nvmlDeviceGetGpuInstances", cutInstances},
		{"nothing, where the instances were known", "nvmlGpuInstanceGetInfo", cutInstances},
	} {
		t.Run(test.call+" costs "+test.name, func(t *testing.T) {
			control, source := simulate(t, nvmlsim.Build, 0)
			must(t, control.SetMIGInstances(0, cut))
			read(t, source)
			must(t, control.Fail(test.call, 0, nvml.ERROR_UNKNOWN))
			gpu := read(t, source)[0]
			if diff := cmp.Diff(test.want, gpu.MIG.Instances); diff != "" {
				t.Error(diff)
			}
			if len(gpu.Problems) == 0 || len(gpu.MIG.Profiles) != 7 || gpu.UUID == "" {
				t.Errorf("%d profiles, UUID %q, problems %v", len(gpu.MIG.Profiles), gpu.UUID, gpu.Problems)
			}
			must(t, control.ClearAll())
			isA100(t, read(t, source))
		})
	}
}

func TestALibraryThatCannotDoMIGIsAProblemOfGPUsInMIGMode(t *testing.T) {
	_, source := simulate(t, nvmlsim.Build, 0)
	session := source.Session()
	has := session.has
	session.has = func(symbol string) bool { return symbol != "nvmlDeviceGetGpuInstances" && has(symbol) }
	gpus := read(t, source)
	if gpus[0].MIG != nil || !gpus[0].MIGEnabled || len(gpus[0].Problems) != 1 || len(gpus[1].Problems) != 0 {
		t.Errorf("MIG is %+v, problems %v and %v", gpus[0].MIG, gpus[0].Problems, gpus[1].Problems)
	}
}

func TestWatchTellsOfMIGAndOfTheDriver(t *testing.T) {
	control, source := simulate(t, nvmlsim.Build, 0)
	hints := make(chan struct{}, 100)
	ended := make(chan error)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { ended <- source.Watch(ctx, func() { hints <- struct{}{} }) }()
	defer func() { cancel(); must(t, <-ended) }()
	hint := func(what string, do func() error) {
		t.Helper()
		for len(hints) > 0 {
			<-hints // of what was done before
		}
		deadline := time.After(20 * time.Second)
		for again := time.NewTicker(500 * time.Millisecond); ; {
			must(t, do()) // again and again: the watch may not have begun
			select {
			case <-hints:
				again.Stop()
				return
			case <-again.C:
			case <-deadline:
				t.Fatalf("there is no hint of %s", what)
			}
		}
	}
	hint("another program's instances", func() error { return control.SetMIGInstances(0, cut) })
	hint("a driver that went away", control.KillDriver)
	must(t, control.ReviveDriver())
	read(t, source)
	hint("an instance of our own", func() error {
		return source.DestroyPartition(t.Context(), first, 9)
	})
	must(t, control.KillDriver())
	hint("a driver that went away again", func() error { return nil })
	library := driverRoot + "/usr/lib64/libnvidia-ml.so.1"
	hint("a library that was removed", func() error { return rename(library, library+".away") })
	hint("a library that was installed", func() error { return rename(library+".away", library) })
}

func BenchmarkReadingAGPUThatIsCut(b *testing.B) {
	control, source := simulate(b, nvmlsim.Build, 0)
	must(b, control.SetMIGInstances(0, cut))
	for b.Loop() {
		read(b, source)
	}
}
