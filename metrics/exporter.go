// Package metrics measures the node's devices and serves the result. Samplers
// measure in the background, one goroutine a device; a renderer turns their
// newest samples, the ledger of who holds what and the agent's own counters into
// a finished page, at most once a second; a scrape copies that page. A scrape
// therefore calls no driver, no kubelet and no API server, costs the same with
// one device as with a hundred, and cannot hang on a dead GPU.
package metrics

import (
	"context"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"github.com/hostler-dev/hostler/topology"
	"github.com/hostler-dev/hostler/topology/nvml"
)

// Ledger says who holds which device.
type Ledger interface {
	Holders() []Holder
	// Changed yields after a change. It may be a new channel with each call.
	Changed() <-chan struct{}
}

// ExporterConfig is what an Exporter needs.
type ExporterConfig struct {
	// GPUs measures GPUs. Required.
	GPUs GPUSampler
	// Ledger of prepared claims. Required.
	Ledger Ledger
	// Recorder of the agent's own metrics. Required.
	Recorder *Recorder
	// Links reads netdevs. Default: NetlinkReader.
	Links LinkReader
	// Sys is the sysfs mount. Default: /sys.
	Sys string
	// PodResources is the kubelet's pod-resources socket; "" leaves container names out.
	PodResources string
	// DriverName whose claims are attributed. Default: hostler.dev.
	DriverName string
	// Interval between samples of a device. Default: 5s.
	Interval time.Duration
	// RenderInterval is how far the page is behind at most, and the least time between
	// two pages. Default: 1s.
	RenderInterval time.Duration
	// Clock defaults to the real one.
	Clock clock.Clock
}

// Exporter owns samplers and page.
type Exporter struct {
	cfg     ExporterConfig
	kubelet *kubelet
	// base is from when the intervals of all devices are counted.
	base time.Time
	// families is the specification, made once.
	families []family
	page     atomic.Pointer[page]
	// gzipWanted: some scraper accepts gzip, so pages are compressed ahead of time.
	gzipWanted atomic.Bool
	compressor compressor

	mu       sync.Mutex
	snapshot *topology.Snapshot
	// partitions are the snapshot's.
	partitions []PartitionView
	faults     []Fault
	gpus       map[string]*series[nvml.Sample]
	nics       map[string]*series[NICReading]

	newSnapshot, dirty chan struct{}
}

// NewExporter makes an exporter with a first page, which has no devices yet.
func NewExporter(ctx context.Context, cfg ExporterConfig) *Exporter {
	if cfg.Links == nil {
		cfg.Links = NetlinkReader{}
	}
	if cfg.Sys == "" {
		cfg.Sys = "/sys"
	}
	if cfg.DriverName == "" {
		cfg.DriverName = "hostler.dev"
	}
	if cfg.Interval <= 0 {
		cfg.Interval = 5 * time.Second
	}
	if cfg.RenderInterval <= 0 {
		cfg.RenderInterval = time.Second
	}
	if cfg.Clock == nil {
		cfg.Clock = clock.RealClock{}
	}
	e := &Exporter{
		cfg: cfg, base: cfg.Clock.Now(), families: specification(),
		gpus: map[string]*series[nvml.Sample]{}, nics: map[string]*series[NICReading]{},
		newSnapshot: make(chan struct{}, 1), dirty: make(chan struct{}, 1),
	}
	e.kubelet = &kubelet{
		socket: cfg.PodResources, driverName: cfg.DriverName, clock: cfg.Clock, interval: podResourcesInterval,
		ask: make(chan struct{}, 1), answered: func() { signal(e.dirty) },
	}
	e.render(ctx)
	return e
}

// SetSnapshot hands over the machine as it is now.
func (e *Exporter) SetSnapshot(s *topology.Snapshot) {
	partitions := partitionsOf(s)
	e.mu.Lock()
	e.snapshot, e.partitions = s, partitions
	e.mu.Unlock()
	signal(e.newSnapshot)
}

// SetFaults hands over the standing faults.
func (e *Exporter) SetFaults(faults []Fault) {
	e.mu.Lock()
	e.faults = slices.Clone(faults)
	e.mu.Unlock()
	signal(e.dirty)
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default: // one is pending
	}
}

func drain(c chan struct{}) {
	select {
	case <-c:
	default:
	}
}

// Run samples and renders until ctx ends.
func (e *Exporter) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var workers sync.WaitGroup
	defer workers.Wait()
	defer cancel()
	if e.cfg.PodResources != "" {
		workers.Go(func() {
			if err := e.kubelet.run(ctx); err != nil {
				klog.FromContext(ctx).Error(err, "Container names are missing from hostler_claim_info")
			}
		})
	}
	// Asked for before the ledger is read: a change after that is one of this channel.
	changed := e.cfg.Ledger.Changed()
	for {
		e.syncSamplers(ctx, &workers)
		e.render(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-e.newSnapshot:
		case <-changed:
		case <-e.dirty:
		case <-e.cfg.Clock.After(e.cfg.Interval): // ages grow even if every device hangs
		}
		// What comes close behind goes on the same page: all devices are measured at one time.
		select {
		case <-ctx.Done():
			return nil
		case <-e.cfg.Clock.After(e.cfg.RenderInterval):
		}
		drain(e.dirty)
		drain(e.newSnapshot)
		earlier := changed
		changed = e.cfg.Ledger.Changed()
		select {
		case <-earlier:
			signal(e.kubelet.ask)
		default: // the kubelet has nothing new to tell
		}
	}
}

