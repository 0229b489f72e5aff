package nvmlsim

import (
	"debug/elf"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
)

// install puts a library and ten GPUs into a driver root, and opens it.
func install(t testing.TB, build func(string) (string, error)) (Control, nvml.Interface) {
	t.Helper()
	library, err := build("")
	if err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(library)
	if err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	path := filepath.Join(root, "usr/lib64/libnvidia-ml.so.1")
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, content, 0o755); err != nil {
		t.Fatal(err)
	}
	control := Control{Dir: filepath.Join(root, "nvmlsim")}
	must(t, control.NewMachine("570.124.06", "12.8"))
	for i := range 10 {
		must(t, control.AddGPU(i, map[string]string{
			"uuid": fmt.Sprintf("GPU-%08d-0000-4000-8000-000000000000", i), "pci_bus_id": fmt.Sprintf("0000:%02x:00.0", 0x10+i),
			"pci_device_id": "0x233010de", "pci_subsystem_id": "0x16c110de", "pci_class": "0x030200", "name": "NVIDIA H100 80GB HBM3",
			"minor": fmt.Sprint(i), "compute_capability": "9.0", "architecture": "9",
			"memory_total": "85520809984", "memory_used": "1000", "memory_reserved": "500", "temperature": "31",
			"utilization": "0", "memory_utilization": "0", "recovery_action": "none",
			"pcie_path": fmt.Sprintf("pci0000:%02x/0000:%02x:01.0/0000:%02x:00.0", 0x40+i/2, 0x40+i/2, 0x10+i), "numa_node": fmt.Sprint(i / 5),
			"nvlinks": "0 1 4 switch 0000:07:00.0\n1 0 4 gpu 0000:11:00.0\n", "fabric": "3 7 0x2 000102030405060708090a0b0c0d0e0f",
			"mig_mode": "0 0",
		}))
	}
	lib := nvml.New(nvml.WithLibraryPath(path))
	ok(t, lib.Init())
	t.Cleanup(func() { lib.Shutdown() })
	return control, lib
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func ok(t testing.TB, r nvml.Return) {
	t.Helper()
	if r != nvml.SUCCESS {
		t.Fatalf("NVML answers %v", r)
	}
}

func device(t testing.TB, lib nvml.Interface, index int) nvml.Device {
	t.Helper()
	d, r := lib.DeviceGetHandleByIndex(index)
	ok(t, r)
	return d
}

func equal[T comparable](t *testing.T, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s is %v, want %v", what, got, want)
	}
}

func TestDriverAndIdentity(t *testing.T) {
	_, lib := install(t, Build)
	version, r := lib.SystemGetDriverVersion()
	ok(t, r)
	equal(t, "driver version", version, "570.124.06")
	cuda, r := lib.SystemGetCudaDriverVersion_v2()
	ok(t, r)
	equal(t, "CUDA version", cuda, 12080)
	own, r := lib.SystemGetNVMLVersion()
	ok(t, r)
	equal(t, "NVML version", own, "12.570.124.06")
	count, r := lib.DeviceGetCount()
	ok(t, r)
	equal(t, "number of GPUs", count, 10)

	for _, d := range []nvml.Device{device(t, lib, 9), byPCI(t, lib, "00000000:19:00.0"), byUUID(t, lib, "GPU-00000009-0000-4000-8000-000000000000")} {
		index, r := d.GetIndex()
		ok(t, r)
		equal(t, "index", index, 9)
		pci, r := d.GetPciInfo()
		ok(t, r)
		equal(t, "bus", pci.Bus, 0x19)
		equal(t, "device ID", pci.PciDeviceId, 0x233010de)
		major, minor, r := d.GetCudaComputeCapability()
		ok(t, r)
		equal(t, "compute capability", [2]int{major, minor}, [2]int{9, 0})
	}
	if _, r := lib.DeviceGetHandleByIndex(10); r != nvml.ERROR_INVALID_ARGUMENT {
		t.Errorf("GPU 10 of 10 answers %v", r)
	}
}

func byPCI(t *testing.T, lib nvml.Interface, address string) nvml.Device {
	t.Helper()
	d, r := lib.DeviceGetHandleByPciBusId(address)
	ok(t, r)
	return d
}

