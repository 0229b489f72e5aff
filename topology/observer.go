// The observer keeps the snapshot fresh. It reads the machine at start, on
// every hint that something changed, and slowly in between for what sends no hints;
// and it tells its subscribers only when the snapshot is another one than before. A
// node without a driver, or with one that comes later, is an ordinary state.
//
// When it looks is in observer_pace.go, how it reads without waiting forever in
// observer_reading.go, what it makes of the readings in assemble.go.

package topology

import (
	"context"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"k8s.io/klog/v2"
)

// Hardware is what the kernel knows of the machine, without the GPU driver's help.
type Hardware struct {
	// Placements of all PCI functions, by address.
	Placements map[string]Placement
	// GPUFunctions are the GPUs on the bus that the accelerator driver is in
	// charge of, or would be if it was bound to them; not those passed through.
	GPUFunctions []GPUFunction
	NICs         []NIC
	NVSwitches   []NVSwitch
	StackedLinks []StackedLink
	// RDMANamespaces as in Snapshot.
	RDMANamespaces string
	// Bridges above any function, sorted by address.
	Bridges   []Bridge
	NUMANodes []NUMANode
	Problems  []Problem
}

// GPUFunction is a GPU as the bus sees it.
type GPUFunction struct {
	PCI string
	// Bound: the accelerator driver is bound to it.
	Bound bool
}

// HardwareReader reads the kernel's view; topology/host implements it. The
// error means that nothing could be read.
type HardwareReader interface {
	ReadHardware(ctx context.Context) (Hardware, error)
}

// GPUReader reads the GPU driver's view; nvml.Source implements it. It does not
// fail: what is wrong with the driver is in its state. Placements hold only PCI.
type GPUReader interface {
	ReadGPUs(ctx context.Context) (Driver, []GPU, []Problem)
}

// Watcher calls changed whenever the machine may have changed, until ctx is done.
type Watcher func(ctx context.Context, changed func()) error

// ObserverConfig wires an Observer. Hardware and GPUs are required.
type ObserverConfig struct {
	Hardware HardwareReader
	GPUs     GPUReader
	// Watchers give hints between polls. One that fails is started again.
	Watchers []Watcher
	// Interval between polls, 0 is 10 s.
	Interval time.Duration
	// Debounce is how long to wait for more hints after the latest, 0 is 100 ms:
	// a link that comes up sends a handful of messages.
	Debounce time.Duration
	// MaxWait is how long hints that do not end may put off a look, 0 is 1 s.
	MaxWait time.Duration
	// ReadTimeout is how long either reader is waited for before the snapshot is
	// made of what it said last, 0 is 5 s.
	ReadTimeout time.Duration
	// BootIDPath is "" for /proc/sys/kernel/random/boot_id.
	BootIDPath string
}

// Observer holds the current snapshot.
type Observer struct {
	cfg    ObserverConfig
	rescan chan struct{} // holds at most one pending hint

	observing sync.Mutex // one look at a time
	hardware  reading[hardwareView]
	gpus      reading[gpuView]

	mu          sync.Mutex
	current     *Snapshot
	subscribers map[chan *Snapshot]struct{}
}

// NewObserver makes an observer; Run starts it.
func NewObserver(cfg ObserverConfig) *Observer {
	cfg.Interval = orDefault(cfg.Interval, 10*time.Second)
	cfg.Debounce = orDefault(cfg.Debounce, 100*time.Millisecond)
	cfg.MaxWait = orDefault(cfg.MaxWait, time.Second)
	cfg.ReadTimeout = orDefault(cfg.ReadTimeout, 5*time.Second)
	if cfg.BootIDPath == "" {
		cfg.BootIDPath = "/proc/sys/kernel/random/boot_id"
	}
	o := &Observer{cfg: cfg, rescan: make(chan struct{}, 1), subscribers: map[chan *Snapshot]struct{}{}}
	o.hardware.late, o.gpus.late = o.Rescan, o.Rescan
	return o
}

func orDefault(d, otherwise time.Duration) time.Duration {
	if d == 0 {
		return otherwise
	}
	return d
}

// Rescan asks for a fresh snapshot soon. It does not wait for it.
func (o *Observer) Rescan() {
	select {
	case o.rescan <- struct{}{}:
	default: // one is pending already
	}
}

// Snapshot is the latest, nil before the first.
func (o *Observer) Snapshot() *Snapshot {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.current
}

// Subscribe returns a channel that holds the newest snapshot not yet received,
// the current one to begin with; older ones are skipped. The function ends the subscription.
func (o *Observer) Subscribe() (<-chan *Snapshot, func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	ch := make(chan *Snapshot, 1)
	if o.current != nil {
		ch <- o.current
	}
	o.subscribers[ch] = struct{}{}
	return ch, func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		delete(o.subscribers, ch)
	}
}

// Observe reads the machine now, publishes the snapshot if it is a new one, and
// returns it. `hostler topology` needs no more than this.
func (o *Observer) Observe(ctx context.Context) *Snapshot {
	o.observing.Lock()
	defer o.observing.Unlock()
	previous := o.Snapshot()
	next := o.read(ctx, previous)
	if ctx.Err() != nil || previous != nil && reflect.DeepEqual(previous, next) {
		return previous
	}
	klog.FromContext(ctx).Info("The machine's inventory changed", "gpus", len(next.GPUs), "nics", len(next.NICs),
		"driver", next.Driver.State, "driverVersion", next.Driver.Version, "message", next.Driver.Message)
	logProblems(ctx, previous, next)
	o.publish(next)
	return next
}

// logProblems tells of each problem once, when it appears.
func logProblems(ctx context.Context, previous, next *Snapshot) {
	for _, problem := range next.Problems {
		if previous == nil || !slices.Contains(previous.Problems, problem) {
			klog.FromContext(ctx).Info("Discovery has a problem", "subject", problem.Subject, "message", problem.Message)
		}
	}
}

// publish never waits for a subscriber: only it sends, so there is room once
// the snapshot that nobody took was removed.
func (o *Observer) publish(next *Snapshot) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.current = next
	for ch := range o.subscribers {
		select {
		case <-ch: // out of date now
		default:
		}
		ch <- next
	}
}

// read makes a snapshot of both views, read at the same time. Of a view that
// cannot be read the last one stays, with a problem that says so.
func (o *Observer) read(ctx context.Context, previous *Snapshot) *Snapshot {
	var hardware hardwareView
	var gpus gpuView
	var hardwareProblem, gpuProblem []Problem
	deadline := time.Now().Add(o.cfg.ReadTimeout)
	var reading sync.WaitGroup
	reading.Go(func() { hardware, hardwareProblem = o.readHardware(ctx, deadline) })
	gpus, gpuProblem = o.readGPUs(ctx, deadline)
	reading.Wait()
	bootID, bootProblem := o.bootID(previous)
	next := Assemble(bootID, hardware.Hardware, gpus.Driver, gpus.GPUs, previous)
	next.Problems = slices.Concat(next.Problems, gpus.Problems, hardwareProblem, gpuProblem, bootProblem)
	return next
}

// bootID is read until it is known; it cannot change while this process lives.
func (o *Observer) bootID(previous *Snapshot) (string, []Problem) {
	if previous != nil && previous.BootID != "" {
		return previous.BootID, nil
	}
	raw, err := os.ReadFile(o.cfg.BootIDPath)
	if err != nil {
		return "", []Problem{{Subject: "boot ID", Message: err.Error()}}
	}
	return strings.TrimSpace(string(raw)), nil
}
