// GPUs in user space. Their driver does not list them, and so the snapshot does
// not, but to the scheduler they are allocated devices like others: what is published
// of them stays as it was, and nobody takes them for lost.

package driver

import (
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/hostler-dev/hostler/topology"
)

// returnedGPU is one that left the ledger.
type returnedGPU struct {
	gpu topology.GPU
	at  time.Time
	// snapshot is the last one at that time, which may be older than the GPU's departure.
	snapshot *topology.Snapshot
}

// heldGPUs returns the GPUs to be taken for what they were when claims took them
// to user space: those that the ledger lists, and those that came back a moment ago and that
// discovery has not seen at their driver since.
func (m *machine) heldGPUs(ledger map[string]topology.GPU, now time.Time) map[string]topology.GPU {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.returnedGPUs == nil {
		m.returnedGPUs = map[string]returnedGPU{}
	}
	for name, gpu := range m.takenGPUs {
		if _, still := ledger[name]; !still {
			m.returnedGPUs[name] = returnedGPU{gpu: gpu, at: now, snapshot: m.snapshot}
		}
	}
	m.takenGPUs = maps.Clone(ledger)
	held := make(map[string]topology.GPU, len(ledger))
	maps.Copy(held, ledger)
	for name, back := range m.returnedGPUs {
		_, taken := ledger[name]
		seen := m.snapshot != nil && m.snapshot != back.snapshot && m.snapshot.GPU(name) != nil
		if taken || seen || now.Sub(back.at) > homecoming {
			delete(m.returnedGPUs, name)
			continue
		}
		held[name] = back.gpu
	}
	return held
}

// inUserSpace are those now.
func (d *Driver) inUserSpace() map[string]topology.GPU {
	return d.machine.heldGPUs(d.ledger.HeldGPUs(), time.Now())
}

// InUserSpace lists the GPUs, by name, that are in user space or on their way back
// from there: what their driver says of them then means nothing.
func (d *Driver) InUserSpace() []string { return slices.Sorted(maps.Keys(d.inUserSpace())) }

// withGPUs is the snapshot with the GPUs in user space among its own, and the
// names of those that it did not have.
func withGPUs(snapshot *topology.Snapshot, held map[string]topology.GPU) (*topology.Snapshot, map[string]bool) {
	missing := map[string]bool{}
	merged := *snapshot
	merged.GPUs = slices.Clone(snapshot.GPUs)
	for name, gpu := range held {
		if snapshot.GPU(name) == nil {
			missing[name] = true
			merged.GPUs = append(merged.GPUs, gpu)
		}
	}
	slices.SortFunc(merged.GPUs, func(a, b topology.GPU) int { return strings.Compare(a.Placement.PCI, b.Placement.PCI) })
	return &merged, missing
}
