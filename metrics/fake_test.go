package metrics

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	testingclock "k8s.io/utils/clock/testing"

	"github.com/hostler-dev/hostler/topology"
	"github.com/hostler-dev/hostler/topology/nvml"
)

var start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func ptr[T any](v T) *T { return &v }

// fakeGPUs answers with what a test set, by PCI address.
type fakeGPUs struct {
	mu      sync.Mutex
	samples map[string]nvml.Sample
	errs    map[string]error
	hang    map[string]bool
	// forbidden makes any call a panic.
	forbidden bool
	calls     map[string]int
}

func (f *fakeGPUs) Sample(ctx context.Context, pci string) (nvml.Sample, error) {
	f.mu.Lock()
	if f.forbidden {
		panic("a scrape reached the sampler")
	}
	f.calls[pci]++
	sample, err, hang := f.samples[pci], f.errs[pci], f.hang[pci]
	f.mu.Unlock()
	if hang {
		<-ctx.Done()
		return nvml.Sample{}, ctx.Err()
	}
	return sample, err
}

func (f *fakeGPUs) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

type fakeLinks map[int]LinkReading

func (f fakeLinks) ReadLink(index int) (LinkReading, error) { return f[index], nil }

type fakeLedger struct {
	mu      sync.Mutex
	holders []Holder
	changed chan struct{}
}

func (f *fakeLedger) Holders() []Holder {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]Holder(nil), f.holders...)
}

func (f *fakeLedger) Changed() <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.changed
}

// set changes who holds what, and says so, as the driver's ledger does.
func (f *fakeLedger) set(holders ...Holder) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.holders = holders
	close(f.changed)
	f.changed = make(chan struct{})
}

const pci0, pci1 = "0000:17:00.0", "0000:2a:00.0"

// machine is a node with two GPUs (the second one with MIG, so that it has no
// utilization), a RoCE PF, a PF whose netdev is in a pod, and a VF that nobody holds.
func machine() *topology.Snapshot {
	gpu := func(pci, uuid string) topology.GPU {
		return topology.GPU{Name: topology.GPUName(pci), UUID: uuid, ProductName: `NVIDIA "H100"`, Placement: topology.Placement{PCI: pci, PCIeRoot: "pci0000:16", NUMANode: 0}}
	}
	nic := func(pci string, kind topology.NICKind, link *topology.Link, rdma string) topology.NIC {
		n := topology.NIC{Name: topology.NICName(pci), Kind: kind, VendorID: "15b3", DeviceID: "1021", Link: link, Placement: topology.Placement{PCI: pci, PCIeRoot: "pci0000:16", NUMANode: -1}}
		if rdma != "" {
			n.RDMA = &topology.RDMADevice{Name: rdma, Ports: []topology.RDMAPort{{Port: 1, State: "ACTIVE"}}}
		}
		return n
	}
	cut := gpu(pci1, "GPU-bbbb")
	cut.MIGEnabled, cut.MIG = true, mig()
	return &topology.Snapshot{
		RDMANamespaces: "exclusive",
		Driver:         topology.Driver{State: topology.DriverReady, Version: "570.124.06", CUDAVersion: "12.8"},
		GPUs:           []topology.GPU{gpu(pci0, "GPU-aaaa"), cut},
		NICs: []topology.NIC{
			nic("0000:18:00.0", topology.PF, &topology.Link{Name: "ens1f0", Index: 7, SpeedMbps: 400_000}, "mlx5_0"),
			nic("0000:18:00.2", topology.VF, &topology.Link{Name: "ens1f0v0", Index: 8}, ""),
			nic("0000:2b:00.0", topology.PF, nil, "mlx5_1"),
		},
	}
}