func byUUID(t *testing.T, lib nvml.Interface, uuid string) nvml.Device {
	t.Helper()
	d, r := lib.DeviceGetHandleByUUID(uuid)
	ok(t, r)
	return d
}

func TestValuesChangeWhileTheLibraryIsOpen(t *testing.T) {
	control, lib := install(t, Build)
	d := device(t, lib, 2)
	must(t, control.SetUtilization(2, 93))
	must(t, control.SetMemoryUsed(2, 7<<30))
	must(t, control.SetTemperature(2, 71))
	must(t, control.Set(2, "processes", "4711 1048576\n4712 2048 gi=1 ci=0"))
	load, r := d.GetUtilizationRates()
	ok(t, r)
	equal(t, "utilization", load.Gpu, 93)
	memory, r := d.GetMemoryInfo_v2()
	ok(t, r)
	equal(t, "memory used", memory.Used, 7<<30)
	equal(t, "memory free", memory.Free, memory.Total-500-7<<30)
	heat, r := d.GetTemperature(nvml.TEMPERATURE_GPU)
	ok(t, r)
	equal(t, "temperature", heat, 71)
	processes, r := d.GetComputeRunningProcesses()
	ok(t, r)
	if len(processes) != 2 || processes[0].Pid != 4711 || processes[0].GpuInstanceId != 0xFFFFFFFF || processes[1].GpuInstanceId != 1 {
		t.Errorf("processes are %+v", processes)
	}
	must(t, control.Unset(2, "temperature"))
	if _, r := d.GetTemperature(nvml.TEMPERATURE_GPU); r != nvml.ERROR_NOT_SUPPORTED {
		t.Errorf("an attribute without a file answers %v", r)
	}
}

func TestFieldValuesHaveReturnCodesOfTheirOwn(t *testing.T) {
	control, lib := install(t, Build)
	must(t, control.SetRecoveryAction(1, RecoveryReset))
	must(t, control.Set(1, "remapped_uncorrectable", "4"))
	must(t, control.Fail("field:142", 1, nvml.ERROR_UNKNOWN))
	values := []nvml.FieldValue{{FieldId: nvml.FI_DEV_GET_GPU_RECOVERY_ACTION}, {FieldId: nvml.FI_DEV_REMAPPED_UNC}, {FieldId: nvml.FI_DEV_REMAPPED_COR}, {FieldId: 9999}}
	ok(t, device(t, lib, 1).GetFieldValues(values))
	var got []nvml.Return
	for _, v := range values {
		got = append(got, nvml.Return(v.NvmlReturn))
	}
	if want := []nvml.Return{nvml.SUCCESS, nvml.SUCCESS, nvml.ERROR_UNKNOWN, nvml.ERROR_NOT_SUPPORTED}; !slices.Equal(got, want) {
		t.Errorf("the values return %v, want %v", got, want)
	}
	equal(t, "recovery action", values[0].Value[0], byte(nvml.GPU_RECOVERY_ACTION_GPU_RESET))
	equal(t, "remapped rows", values[1].Value[0], 4)
}

func TestNVLinkFabricAndTopology(t *testing.T) {
	_, lib := install(t, Build)
	d := device(t, lib, 0)
	active, r := d.GetNvLinkState(1)
	ok(t, r)
	equal(t, "state of link 1", active, nvml.FEATURE_DISABLED)
	remote, r := d.GetNvLinkRemotePciInfo(0)
	ok(t, r)
	equal(t, "far end of link 0", remote.Bus, 7)
	kind, r := d.GetNvLinkRemoteDeviceType(0)
	ok(t, r)
	equal(t, "kind of far end", kind, nvml.NVLINK_DEVICE_TYPE_SWITCH)
	if _, r := d.GetNvLinkState(2); r != nvml.ERROR_INVALID_ARGUMENT {
		t.Errorf("a link that the GPU does not have answers %v", r)
	}
	fabric, r := d.GetGpuFabricInfoV().V2()
	ok(t, r)
	equal(t, "clique", fabric.CliqueId, 7)
	equal(t, "last byte of the cluster", fabric.ClusterUuid[15], 15)
	for other, want := range map[int]nvml.GpuTopologyLevel{1: nvml.TOPOLOGY_MULTIPLE, 2: nvml.TOPOLOGY_NODE, 9: nvml.TOPOLOGY_SYSTEM} {
		level, r := d.GetTopologyCommonAncestor(device(t, lib, other))
		ok(t, r)
		equal(t, fmt.Sprintf("distance to GPU %d", other), level, want)
	}
}

