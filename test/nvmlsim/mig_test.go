package nvmlsim

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
)

// a100 is what `nvidia-smi mig -lgip -lgipp` lists for an A100-SXM4-40GB (NVIDIA MIG user guide).
const a100 = `0 19 1g.5gb 1 7 14 1 0 0 0 0 4864 0:1,1:1,2:1,3:1,4:1,5:1,6:1
7 20 1g.5gb+me 1 1 14 1 1 0 1 1 4864 0:1,1:1,2:1,3:1,4:1,5:1,6:1
9 15 1g.10gb 1 4 14 1 1 0 0 0 9856 0:2,2:2,4:2,6:2
1 14 2g.10gb 2 3 28 2 1 0 0 0 9856 0:2,2:2,4:2
2 9 3g.20gb 3 2 42 3 2 0 0 0 19968 0:4,4:4 p2p
3 5 4g.20gb 4 1 56 4 2 0 0 0 19968 0:4
4 0 7g.40gb 7 1 98 7 5 0 1 1 40192 0:8`

const oneG, oneGME, oneG10, threeG, fourG, sevenG = 19, 20, 15, 9, 5, 0

// migMachine has MIG mode on GPU 0 and nothing made yet.
func migMachine(t testing.TB, build func(string) (string, error)) (Control, nvml.Interface, nvml.Device) {
	t.Helper()
	control, lib := install(t, build)
	must(t, control.Set(0, "mig_profiles", a100))
	must(t, control.SetMIGMode(0, true))
	return control, lib, device(t, lib, 0)
}

func profile(t testing.TB, d nvml.Device, id uint32) *nvml.GpuInstanceProfileInfo {
	t.Helper()
	for index := range nvml.GPU_INSTANCE_PROFILE_COUNT {
		if info, r := d.GetGpuInstanceProfileInfo(index); r == nvml.SUCCESS && info.Id == id {
			return &info
		}
	}
	t.Fatalf("there is no profile %d", id)
	return nil
}

func TestProfilesAndPlacements(t *testing.T) {
	_, _, d := migMachine(t, Build)
	if _, r := d.GetGpuInstanceProfileInfo(nvml.GPU_INSTANCE_PROFILE_6_SLICE); r != nvml.ERROR_NOT_SUPPORTED {
		t.Errorf("a profile that the GPU lacks answers %v", r)
	}
	if _, r := d.GetGpuInstanceProfileInfo(nvml.GPU_INSTANCE_PROFILE_COUNT); r != nvml.ERROR_INVALID_ARGUMENT {
		t.Errorf("a profile that NVML lacks answers %v", r)
	}
	third, r := d.GetGpuInstanceProfileInfoV(nvml.GPU_INSTANCE_PROFILE_3_SLICE).V3()
	ok(t, r)
	var name []byte
	for _, c := range third.Name[:slices.Index(third.Name[:], 0)] {
		name = append(name, byte(c))
	}
	equal(t, "name", string(name), "MIG 3g.20gb")
	equal(t, "capabilities", third.Capabilities, nvml.GPU_INSTANCE_PROFILE_CAPS_P2P)
	equal(t, "copy engines", third.CopyEngineCount, 3)
	second, r := d.GetGpuInstanceProfileInfoV(nvml.GPU_INSTANCE_PROFILE_1_SLICE_REV1).V2()
	ok(t, r)
	equal(t, "memory", second.MemorySizeMB, 4864)
	byID, r := d.GetGpuInstanceProfileInfoByIdV(sevenG).V3()
	ok(t, r)
	equal(t, "multiprocessors", byID.MultiprocessorCount, 98)
	places, r := d.GetGpuInstancePossiblePlacements(profile(t, d, oneG10))
	ok(t, r)
	if want := []nvml.GpuInstancePlacement{{Start: 0, Size: 2}, {Start: 2, Size: 2}, {Start: 4, Size: 2}, {Start: 6, Size: 2}}; !slices.Equal(places, want) {
		t.Errorf("placements are %v", places)
	}
}