// mig is cut into a partition, and an instance that two compute instances share.
func mig() *topology.MIG {
	places := []topology.MIGPlacement{{Start: 0, Size: 1}, {Start: 1, Size: 1}}
	return &topology.MIG{
		MemorySlices: 8,
		Profiles: []topology.MIGProfile{
			{Name: "3g.40gb", ID: 9, Placements: []topology.MIGPlacement{{Start: 0, Size: 4}, {Start: 4, Size: 4}}},
			{Name: "1g.10gb", ID: 19, Placements: places},
		},
		Instances: []topology.MIGInstance{
			{ProfileID: 19, Placement: places[1], GPUInstance: 8, ComputeInstances: []topology.MIGComputeInstance{{UUID: "MIG-1111"}}},
			{ProfileID: 9, Placement: topology.MIGPlacement{Start: 4, Size: 4}, GPUInstance: 2, ComputeInstances: []topology.MIGComputeInstance{{UUID: "MIG-2222"}, {ComputeInstance: 1, UUID: "MIG-3333"}}},
		},
	}
}

func samples() map[string]nvml.Sample {
	return map[string]nvml.Sample{
		pci0: {
			Utilization: ptr(0.93), MemoryUtilization: ptr(0.41), MemoryUsedBytes: ptr(uint64(20 << 30)), MemoryTotalBytes: ptr(uint64(80 << 30)),
			TemperatureCelsius: ptr(61.0), PowerWatts: ptr(512.25), EnergyJoules: ptr(123456.5), SMClockHertz: ptr(1.98e9), MemoryClockHertz: ptr(2.619e9),
		},
		pci1: {MemoryUsedBytes: ptr(uint64(0)), MemoryTotalBytes: ptr(uint64(80 << 30)), TemperatureCelsius: ptr(35.0), PowerWatts: ptr(70.0)},
	}
}

// rdmaCounters renders those of the machine.
func rdmaCounters(t testing.TB) string {
	t.Helper()
	root := t.TempDir()
	for path, content := range map[string]string{
		"mlx5_0/ports/1/state":                    "4: ACTIVE\n",
		"mlx5_0/ports/1/counters/port_rcv_data":   "250\n",
		"mlx5_0/ports/1/counters/port_xmit_data":  "500\n",
		"mlx5_0/ports/1/counters/link_downed":     "2\n",
		"mlx5_1/ports/1/state":                    "1: DOWN\n",
		"mlx5_1/ports/1/counters/port_rcv_data":   "N/A (no PMA)\n",
		"mlx5_1/ports/1/counters/port_xmit_data":  "0\n",
		"mlx5_1/ports/1/counters/unrelated_stuff": "1\n",
	} {
		full := filepath.Join(root, "class/infiniband", path)
		if err := os.MkdirAll(filepath.Dir(full), 0o750); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(full, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

type bench struct {
	*Exporter
	gpus   *fakeGPUs
	ledger *fakeLedger
	clock  *testingclock.FakeClock
}

// newBench runs an exporter on the machine and waits for its first samples.
func newBench(t testing.TB) *bench {
	t.Helper()
	b := &bench{
		gpus:   &fakeGPUs{samples: samples(), errs: map[string]error{}, hang: map[string]bool{}, calls: map[string]int{}},
		ledger: &fakeLedger{changed: make(chan struct{})},
		clock:  testingclock.NewFakeClock(start),
	}
	b.Exporter = NewExporter(t.Context(), ExporterConfig{
		GPUs: b.gpus, Ledger: b.ledger, Recorder: NewRecorder(), Sys: rdmaCounters(t), Clock: b.clock,
		Links: fakeLinks{7: {Up: true, ReceivedBytes: 1 << 40, TransmittedBytes: 17, ReceivedPackets: 3, TransmittedPackets: 1}},
	})
	return b
}

func (b *bench) run(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run ended with %v", err)
		}
	})
	b.SetSnapshot(machine())
}

// pass lets simulated time go by until the view is as a test wants it.
func (b *bench) pass(t testing.TB, what string, done func(*View) bool) *View {
	t.Helper()
	for range 5000 {
		if v := b.view(); done(v) {
			return v
		}
		b.clock.Step(100 * time.Millisecond)
		time.Sleep(time.Millisecond) // lets the goroutines that the step woke run
	}
	t.Fatalf("within 500 simulated seconds it did not happen that %s", what)
	return nil
}

func allSampled(v *View) bool {
	return len(v.GPUs) == 2 && v.GPUs[0].Sample != nil && v.GPUs[1].Sample != nil &&
		len(v.NICs) >= 2 && v.NICs[0].Reading != nil && v.NICs[1].Reading != nil
}