func TestEventsCarryTheirInstance(t *testing.T) {
	control, lib := install(t, Build)
	set, r := lib.EventSetCreate()
	ok(t, r)
	defer set.Free()
	ok(t, device(t, lib, 3).RegisterEvents(nvml.EventTypeXidCriticalError, set))
	if _, r := set.Wait(1); r != nvml.ERROR_TIMEOUT {
		t.Errorf("waiting on a quiet machine answers %v", r)
	}
	one, zero := uint32(1), uint32(0)
	must(t, control.InjectXID(4, 13, nil, nil))
	must(t, control.InjectXID(3, 79, &one, &zero))
	must(t, control.InjectXID(3, 48, nil, nil))
	for _, want := range [][3]uint64{{79, 1, 0}, {48, 0xFFFFFFFF, 0xFFFFFFFF}} {
		e, r := set.Wait(5000)
		ok(t, r)
		equal(t, "event", [3]uint64{e.EventData, uint64(e.GpuInstanceId), uint64(e.ComputeInstanceId)}, want)
		index, r := e.Device.GetIndex()
		ok(t, r)
		equal(t, "event's GPU", index, 3)
	}
}

func TestWaitingEndsSoonAfterTheEvent(t *testing.T) {
	control, lib := install(t, Build)
	set, r := lib.EventSetCreate()
	ok(t, r)
	defer set.Free()
	ok(t, device(t, lib, 0).RegisterEvents(nvml.EventTypeXidCriticalError, set))
	woken := make(chan nvml.Return)
	go func() {
		_, r := set.Wait(10000)
		woken <- r
	}()
	start := time.Now()
	must(t, control.InjectXID(0, 79, nil, nil))
	ok(t, <-woken)
	if waited := time.Since(start); waited > time.Second {
		t.Errorf("the event took %v", waited)
	}
}

func TestLostGPUAnswersSoUntilItIsBack(t *testing.T) {
	control, lib := install(t, Build)
	lost, healthy := device(t, lib, 5), device(t, lib, 6)
	must(t, control.SetLost(5, true))
	if _, r := lost.GetUUID(); r != nvml.ERROR_GPU_IS_LOST {
		t.Errorf("a lost GPU answers %v", r)
	}
	if _, r := lib.DeviceGetHandleByIndex(5); r != nvml.ERROR_GPU_IS_LOST {
		t.Errorf("looking up a lost GPU answers %v", r)
	}
	_, r := healthy.GetUUID()
	ok(t, r)
	must(t, control.SetLost(5, false))
	_, r = lost.GetUUID()
	ok(t, r)
}

func TestUnboundGPUIsNotTheDrivers(t *testing.T) {
	control, lib := install(t, Build)
	unbound, next := device(t, lib, 5), device(t, lib, 6)
	must(t, control.SetUnbound(5, true))
	if count, r := lib.DeviceGetCount(); r != nvml.SUCCESS || count != 9 {
		t.Errorf("%d GPUs of ten (%v), one of them unbound", count, r)
	}
	fifth, r := lib.DeviceGetHandleByIndex(5)
	ok(t, r)
	if uuid, _ := fifth.GetUUID(); uuid != "GPU-00000006-0000-4000-8000-000000000000" {
		t.Errorf("GPU 5 is %s, want the one that follows the unbound one", uuid)
	}
	if index, _ := next.GetIndex(); index != 5 {
		t.Errorf("the GPU after the unbound one has index %d, want 5", index)
	}
	if _, r := lib.DeviceGetHandleByIndex(9); r != nvml.ERROR_INVALID_ARGUMENT {
		t.Errorf("the tenth of nine GPUs: %v", r)
	}
	if _, r := lib.DeviceGetHandleByPciBusId("0000:15:00.0"); r != nvml.ERROR_NOT_FOUND {
		t.Errorf("the unbound GPU by its address: %v", r)
	}
	if _, r := unbound.GetTemperature(nvml.TEMPERATURE_GPU); r != nvml.ERROR_GPU_IS_LOST {
		t.Errorf("a handle from before: %v", r)
	}
	must(t, control.SetUnbound(5, false))
	if uuid, r := device(t, lib, 5).GetUUID(); r != nvml.SUCCESS || uuid != "GPU-00000005-0000-4000-8000-000000000000" {
		t.Errorf("bound again it answers %s, %v", uuid, r)
	}
}

