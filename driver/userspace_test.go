package driver

import (
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/hostler-dev/hostler/topology"
)

// A GPU counts as in user space from the moment when its claim joins the journal
// until discovery has seen it at its driver again.
func TestWhichGPUsAreInUserSpace(t *testing.T) {
	const name = "gpu-0000-17-00-0"
	start := time.Now()
	ledger := map[string]topology.GPU{name: {Name: name, UUID: "as it was"}}
	with := func() *topology.Snapshot {
		return &topology.Snapshot{GPUs: []topology.GPU{{Name: name, UUID: "as it is"}}}
	}
	without := func() *topology.Snapshot { return &topology.Snapshot{} }
	type moment struct {
		what   string
		see    *topology.Snapshot
		ledger map[string]topology.GPU
		after  time.Duration
		held   bool
	}
	for story, moments := range map[string][]moment{
		"it goes and comes back": {
			{"before", with(), nil, 0, false},
			{"its claim is in the journal", nil, ledger, 0, true},
			{"its driver does not list it", without(), ledger, 0, true},
			{"its claim has left the journal", nil, nil, time.Second, true},
			{"its driver does not list it yet", without(), nil, 2 * time.Second, true},
			{"its driver lists it", with(), nil, 3 * time.Second, false},
		},
		"it comes back before anybody saw it gone": {
			{"its claim is in the journal", with(), ledger, 0, true},
			{"its claim has left the journal; the snapshot is from before", nil, nil, time.Second, true},
			{"a look from meanwhile", without(), nil, 2 * time.Second, true},
			{"its driver lists it", with(), nil, 3 * time.Second, false},
		},
		"it does not come back": {
			{"its claim is in the journal", without(), ledger, 0, true},
			{"its claim has left the journal", nil, nil, time.Second, true},
			{"long after", nil, nil, time.Second + homecoming + 1, false},
		},
		"the next claim takes it at once": {
			{"its claim is in the journal", without(), ledger, 0, true},
			{"its claim has left the journal", nil, nil, time.Second, true},
			{"the next claim is in the journal", with(), ledger, 2 * time.Second, true},
		},
	} {
		t.Run(story, func(t *testing.T) {
			var m machine
			for _, now := range moments {
				if now.see != nil {
					m.snapshot = now.see
				}
				held := m.heldGPUs(now.ledger, start.Add(now.after))
				if (held[name].UUID == "as it was") != now.held || len(held) > 1 {
					t.Errorf("%s: in user space are %v, want the GPU: %t", now.what, held, now.held)
				}
			}
		})
	}
}

func TestTheMachineWithItsGPUsInUserSpace(t *testing.T) {
	gpu := func(pci, uuid string) topology.GPU {
		return topology.GPU{Name: topology.GPUName(pci), UUID: uuid, Placement: topology.Placement{PCI: pci}}
	}
	seen := &topology.Snapshot{GPUs: []topology.GPU{gpu("0000:17:00.0", "seen"), gpu("0000:37:00.0", "seen")}}
	held := map[string]topology.GPU{}
	for _, g := range []topology.GPU{gpu("0000:17:00.0", "held"), gpu("0000:27:00.0", "held")} {
		held[g.Name] = g
	}
	merged, missing := withGPUs(seen, held)
	var got []string
	for _, g := range merged.GPUs {
		got = append(got, g.Name+" "+g.UUID)
	}
	if diff := cmp.Diff([]string{"gpu-0000-17-00-0 seen", "gpu-0000-27-00-0 held", "gpu-0000-37-00-0 seen"}, got); diff != "" {
		t.Errorf("the machine's GPUs are others: %s", diff)
	}
	if names := slices.Sorted(maps.Keys(missing)); len(names) != 1 || names[0] != "gpu-0000-27-00-0" || len(seen.GPUs) != 2 {
		t.Errorf("missing are %v; the snapshot itself has %d GPUs", names, len(seen.GPUs))
	}
}
