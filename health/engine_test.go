package health

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	testingclock "k8s.io/utils/clock/testing"

	"github.com/hostler-dev/hostler/topology"
)

// fakeProber answers what a test set, and holds back the answers of hung GPUs.
type fakeProber struct {
	mu      sync.Mutex
	results map[string]ProbeResult
	hang    map[string]chan struct{}
	asked   chan string
}

func newFakeProber() *fakeProber {
	return &fakeProber{results: map[string]ProbeResult{}, hang: map[string]chan struct{}{}, asked: make(chan string, 1000)}
}

func (f *fakeProber) Probe(ctx context.Context, gpu KnownGPU) ProbeResult {
	f.mu.Lock()
	hang, result := f.hang[gpu.Device], f.results[gpu.Device]
	f.mu.Unlock()
	f.asked <- gpu.Device
	if hang != nil {
		select {
		case <-hang:
		case <-ctx.Done():
		}
	}
	if result.Action == "" {
		result.Action = ActionNone
	}
	return result
}

type bench struct {
	*Engine
	prober *fakeProber
	clock  *testingclock.FakeClock
	path   string
	told   chan []Verdict
	stop   func()
}

func newBench(t *testing.T, path string) *bench {
	t.Helper()
	b := &bench{prober: newFakeProber(), clock: testingclock.NewFakeClock(start), path: path, told: make(chan []Verdict, 100)}
	engine, err := NewEngine(t.Context(), EngineConfig{
		Path: path, Rules: rules, Prober: b.prober, Clock: b.clock, PollInterval: time.Second, ProbeTimeout: 3 * time.Second,
		OnVerdicts: func(v []Verdict) { b.told <- v },
	})
	if err != nil {
		t.Fatal(err)
	}
	b.Engine = engine
	return b
}

func (b *bench) run(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx) }()
	b.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run ended with %v", err)
		}
	})
	t.Cleanup(b.stop)
}

// next waits for the next telling and gives it in brief.
func (b *bench) next(t *testing.T) []string {
	t.Helper()
	select {
	case v := <-b.told:
		return brief(v)
	case <-time.After(20 * time.Second):
		t.Fatal("no verdicts were told within 20 s")
		return nil
	}
}

// pass lets simulated seconds go by until the engine tells something.
func (b *bench) pass(t *testing.T) []string {
	t.Helper()
	for range 4000 {
		select {
		case v := <-b.told:
			return brief(v)
		case <-time.After(5 * time.Millisecond):
			b.clock.Step(500 * time.Millisecond)
		}
	}
	t.Fatal("no verdicts were told")
	return nil
}

func snapshot(gpus ...string) *topology.Snapshot {
	s := &topology.Snapshot{BootID: "boot1", Driver: topology.Driver{State: topology.DriverReady}}
	for _, g := range gpus {
		s.GPUs = append(s.GPUs, topology.GPU{Name: g, Placement: topology.Placement{PCI: "pci of " + g}})
	}
	return s
}