func TestFailingSlowAndHangingCalls(t *testing.T) {
	control, lib := install(t, Build)
	one, two := device(t, lib, 1), device(t, lib, 2)
	must(t, control.Fail("nvmlDeviceGetName", 1, nvml.ERROR_UNKNOWN))
	if _, r := one.GetName(); r != nvml.ERROR_UNKNOWN {
		t.Errorf("a failing call answers %v", r)
	}
	_, r := two.GetName()
	ok(t, r)

	must(t, control.Slow("nvmlDeviceGet*", 2, 60*time.Millisecond))
	start := time.Now()
	_, r = two.GetName()
	ok(t, r)
	if took := time.Since(start); took < 60*time.Millisecond {
		t.Errorf("a call slowed to 60ms took %v", took)
	}
	must(t, control.ClearAll())

	must(t, control.Hang("nvmlDeviceGetTemperature", AllGPUs))
	returned := make(chan nvml.Return, 1)
	go func() {
		_, r := one.GetTemperature(nvml.TEMPERATURE_GPU)
		returned <- r
	}()
	select {
	case r := <-returned:
		t.Fatalf("a hanging call returned %v", r)
	case <-time.After(50 * time.Millisecond):
	}
	must(t, control.Clear("nvmlDeviceGetTemperature", AllGPUs))
	select {
	case r := <-returned:
		ok(t, r)
	case <-time.After(5 * time.Second):
		t.Fatal("the call still hangs after the rule was cleared")
	}
}

func TestDeadDriverFailsEveryCallAndInit(t *testing.T) {
	control, lib := install(t, Build)
	d := device(t, lib, 0)
	must(t, control.KillDriver())
	if _, r := d.GetName(); r != nvml.ERROR_DRIVER_NOT_LOADED {
		t.Errorf("a call on a dead driver answers %v", r)
	}
	if r := lib.Init(); r != nvml.ERROR_DRIVER_NOT_LOADED {
		t.Errorf("init on a dead driver answers %v", r)
	}
	must(t, control.ReviveDriver())
	_, r := d.GetName()
	ok(t, r)
}

func TestOldDriverLacksTheNewerSymbols(t *testing.T) {
	library, err := BuildOldDriver("")
	must(t, err)
	old := symbols(t, library)
	library, err = Build("")
	must(t, err)
	current := symbols(t, library)
	for _, name := range NewerSymbols() {
		if old[name] || !current[name] {
			t.Errorf("%s: in the old driver %v, in the current one %v; want only the latter", name, old[name], current[name])
		}
	}
	for name := range current {
		if !old[name] && !slices.Contains(NewerSymbols(), name) {
			t.Errorf("the old driver lacks %s, which NewerSymbols does not name", name)
		}
	}
}

// A sampler reads about ten values of each GPU every few seconds.
func BenchmarkReadingOneValue(b *testing.B) {
	_, lib := install(b, Build)
	d := device(b, lib, 0)
	for b.Loop() {
		_, r := d.GetTemperature(nvml.TEMPERATURE_GPU)
		ok(b, r)
	}
}

func BenchmarkFromEventToItsDelivery(b *testing.B) {
	control, lib := install(b, Build)
	set, r := lib.EventSetCreate()
	ok(b, r)
	defer set.Free()
	ok(b, device(b, lib, 0).RegisterEvents(nvml.EventTypeXidCriticalError, set))
	waiting, delivered := make(chan struct{}), make(chan nvml.Return)
	go func() {
		for range waiting {
			_, r := set.Wait(10000)
			delivered <- r
		}
	}()
	defer close(waiting)
	for b.Loop() {
		waiting <- struct{}{}
		must(b, control.InjectXID(0, 79, nil, nil))
		ok(b, <-delivered)
	}
}

func symbols(t *testing.T, library string) map[string]bool {
	t.Helper()
	f, err := elf.Open(library)
	must(t, err)
	defer f.Close()
	dynamic, err := f.DynamicSymbols()
	must(t, err)
	names := map[string]bool{}
	for _, s := range dynamic {
		if s.Section != elf.SHN_UNDEF {
			names[s.Name] = true
		}
	}
	return names
}
