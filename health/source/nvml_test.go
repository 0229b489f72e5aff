package source

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/hostler-dev/hostler/health"
	"github.com/hostler-dev/hostler/topology/nvml"
)

const (
	pci    = "0000:17:00.0"
	device = "gpu-0000-17-00-0"
)

type fakeSession struct {
	probe  nvml.Probe
	err    error
	events []nvml.Event
	ended  error
}

func (f *fakeSession) Probe(context.Context, string) (nvml.Probe, error) { return f.probe, f.err }

func (f *fakeSession) WatchEvents(_ context.Context, deliver func(nvml.Event)) error {
	for _, e := range f.events {
		deliver(e)
	}
	return f.ended
}

type fakeEngine struct {
	observed []health.Observation
	probed   int
	onProbe  func()
}

func (f *fakeEngine) Observe(o ...health.Observation) { f.observed = append(f.observed, o...) }
func (f *fakeEngine) ProbeAll() {
	f.probed++
	if f.onProbe != nil {
		f.onProbe()
	}
}

func TestProbeTranslates(t *testing.T) {
	one, zero := uint64(1), uint64(0)
	for _, test := range []struct {
		name    string
		session Session
		want    health.ProbeResult
	}{
		{"a healthy GPU", &fakeSession{probe: nvml.Probe{RecoveryAction: nvml.RecoveryNone, UncorrectedECCErrors: &zero}},
			health.ProbeResult{Device: device, Action: health.ActionNone}},
		{"a lost GPU", &fakeSession{probe: nvml.Probe{Lost: true, RecoveryAction: nvml.RecoveryUnknown}, err: nvml.ErrLost},
			health.ProbeResult{Device: device, Lost: true, Action: health.ActionUnknown}},
		{"a GPU that NVML stopped listing", &fakeSession{err: fmt.Errorf("probe: %w", nvml.ErrUnknownGPU)},
			health.ProbeResult{Device: device, Lost: true, Action: health.ActionUnknown}},
		{"a hung GPU", &fakeSession{probe: nvml.Probe{Hung: true}, err: nvml.ErrHung},
			health.ProbeResult{Device: device, Hung: true, Action: health.ActionUnknown}},
		{"another error keeps what was learnt", &fakeSession{probe: nvml.Probe{RecoveryAction: nvml.RecoveryReset}, err: errors.New("NVML says no")},
			health.ProbeResult{Device: device, Error: "NVML says no", Action: health.ActionReset}},
		{"no sign of life", &fakeSession{probe: nvml.Probe{Silent: true}, err: errors.New("NVML says no")},
			health.ProbeResult{Device: device, Silent: true, Error: "NVML says no", Action: health.ActionUnknown}},
		{"memory faults", &fakeSession{probe: nvml.Probe{RecoveryAction: nvml.RecoveryNone, UncorrectedECCErrors: &one, RemappedRows: &nvml.RemappedRows{Pending: true, Failure: true}}},
			health.ProbeResult{Device: device, Action: health.ActionNone, UncorrectedECC: true, RemapPending: true, RemapFailed: true}},
		{"the driver was let go of for a moment", &fakeSession{probe: nvml.Probe{Silent: true}, err: fmt.Errorf("probe: %w", nvml.ErrPaused)},
			health.ProbeResult{Device: device, Unasked: true}},
		{"no driver", nil, health.ProbeResult{Device: device, Action: health.ActionUnknown, Silent: true, Error: "the accelerator driver is not available"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			source := NewNVML(NVMLConfig{Session: func() Session { return test.session }})
			got := source.Probe(t.Context(), health.KnownGPU{Device: device, PCI: pci})
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("probe (-want +got):\n%s", diff)
			}
		})
	}
}

func TestEventsTranslate(t *testing.T) {
	instance := uint32(3)
	for _, test := range []struct {
		name   string
		event  nvml.Event
		want   []health.Observation
		probed int
	}{
		{"an XID", nvml.Event{PCI: pci, Kind: nvml.EventXID, XID: 79}, []health.Observation{health.XIDEvent{Device: device, Code: 79}}, 0},
		{"an XID of a MIG instance counts against its GPU", nvml.Event{PCI: pci, Kind: nvml.EventXID, XID: 48, GPUInstance: &instance},
			[]health.Observation{health.XIDEvent{Device: device, Code: 48}}, 0},
		{"a double-bit error", nvml.Event{PCI: pci, Kind: nvml.EventECC}, []health.Observation{health.MemoryEvent{Device: device}}, 0},
		{"a hint is probed for", nvml.Event{PCI: pci, Kind: nvml.EventRecoveryAction}, nil, 1},
		{"a loss that names no GPU accuses none", nvml.Event{Kind: nvml.EventLost}, nil, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			engine := &fakeEngine{}
			var counted []uint64
			source := NewNVML(NVMLConfig{OnXID: func(_ string, code uint64) { counted = append(counted, code) }})
			source.deliver(t.Context(), engine, test.event)
			if isXID := test.event.Kind == nvml.EventXID; (len(counted) == 1) != isXID {
				t.Errorf("counted XIDs %v", counted)
			}
			if diff := cmp.Diff(test.want, engine.observed); diff != "" {
				t.Errorf("observed (-want +got):\n%s", diff)
			}
			if engine.probed != test.probed {
				t.Errorf("ProbeAll was called %d times, want %d", engine.probed, test.probed)
			}
		})
	}
}

// A watch that ends, with or without an error, begins again, and every GPU is
// probed for what was missed.
func TestRunWatchesAgain(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	session := &fakeSession{ended: nvml.ErrDriverGone, events: []nvml.Event{{PCI: pci, Kind: nvml.EventXID, XID: 13}}}
	engine := &fakeEngine{}
	engine.onProbe = func() {
		if engine.probed == 3 {
			cancel()
		}
	}
	source := NewNVML(NVMLConfig{Session: func() Session { return session }, RetryInterval: time.Millisecond})
	if err := source.Run(ctx, engine); err != nil || len(engine.observed) != 3 {
		t.Errorf("Run: %v, observed %d events in 3 watches, want 3", err, len(engine.observed))
	}
}