// What may be made beside what, from the MIG user guide's picture of the A100.
func TestInstancesNeverShareAnything(t *testing.T) {
	for _, test := range []struct {
		name   string
		exist  [][2]uint32 // profile and first slice
		next   [2]uint32
		answer nvml.Return
	}{
		{"an empty GPU takes the whole", nil, [2]uint32{sevenG, 0}, nvml.SUCCESS},
		{"the whole leaves nothing", [][2]uint32{{sevenG, 0}}, [2]uint32{oneG, 6}, nvml.ERROR_INSUFFICIENT_RESOURCES},
		{"two halves", [][2]uint32{{threeG, 4}}, [2]uint32{fourG, 0}, nvml.SUCCESS},
		{"one place twice", [][2]uint32{{oneG, 3}}, [2]uint32{oneG, 3}, nvml.ERROR_INSUFFICIENT_RESOURCES},
		{"part of a place that is taken", [][2]uint32{{oneG, 3}}, [2]uint32{fourG, 0}, nvml.ERROR_INSUFFICIENT_RESOURCES},
		{"the media engines once", [][2]uint32{{oneGME, 0}}, [2]uint32{oneGME, 1}, nvml.ERROR_INSUFFICIENT_RESOURCES},
		{"a place that the profile does not have", nil, [2]uint32{fourG, 4}, nvml.ERROR_INVALID_ARGUMENT},
		{"a profile that the GPU does not have", nil, [2]uint32{77, 0}, nvml.ERROR_INVALID_ARGUMENT},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, _, d := migMachine(t, Build)
			for _, e := range test.exist {
				_, r := create(d, e)
				ok(t, r)
			}
			if _, r := create(d, test.next); r != test.answer {
				t.Errorf("creating answers %v, want %v", r, test.answer)
			}
		})
	}
}

func create(d nvml.Device, at [2]uint32) (nvml.GpuInstance, nvml.Return) {
	size := map[uint32]uint32{oneG: 1, oneGME: 1, oneG10: 2, threeG: 4, fourG: 4, sevenG: 8}[at[0]]
	return d.CreateGpuInstanceWithPlacement(&nvml.GpuInstanceProfileInfo{Id: at[0]}, &nvml.GpuInstancePlacement{Start: at[1], Size: size})
}

func TestAMIGDeviceFromItsBirthToItsDeath(t *testing.T) {
	control, lib, d := migMachine(t, Build)
	gi, r := create(d, [2]uint32{threeG, 4})
	ok(t, r)
	info, r := gi.GetInfo()
	ok(t, r)
	equal(t, "GPU instance", info.Id, 2)
	span, r := gi.GetComputeInstanceProfileInfo(nvml.COMPUTE_INSTANCE_PROFILE_3_SLICE, 0)
	ok(t, r)
	equal(t, "multiprocessors", span.MultiprocessorCount, 42)
	if _, r := gi.GetComputeInstanceProfileInfo(nvml.COMPUTE_INSTANCE_PROFILE_4_SLICE, 0); r != nvml.ERROR_NOT_SUPPORTED {
		t.Errorf("4 of 3 slices answers %v", r)
	}
	ci, r := gi.CreateComputeInstance(&span)
	ok(t, r)
	if _, r := gi.CreateComputeInstance(&span); r != nvml.ERROR_INSUFFICIENT_RESOURCES {
		t.Errorf("a second one that spans the instance answers %v", r)
	}
	count, r := d.GetMaxMigDeviceCount()
	ok(t, r)
	equal(t, "most MIG devices", count, 7)
	mig, r := d.GetMigDeviceHandleByIndex(0)
	ok(t, r)
	if _, r := d.GetMigDeviceHandleByIndex(1); r != nvml.ERROR_NOT_FOUND {
		t.Errorf("the second of one MIG device answers %v", r)
	}
	uuid, r := mig.GetUUID()
	ok(t, r)
	same := byUUID(t, lib, uuid)
	equal(t, "handle by UUID", same, mig)
	describes(t, mig)

	must(t, control.Set(0, "processes", "4711 1024 gi=2 ci=0"))
	if r := ci.Destroy(); r != nvml.ERROR_IN_USE {
		t.Errorf("destroying an instance in use answers %v", r)
	}
	must(t, control.Unset(0, "processes"))
	if r := gi.Destroy(); r != nvml.ERROR_IN_USE {
		t.Errorf("destroying an instance with a compute instance in it answers %v", r)
	}
	ok(t, ci.Destroy())
	ok(t, gi.Destroy())
	if r := gi.Destroy(); r != nvml.ERROR_INVALID_ARGUMENT {
		t.Errorf("a handle of what is gone answers %v", r)
	}
	if _, r := mig.GetUUID(); r != nvml.ERROR_INVALID_ARGUMENT {
		t.Errorf("a MIG device that is gone answers %v", r)
	}
}