// shown is whether a NIC is measured and on the page: all but the VFs that
// nobody holds, alone or in a pair, of which there may be thousands.
func shown(nic *topology.NIC, holders []Holder) bool {
	return nic.Kind != topology.VF || slices.ContainsFunc(holders, func(h Holder) bool { return h.Device == nic.Name || h.NIC == nic.Name })
}

// syncSamplers starts samplers of devices that are new and stops those of
// devices that are gone.
func (e *Exporter) syncSamplers(ctx context.Context, workers *sync.WaitGroup) {
	holders := e.cfg.Ledger.Holders()
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.snapshot == nil {
		return
	}
	gpus, nics := map[string]*series[nvml.Sample]{}, map[string]*series[NICReading]{}
	for _, gpu := range e.snapshot.GPUs {
		gpus[gpu.Name] = reuse(ctx, e, workers, e.gpus, gpu.Name, sampleGPU(e.cfg.GPUs, gpu.Placement.PCI))
	}
	for i := range e.snapshot.NICs {
		if nic := &e.snapshot.NICs[i]; shown(nic, holders) {
			nics[nic.Name] = reuse(ctx, e, workers, e.nics, nic.Name, e.sampleNIC(nic.Name))
		}
	}
	stopMissing(e.gpus, gpus)
	stopMissing(e.nics, nics)
	e.gpus, e.nics = gpus, nics
}

func reuse[T any](ctx context.Context, e *Exporter, workers *sync.WaitGroup, running map[string]*series[T], device string,
	sample func(context.Context) (T, bool, error)) *series[T] {
	if s := running[device]; s != nil {
		return s
	}
	ctx, stop := context.WithCancel(ctx)
	s := &series[T]{
		device: device, interval: e.cfg.Interval, clock: e.cfg.Clock, sample: sample,
		sampled: func() { signal(e.dirty) }, base: e.base, begun: e.cfg.Clock.Now(), stop: stop,
	}
	workers.Go(func() { s.run(ctx) })
	return s
}

func stopMissing[T any](before, after map[string]*series[T]) {
	for device, s := range before {
		if after[device] == nil {
			s.stop()
		}
	}
}

func (e *Exporter) sampleNIC(name string) func(context.Context) (NICReading, bool, error) {
	reader := &nicReader{sys: e.cfg.Sys, links: e.cfg.Links, broken: map[string]time.Time{}}
	return func(context.Context) (NICReading, bool, error) {
		e.mu.Lock()
		nic := e.snapshot.NIC(name) // the newest: its netdev comes and goes
		e.mu.Unlock()
		if nic == nil {
			return NICReading{}, false, nil
		}
		reading, err := reader.read(nic, e.cfg.Clock.Now())
		return reading, true, err
	}
}

// view gathers what the next page shows.
func (e *Exporter) view() *View {
	holders := e.cfg.Ledger.Holders()
	e.mu.Lock()
	defer e.mu.Unlock()
	v := &View{Now: e.cfg.Clock.Now(), Snapshot: e.snapshot, Holders: holders, Containers: e.kubelet.containers(), Partitions: e.partitions, Faults: e.faults}
	if e.snapshot == nil {
		return v
	}
	for _, gpu := range e.snapshot.GPUs {
		g := GPUView{Device: gpu}
		if s := e.gpus[gpu.Name]; s != nil {
			g.Sample, g.sampleState = s.view(v.Now)
		}
		v.GPUs = append(v.GPUs, g)
	}
	for i := range e.snapshot.NICs {
		if nic := &e.snapshot.NICs[i]; shown(nic, holders) {
			n := NICView{Device: *nic}
			if s := e.nics[nic.Name]; s != nil {
				n.Reading, n.sampleState = s.view(v.Now)
			}
			v.NICs = append(v.NICs, n)
		}
	}
	slices.SortStableFunc(v.Holders, func(a, b Holder) int {
		return strings.Compare(a.Device+"\x00"+a.ClaimUID, b.Device+"\x00"+b.ClaimUID)
	})
	return v
}

// render makes the next page. If the agent's own metrics cannot be gathered,
// the devices' are served all the same.
func (e *Exporter) render(ctx context.Context) {
	size := 0
	if before := e.page.Load(); before != nil {
		size = len(before.plain)
	}
	text := appendFamilies(make([]byte, 0, size+size/8), e.families, e.view())
	text, err := appendGathered(text, e.cfg.Recorder.registry)
	if err != nil {
		klog.FromContext(ctx).Error(err, "Some of the agent's own metrics are missing from the page")
	}
	next := newPage(text)
	if e.gzipWanted.Load() {
		if err := e.compressor.compress(next); err != nil {
			klog.FromContext(ctx).Error(err, "The metrics page is served as it is")
		}
	}
	e.page.Store(next)
}