func wantVerdicts(t *testing.T, what string, got []string, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

func TestEngineTellsFaultAfterWritingItAndForgetsItOnlyOnRecovery(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state", "health.json")
	b := newBench(t, path)
	b.SetSnapshot(snapshot(gpuA, gpuB))
	b.run(t)
	wantVerdicts(t, "at start", b.next(t))

	b.Observe(XIDEvent{gpuA, 79})
	raw, err := os.ReadFile(path)
	if err != nil || !strings.Contains(string(raw), `"reason": "79"`) {
		t.Errorf("when Observe returned, the file had not the fault: %v\n%s", err, raw)
	}
	wantVerdicts(t, "after XID 79", b.next(t), gpuA+" xid Fatal 79")
	b.stop()

	again := newBench(t, path)
	wantVerdicts(t, "restored, before Run", brief(again.Verdicts()), gpuA+" xid Fatal 79")
	again.SetSnapshot(snapshot(gpuA, gpuB))
	again.run(t)
	wantVerdicts(t, "first told after a restart", again.next(t), gpuA+" xid Fatal 79")
	wantVerdicts(t, "after the hold-down", again.pass(t))
}

func TestEngineProbesNothingBeforeTheFirstSnapshot(t *testing.T) {
	path := filepath.Join(t.TempDir(), "health.json")
	b := newBench(t, path)
	b.SetSnapshot(snapshot(gpuA))
	b.run(t)
	b.next(t)
	b.stop()

	again := newBench(t, path) // knows the GPU from its file, and has no driver yet
	again.run(t)
	again.next(t)
	for range 20 {
		again.clock.Step(time.Second)
		again.tick()
	}
	if n := len(again.prober.asked); n > 0 {
		t.Errorf("%d probes were made before the first snapshot", n)
	}
	again.SetSnapshot(snapshot(gpuA))
	if device := <-again.prober.asked; device != gpuA {
		t.Errorf("%s was probed after it", device)
	}
}

func TestEngineEventHasItsGPUProbedAtOnce(t *testing.T) {
	b := newBench(t, filepath.Join(t.TempDir(), "health.json"))
	b.SetSnapshot(snapshot(gpuA))
	b.run(t)
	b.next(t)
	<-b.prober.asked // the first look; the clock stands still from here on
	b.prober.mu.Lock()
	b.prober.results[gpuA] = ProbeResult{Action: ActionReset}
	b.prober.mu.Unlock()
	b.Observe(XIDEvent{gpuA, 109})
	wantVerdicts(t, "the event", b.next(t), gpuA+" xid Info 109")
	wantVerdicts(t, "what the driver says about it", b.next(t), gpuA+" recovery-action NeedsReset Reset", gpuA+" xid Info 109")
}

func TestEngineHungGPUDelaysNobody(t *testing.T) {
	b := newBench(t, filepath.Join(t.TempDir(), "health.json"))
	release := make(chan struct{})
	b.prober.hang[gpuA] = release
	b.SetSnapshot(snapshot(gpuA, gpuB))
	b.run(t)
	b.next(t)
	wantVerdicts(t, "with A hung", b.pass(t), gpuA+" hung NeedsReset no-answer")

	b.prober.mu.Lock()
	b.prober.results[gpuB] = ProbeResult{Lost: true}
	b.prober.mu.Unlock()
	wantVerdicts(t, "B is judged while A hangs", b.pass(t), " all-gpus Fatal none-usable", gpuA+" hung NeedsReset no-answer", gpuB+" gpu-lost Fatal lost")

	calls := 0
	for len(b.prober.asked) > 0 {
		if <-b.prober.asked == gpuA {
			calls++
		}
	}
	if calls != 1 {
		t.Errorf("%d calls were made to the hung GPU, want the one that hangs", calls)
	}
	b.prober.mu.Lock()
	delete(b.prober.hang, gpuA)
	b.prober.mu.Unlock()
	close(release)
	wantVerdicts(t, "A answers again, for the hold-down", b.pass(t), gpuB+" gpu-lost Fatal lost")
}

func TestEngineStormIsToldOnceAndCounted(t *testing.T) {
	b := newBench(t, filepath.Join(t.TempDir(), "health.json"))
	b.SetSnapshot(snapshot(gpuA))
	b.run(t)
	b.next(t)
	for range 1000 {
		b.Observe(XIDEvent{gpuA, 45})
	}
	wantVerdicts(t, "the storm", b.next(t), gpuA+" xid Info 45")
	if extra := len(b.told); extra > 1 {
		t.Errorf("a storm of 1000 XIDs was told %d more times within an instant", extra)
	}
	if count := b.Verdicts()[0].Count; count != 1000 {
		t.Errorf("1000 XIDs count %d", count)
	}
}

func TestEngineDamagedStateIsSetAside(t *testing.T) {
	for name, content := range map[string]string{
		"truncated":             `{"version":1,"state":{"faults":[{"dev`,
		"of another version":    `{"version":99,"state":{}}`,
		"an unknown severity":   `{"version":1,"state":{"faults":[{"family":"xid","severity":"Awful"}]}}`,
		"a fault without class": `{"version":1,"state":{"faults":[{"device":"gpu"}]}}`,
		"empty":                 ``,
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "health.json")
			if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			state, setAside, err := load(path)
			if err != nil || len(state.Faults) != 0 || !strings.Contains(setAside, path+".damaged") {
				t.Errorf("load: %v, %q, %v; want an empty state and a message that names the moved file", state, setAside, err)
			}
			if kept, err := os.ReadFile(path + ".damaged"); err != nil || string(kept) != content {
				t.Errorf("the damaged file was not kept: %q, %v", kept, err)
			}
			newBench(t, path)
		})
	}
}

func TestEngineTellsFaultsEvenIfTheDiskRefuses(t *testing.T) {
	directory := t.TempDir()
	b := newBench(t, filepath.Join(directory, "health.json"))
	b.SetSnapshot(snapshot(gpuA))
	b.run(t)
	b.next(t)
	// In one step: the engine may be writing into it at this moment.
	if err := os.Rename(directory, directory+".away"); err != nil {
		t.Fatal(err)
	}
	b.Observe(XIDEvent{gpuA, 79})
	wantVerdicts(t, "with no disk", b.next(t), gpuA+" xid Fatal 79")
	if err := os.MkdirAll(directory, 0o750); err != nil {
		t.Fatal(err)
	}
	b.tick()
	if raw, err := os.ReadFile(b.path); err != nil || !strings.Contains(string(raw), `"79"`) {
		t.Errorf("the next tick did not save what could not be saved before: %v", err)
	}
}