// describes checks what nvidia-container-toolkit and exporters ask of a MIG device.
func describes(t *testing.T, mig nvml.Device) {
	t.Helper()
	is, r := mig.IsMigDeviceHandle()
	ok(t, r)
	equal(t, "is a MIG device", is, true)
	name, r := mig.GetName()
	ok(t, r)
	equal(t, "name", name, "NVIDIA H100 80GB HBM3 MIG 3g.20gb")
	parent, r := mig.GetDeviceHandleFromMigDeviceHandle()
	ok(t, r)
	is, r = parent.IsMigDeviceHandle()
	ok(t, r)
	equal(t, "the parent is a MIG device", is, false)
	gi, r := mig.GetGpuInstanceId()
	ok(t, r)
	ci, r := mig.GetComputeInstanceId()
	ok(t, r)
	equal(t, "instances", [2]int{gi, ci}, [2]int{2, 0})
	attributes, r := mig.GetAttributes()
	ok(t, r)
	equal(t, "memory", attributes.MemorySizeMB, 19968)
	equal(t, "slices", attributes.GpuInstanceSliceCount, 3)
	memory, r := mig.GetMemoryInfo()
	ok(t, r)
	equal(t, "memory", memory.Total, 19968<<20)
	if _, r := mig.GetTemperature(nvml.TEMPERATURE_GPU); r != nvml.ERROR_INVALID_ARGUMENT {
		t.Errorf("the temperature of a MIG device answers %v", r)
	}
}

func TestAGPUOutsideMIGModeHasNoInstances(t *testing.T) {
	control, _, d := migMachine(t, Build)
	_, r := create(d, [2]uint32{oneG, 0})
	ok(t, r)
	must(t, control.SetMIGMode(0, false))
	if _, r := d.GetGpuInstances(profile(t, d, oneG)); r != nvml.ERROR_NOT_SUPPORTED {
		t.Errorf("listing instances answers %v", r)
	}
	count, r := d.GetMaxMigDeviceCount()
	ok(t, r)
	equal(t, "most MIG devices", count, 0)
	must(t, control.SetMIGMode(0, true))
	instances, r := d.GetGpuInstances(profile(t, d, oneG))
	ok(t, r)
	equal(t, "instances after the mode was toggled", len(instances), 0)
}

func TestChangesOfMIGAreEventsAndMayFail(t *testing.T) {
	control, lib, d := migMachine(t, Build)
	set, r := lib.EventSetCreate()
	ok(t, r)
	defer set.Free()
	ok(t, d.RegisterEvents(nvml.EventMigConfigChange, set))
	must(t, control.Fail("nvmlDeviceCreateGpuInstanceWithPlacement", 0, nvml.ERROR_UNKNOWN))
	if _, r := create(d, [2]uint32{oneG, 0}); r != nvml.ERROR_UNKNOWN {
		t.Errorf("creating with a failing driver answers %v", r)
	}
	if _, r := set.Wait(1); r != nvml.ERROR_TIMEOUT {
		t.Errorf("nothing changed, yet waiting answers %v", r)
	}
	must(t, control.ClearAll())
	_, r = create(d, [2]uint32{oneG, 0})
	ok(t, r)
	event, r := set.Wait(5000)
	ok(t, r)
	equal(t, "event", event.EventType, nvml.EventMigConfigChange)
}

// TestMain makes this binary a second program that uses the simulator.
func TestMain(m *testing.M) {
	if library := os.Getenv("NVMLSIM_CUTTER"); library != "" {
		lib := nvml.New(nvml.WithLibraryPath(library))
		if r := lib.Init(); r != nvml.SUCCESS {
			fmt.Fprintln(os.Stderr, "initialising the simulator answers", r)
			os.Exit(1)
		}
		d, _ := lib.DeviceGetHandleByIndex(0)
		for range 50 {
			if gi, r := d.CreateGpuInstance(&nvml.GpuInstanceProfileInfo{Id: oneG}); r == nvml.SUCCESS {
				info, _ := gi.GetInfo()
				fmt.Println(info.Id)
			}
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func TestProcessesThatCutAtOnceShareNoSlice(t *testing.T) {
	control, _, d := migMachine(t, Build)
	library := filepath.Join(filepath.Dir(control.Dir), "usr/lib64/libnvidia-ml.so.1")
	said := make([][]byte, 4)
	var cutters sync.WaitGroup
	for i := range said {
		cutters.Go(func() {
			command := exec.Command(os.Args[0])
			command.Env = append(os.Environ(), "NVMLSIM_CUTTER="+library, "GORACE=atexit_sleep_ms=0")
			said[i], _ = command.Output()
		})
	}
	cutters.Wait()
	made := strings.Fields(string(slices.Concat(said...)))
	slices.Sort(made)
	if len(made) != 7 || len(slices.Compact(made)) != 7 {
		t.Errorf("the processes made %v, want seven different instances", made)
	}
	instances, r := d.GetGpuInstances(profile(t, d, oneG))
	ok(t, r)
	equal(t, "instances", len(instances), 7)
	left, r := d.GetGpuInstanceRemainingCapacity(profile(t, d, oneG))
	ok(t, r)
	equal(t, "instances that still fit", left, 0)
}
