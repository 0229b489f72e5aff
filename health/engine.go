// The Engine is Step with a memory, a disk and a clock. Every observation
// passes one lock, is folded, written to disk and only then told, so that what
// was told is never forgotten. Observations that change nothing that others act
// on (the thousandth XID 45 of a storm) wait for the next tick.

package health

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"github.com/hostler-dev/hostler/topology"
)

// EngineConfig is what an Engine needs.
type EngineConfig struct {
	// Path of the state file, <paths.state>/health.json. Its directory is created.
	Path  string
	Rules Rules
	// Prober asks a GPU how it is. Required.
	Prober Prober
	// PollInterval between probes of a GPU. Default: 5s.
	PollInterval time.Duration
	// ProbeTimeout after which a probe that has not returned counts as hung.
	// It should exceed the driver session's own deadline. Default: 15s.
	ProbeTimeout time.Duration
	// InUserSpace, if set, lists the GPUs that pods have in user space now, or had until
	// a moment ago: they are not the driver's, and what it says of them is not heard.
	InUserSpace func() []string
	// OnVerdicts gets all standing verdicts, first when Run begins (those that
	// were restored) and then after each change, in order and already on disk.
	// It is called under the engine's lock: it must return at once and must not
	// call back.
	OnVerdicts func([]Verdict)
	// OnReaction, if set, gets each change, under the same conditions.
	OnReaction func(Reaction)
	// Clock defaults to the real one.
	Clock clock.WithTicker
}

// Engine owns the judgement. Its methods may be called from any goroutine.
type Engine struct {
	cfg EngineConfig

	mu     sync.Mutex
	logger klog.Logger
	state  State
	// driver and ports as the newest snapshot has them.
	driver DriverReport
	ports  Ports
	told   []Verdict
	// running: Run has told what was restored, which always comes first.
	running bool
	// unsaved: the state in memory is ahead of the file.
	unsaved bool
	probes  map[string]*probeLoop
	// seen: a snapshot has come. Before, the driver may just not be open yet.
	seen bool
	// newGPU wakes Run when a GPU was seen for the first time.
	newGPU chan struct{}
}

// NewEngine restores the judgement from disk. It tells nobody yet; Run does.
func NewEngine(ctx context.Context, cfg EngineConfig) (*Engine, error) {
	if cfg.PollInterval <= 0 {
		cfg.PollInterval = 5 * time.Second
	}
	if cfg.ProbeTimeout <= 0 {
		cfg.ProbeTimeout = 15 * time.Second
	}
	if cfg.Rules.LinkDownDelay <= 0 {
		cfg.Rules.LinkDownDelay = 30 * time.Second
	}
	if cfg.Clock == nil {
		cfg.Clock = clock.RealClock{}
	}
	if cfg.InUserSpace == nil {
		cfg.InUserSpace = func() []string { return nil }
	}
	if err := os.MkdirAll(filepath.Dir(cfg.Path), 0o750); err != nil {
		return nil, fmt.Errorf("making the directory of the health state: %w", err)
	}
	state, setAside, err := load(cfg.Path)
	if err != nil {
		return nil, err
	}
	logger := klog.FromContext(ctx).WithName("health")
	if setAside != "" {
		logger.Error(nil, setAside)
	}
	return &Engine{
		cfg: cfg, logger: logger, state: state, told: state.Verdicts(),
		probes: map[string]*probeLoop{}, newGPU: make(chan struct{}, 1),
	}, nil
}

// Verdicts that stand, sorted; the node's come first.
func (e *Engine) Verdicts() []Verdict {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.state.Verdicts()
}

// Tell tells the standing verdicts again, in order with all other tellings, to
// a listener who combines them with something that has changed.
func (e *Engine) Tell() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.told = e.state.Verdicts()
	e.cfg.OnVerdicts(slices.Clone(e.told))
}

// SetSnapshot hands over a new snapshot.
func (e *Engine) SetSnapshot(s *topology.Snapshot) {
	inventory, ports := InventoryOf(s, e.cfg.InUserSpace()), PortsOf(s)
	e.mu.Lock()
	e.driver, e.ports, e.seen = inventory.Driver, ports, true
	e.mu.Unlock()
	e.Observe(inventory, ports, Tick{})
	select {
	case e.newGPU <- struct{}{}:
	default:
	}
}

// Observe folds observations, in order, and returns when whatever follows from
// them is on disk and told. An event also has its GPU probed at once: the
// driver's own recovery action decides what the event means.
func (e *Engine) Observe(observations ...Observation) {
	e.mu.Lock()
	defer e.mu.Unlock()
	var changes []Reaction
	for _, o := range observations {
		next, reactions := e.cfg.Rules.Step(e.state, o, e.cfg.Clock.Now())
		e.unsaved = e.unsaved || !next.sameJudgement(e.state)
		e.state = next
		changes = append(changes, reactions...)
		switch o := o.(type) {
		case XIDEvent:
			e.probeSoon(o.Device)
		case MemoryEvent:
			e.probeSoon(o.Device)
		}
	}
	if slices.ContainsFunc(changes, func(r Reaction) bool { return r.Change != Repeated }) {
		e.settle()
	}
	for _, change := range changes {
		e.record(change)
	}
}

// settle saves what is unsaved and tells what is untold. A disk that does not
// take the state must not hide a fault: it is told all the same, and saving is
// tried again at the next tick.
func (e *Engine) settle() {
	if e.unsaved {
		if err := save(e.cfg.Path, e.state); err != nil {
			e.logger.Error(err, "The health state was not saved; a restart of the agent would forget the newest faults. Check the disk", "path", e.cfg.Path)
		} else {
			e.unsaved = false
		}
	}
	if verdicts := e.state.Verdicts(); e.running && !slices.Equal(verdicts, e.told) {
		e.told = verdicts
		e.cfg.OnVerdicts(slices.Clone(verdicts))
	}
}

// record logs a change and passes it on.
func (e *Engine) record(change Reaction) {
	v := change.Verdict
	logger := e.logger.WithValues("device", v.Device, "family", v.Family, "severity", v.Severity.String(), "reason", v.Reason, "count", v.Count)
	switch change.Change {
	case Repeated:
		logger.V(4).Info("Fault repeated")
	case Cleared:
		logger.Info("Fault cleared", "since", v.Since)
	default:
		logger.Info("Fault "+string(change.Change), "message", v.Message)
	}
	if e.cfg.OnReaction != nil {
		e.cfg.OnReaction(change)
	}
}

// Run tells the restored verdicts, then, from the first snapshot on, probes
// every known GPU until ctx ends.
func (e *Engine) Run(ctx context.Context) error {
	e.mu.Lock()
	e.cfg.OnVerdicts(slices.Clone(e.told))
	e.running = true
	e.settle()
	e.mu.Unlock()

	var loops sync.WaitGroup
	defer loops.Wait()
	ticker := e.cfg.Clock.NewTicker(e.cfg.PollInterval)
	defer ticker.Stop()
	for {
		e.startProbes(ctx, &loops)
		select {
		case <-ctx.Done():
			e.mu.Lock()
			e.settle()
			e.mu.Unlock()
			return nil
		case <-e.newGPU:
		case <-ticker.C():
			e.tick()
		}
	}
}

// tick holds driver and ports to be as they were seen last, which lets a port
// be down, or a driver be back, for long enough; lets time pass; and settles
// what was not urgent.
func (e *Engine) tick() {
	e.mu.Lock()
	driver, ports := e.driver, e.ports
	e.mu.Unlock()
	e.Observe(driver, ports, Tick{})
	e.mu.Lock()
	e.settle()
	e.mu.Unlock()
}
