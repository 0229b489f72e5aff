package health

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/hostler-dev/hostler/topology"
)

func TestGPUsInUserSpaceAreNotJudged(t *testing.T) {
	away := func(devices []string, listed ...string) Inventory {
		var s topology.Snapshot
		s.BootID, s.Driver.State = "boot1", topology.DriverReady
		for _, device := range listed {
			s.GPUs = append(s.GPUs, topology.GPU{Name: device})
		}
		return InventoryOf(&s, devices)
	}
	dead := func(o Inventory) Inventory {
		o.Driver.State, o.Driver.Message = topology.DriverFailed, "no devices"
		return o
	}
	lost := func(o Inventory) Inventory {
		o.GPUs = append(o.GPUs, GPUPresence{Device: gpuA, Lost: true})
		return o
	}
	both := at{0, inventory("boot1", gpuA, gpuB)}
	for name, test := range map[string]struct {
		script []at
		want   []string
	}{
		"one that its driver does not list":             {[]at{both, {1, away([]string{gpuA}, gpuB)}, {60, Tick{}}}, nil},
		"one that vanishes without having gone there":   {[]at{both, {1, away(nil, gpuB)}}, []string{gpuA + " gpu-lost Fatal vanished"}},
		"one that comes back":                           {[]at{both, {1, away([]string{gpuA}, gpuB)}, {2, away(nil, gpuA, gpuB)}}, nil},
		"one that is lost after it came back":           {[]at{both, {1, away([]string{gpuA}, gpuB)}, {2, away(nil, gpuA, gpuB)}, {3, lost(away(nil, gpuB))}}, []string{gpuA + " gpu-lost Fatal lost"}},
		"all of them, with a driver that has none left": {[]at{both, {1, dead(away([]string{gpuA, gpuB}))}, {2, dead(away([]string{gpuA, gpuB})).Driver}}, nil},
		"one, with a driver that dies under the other":  {[]at{both, {1, dead(away([]string{gpuA}, gpuB))}}, []string{" driver Fatal failed"}},
		"one that was not asked":                        {[]at{both, {1, ProbeResult{Device: gpuA, Unasked: true}}}, nil},
		"a fault of before stays":                       {[]at{both, {1, XIDEvent{gpuA, 48}}, {2, away([]string{gpuA}, gpuB)}, {3, ProbeResult{Device: gpuA, Unasked: true}}, {60, Tick{}}}, []string{gpuA + " xid NeedsReset 48"}},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, brief(replay(t, test.script...).Verdicts()), cmp.Transformer("none", func(l []string) []string { return append([]string{}, l...) })); diff != "" {
				t.Errorf("verdicts (-want +got):\n%s", diff)
			}
		})
	}
}

// A probe that was under way when the GPU left says nothing about it, and none is
// begun while it is away.
func TestEngineAsksNoGPUInUserSpace(t *testing.T) {
	b := newBench(t, t.TempDir()+"/health.json")
	b.cfg.InUserSpace = func() []string { return []string{gpuA} }
	b.probeOnce(t.Context(), KnownGPU{Device: gpuA})
	if len(b.prober.asked) != 0 {
		t.Error("a GPU in user space is asked")
	}
	asked := false
	b.cfg.InUserSpace = func() []string {
		if !asked {
			asked = true
			return nil
		}
		return []string{gpuA}
	}
	b.prober.results[gpuA] = ProbeResult{Device: gpuA, Lost: true}
	b.probeOnce(t.Context(), KnownGPU{Device: gpuA})
	if verdicts := b.Verdicts(); len(verdicts) != 0 || len(b.prober.asked) != 1 {
		t.Errorf("judged by a probe from before: %v", brief(verdicts))
	}
}
