// The observer keeps the snapshot fresh. It reads the machine at start, on
// every hint that something changed, and slowly in between for what sends no hints;
// and it tells its subscribers only when the snapshot is another one than before. A
// node without a driver, or with one that comes later, is an ordinary state.

package topology

import (
	"context"
	"errors"
	"os"
	"reflect"
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
	// charge of, or that no driver is bound to; not those passed through.
	GPUFunctions []GPUFunction
	NICs         []NIC
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

// watchRetry is the pause before a watcher that failed is started again.
const watchRetry = time.Second

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
	// Debounce is how long to wait for more hints after the first, 0 is 100 ms:
	// a link that comes up sends a handful of messages.
	Debounce time.Duration
	// BootIDPath is "" for /proc/sys/kernel/random/boot_id.
	BootIDPath string
}

// Observer holds the current snapshot.
type Observer struct {
	cfg    ObserverConfig
	rescan chan struct{} // holds at most one pending hint

	mu          sync.Mutex
	current     *Snapshot
	subscribers map[chan *Snapshot]struct{}
}

// NewObserver makes an observer; Run starts it.
func NewObserver(cfg ObserverConfig) *Observer {
	if cfg.Interval == 0 {
		cfg.Interval = 10 * time.Second
	}
	if cfg.Debounce == 0 {
		cfg.Debounce = 100 * time.Millisecond
	}
	if cfg.BootIDPath == "" {
		cfg.BootIDPath = "/proc/sys/kernel/random/boot_id"
	}
	return &Observer{cfg: cfg, rescan: make(chan struct{}, 1), subscribers: map[chan *Snapshot]struct{}{}}
}

// Run observes until ctx is done. The first snapshot is there as soon as the
// machine was read once.
func (o *Observer) Run(ctx context.Context) error {
	var watchers sync.WaitGroup
	defer watchers.Wait()
	for _, watcher := range o.cfg.Watchers {
		watchers.Go(func() { o.watch(ctx, watcher) })
	}
	poll := time.NewTicker(o.cfg.Interval)
	defer poll.Stop()
	for {
		o.Observe(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-poll.C:
		case <-o.rescan:
			sleep(ctx, o.cfg.Debounce)
		}
	}
}

func (o *Observer) watch(ctx context.Context, watcher Watcher) {
	for ctx.Err() == nil {
		if err := watcher(ctx, o.Rescan); err != nil && ctx.Err() == nil {
			klog.FromContext(ctx).Error(err, "Watching the machine for changes failed; polling goes on", "retryAfter", watchRetry)
		}
		sleep(ctx, watchRetry)
	}
}

func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
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
	previous := o.Snapshot()
	next, err := o.read(ctx, previous)
	if ctx.Err() != nil {
		return previous
	}
	logger := klog.FromContext(ctx)
	if err != nil {
		logger.Error(err, "The machine could not be read; the last snapshot stays")
		if previous != nil {
			return previous
		}
	}
	if previous != nil && reflect.DeepEqual(previous, next) {
		return previous
	}
	logger.Info("The machine's inventory changed", "gpus", len(next.GPUs), "nics", len(next.NICs),
		"driver", next.Driver.State, "driverVersion", next.Driver.Version, "message", next.Driver.Message)
	o.publish(next)
	return next
}

func (o *Observer) publish(next *Snapshot) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.current = next
	for ch := range o.subscribers {
		select {
		case <-ch: // a snapshot that nobody took is out of date now
		default:
		}
		ch <- next
	}
}

// read makes a snapshot. On an error the snapshot holds what could be read.
func (o *Observer) read(ctx context.Context, previous *Snapshot) (*Snapshot, error) {
	bootID, bootErr := os.ReadFile(o.cfg.BootIDPath)
	var hardware Hardware
	var hardwareErr error
	var reading sync.WaitGroup
	reading.Go(func() { hardware, hardwareErr = o.cfg.Hardware.ReadHardware(ctx) })
	driver, gpus, problems := o.cfg.GPUs.ReadGPUs(ctx)
	reading.Wait()
	next := Assemble(strings.TrimSpace(string(bootID)), hardware, driver, gpus, previous)
	next.Problems = append(next.Problems, problems...)
	return next, errors.Join(hardwareErr, bootErr)
}
