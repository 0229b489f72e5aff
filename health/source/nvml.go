// Package source observes devices for the health engine. It translates what the
// driver says into observations and judges nothing.
package source

import (
	"context"
	"errors"
	"time"

	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"github.com/hostler-dev/hostler/health"
	"github.com/hostler-dev/hostler/topology"
	"github.com/hostler-dev/hostler/topology/nvml"
)

// Session is the part of an NVML session that health needs.
type Session interface {
	Probe(ctx context.Context, pci string) (nvml.Probe, error)
	WatchEvents(ctx context.Context, deliver func(nvml.Event)) error
}

// Engine is where observations go.
type Engine interface {
	Observe(...health.Observation)
	ProbeAll()
}

// NVMLConfig is what an NVML source needs.
type NVMLConfig struct {
	// Session returns the open session, nil while the driver is not there. It is
	// asked again before each use, since a driver may be replaced under the agent.
	Session func() Session
	// OnXID, if set, gets every XID event, for counting.
	OnXID func(device string, code uint64)
	// RetryInterval between attempts to watch events. Default: 1s.
	RetryInterval time.Duration
	// Clock defaults to the real one.
	Clock clock.Clock
}

// NVML probes GPUs and watches their events.
type NVML struct{ cfg NVMLConfig }

// NewNVML makes a source.
func NewNVML(cfg NVMLConfig) *NVML {
	if cfg.RetryInterval <= 0 {
		cfg.RetryInterval = time.Second
	}
	if cfg.Clock == nil {
		cfg.Clock = clock.RealClock{}
	}
	return &NVML{cfg: cfg}
}

// Probe implements health.Prober.
func (n *NVML) Probe(ctx context.Context, gpu health.KnownGPU) health.ProbeResult {
	session := n.cfg.Session()
	if session == nil {
		return health.ProbeResult{Device: gpu.Device, Action: health.ActionUnknown, Silent: true, Error: "the accelerator driver is not available"}
	}
	probe, err := session.Probe(ctx, gpu.PCI)
	return resultOf(gpu.Device, probe, err)
}

func resultOf(device string, probe nvml.Probe, err error) health.ProbeResult {
	if errors.Is(err, nvml.ErrPaused) {
		return health.ProbeResult{Device: device, Unasked: true}
	}
	result := health.ProbeResult{
		Device: device, Lost: probe.Lost || errors.Is(err, nvml.ErrUnknownGPU), Hung: probe.Hung,
		Action:         health.RecoveryAction(probe.RecoveryAction),
		UncorrectedECC: probe.UncorrectedECCErrors != nil && *probe.UncorrectedECCErrors > 0,
	}
	if result.Action == "" {
		result.Action = health.ActionUnknown
	}
	if rows := probe.RemappedRows; rows != nil {
		result.RemapPending, result.RemapFailed = rows.Pending, rows.Failure
	}
	if err != nil && !result.Lost && !result.Hung {
		result.Error, result.Silent = err.Error(), probe.Silent
	}
	return result
}

// Run feeds the driver's events to the engine until ctx ends. A watch that ends
// is begun again; what may have been missed meanwhile is probed for.
func (n *NVML) Run(ctx context.Context, engine Engine) error {
	logger := klog.FromContext(ctx).WithName("health-events")
	var lastError string
	for ctx.Err() == nil {
		session := n.cfg.Session()
		if session != nil {
			err := session.WatchEvents(ctx, func(e nvml.Event) { n.deliver(ctx, engine, e) })
			// A node without a driver is the observer's to tell.
			if err != nil && !errors.Is(err, topology.ErrDriverMissing) && err.Error() != lastError {
				lastError = err.Error()
				logger.Error(err, "Watching GPU events failed; faults are found by probing until it works again")
			}
			engine.ProbeAll()
		}
		select {
		case <-ctx.Done():
		case <-n.cfg.Clock.After(n.cfg.RetryInterval):
		}
	}
	return nil
}

// deliver translates one event. What an event only hints at, a probe finds out;
// an event that names no GPU has every GPU probed and none accused.
func (n *NVML) deliver(ctx context.Context, engine Engine, e nvml.Event) {
	klog.FromContext(ctx).V(4).Info("GPU event", "kind", e.Kind, "pci", e.PCI, "xid", e.XID)
	if e.PCI == "" {
		engine.ProbeAll()
		return
	}
	device := topology.GPUName(e.PCI)
	switch e.Kind {
	case nvml.EventXID:
		if n.cfg.OnXID != nil {
			n.cfg.OnXID(device, e.XID)
		}
		engine.Observe(health.XIDEvent{Device: device, Code: e.XID})
	case nvml.EventECC, nvml.EventPoison:
		engine.Observe(health.MemoryEvent{Device: device})
	default:
		engine.ProbeAll()
	}
}
