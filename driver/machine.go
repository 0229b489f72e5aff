// machine is what the driver has been told: the last snapshot, the last
// verdicts, and the NICs and partitions that claims hold or have just given back.

package driver

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/hostler-dev/hostler/driver/publish"
	"github.com/hostler-dev/hostler/topology"
)

// homecoming is how long a NIC or partition that was given back is taken for what
// it was before, unless discovery sees earlier that its netdev is back, or that
// it is gone: discovery needs a moment to notice, and the next pod may be faster.
const homecoming = 30 * time.Second

type machine struct {
	mu       sync.Mutex
	snapshot *topology.Snapshot
	taints   []publish.Taint
	health   map[string]DeviceHealth
	// judged is when the verdicts came in.
	judged time.Time
	// taken are the NICs last seen in the ledger; returned those that left it since.
	taken    map[string]topology.NIC
	returned map[string]returnedNIC
	// takenGPUs and returnedGPUs are the same of GPUs in user space.
	takenGPUs    map[string]topology.GPU
	returnedGPUs map[string]returnedGPU
	// cut are the partitions last seen in the ledger that were made for claims;
	// removed those that left it since.
	cut     map[string]bool
	removed map[string]removedPartition
	// changed is closed and replaced when anything above changes.
	changed chan struct{}
}

type returnedNIC struct {
	nic topology.NIC
	at  time.Time
}

type removedPartition struct {
	at time.Time
	// snapshot is the last one at that time; what it says of the partition may be
	// older than the partition.
	snapshot *topology.Snapshot
}

// SetSnapshot hands over the machine as it is now.
func (d *Driver) SetSnapshot(snapshot *topology.Snapshot) {
	stale := false
	d.machine.update(func(m *machine) {
		stale = m.snapshot != nil && renewed(m.snapshot, snapshot)
		m.snapshot = snapshot
	})
	if stale {
		d.wantReconcile()
	}
}

// renewed reports whether the driver works and is another than before, came back,
// or numbers GPUs anew: the specs of prepared claims are of the old one then, and
// what could not be removed without it can be now.
func renewed(before, now *topology.Snapshot) bool {
	if now.Driver.State != topology.DriverReady {
		return false
	}
	return before.Driver.State != now.Driver.State || before.Driver.Version != now.Driver.Version || !maps.Equal(minors(before), minors(now))
}

// minors of the GPUs that answer, by name.
func minors(snapshot *topology.Snapshot) map[string]int {
	numbers := map[string]int{}
	for i := range snapshot.GPUs {
		if gpu := &snapshot.GPUs[i]; !gpu.Lost {
			numbers[gpu.Name] = gpu.Minor
		}
	}
	return numbers
}

// SetVerdicts hands over what health thinks: the taints to publish and the
// health to report. Devices that health does not list are healthy.
func (d *Driver) SetVerdicts(taints []publish.Taint, health []DeviceHealth) {
	byDevice := make(map[string]DeviceHealth, len(health))
	for _, h := range health {
		byDevice[h.Device] = h
	}
	d.machine.update(func(m *machine) { m.taints, m.health, m.judged = taints, byDevice, time.Now() })
}

func (m *machine) update(change func(*machine)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	change(m)
	close(m.changed)
	m.changed = make(chan struct{})
}

func (m *machine) watch() <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.changed
}

func (m *machine) ready() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.snapshot != nil
}

// awaitSnapshot waits for the first one: without it every device seems gone.
func (m *machine) awaitSnapshot(ctx context.Context) error {
	for {
		changed := m.watch()
		if m.ready() {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("the agent has not finished its first look at the machine, see its log: %w", context.Cause(ctx))
		}
	}
}

// now returns the last snapshot, an empty one before the first.
func (m *machine) now() *topology.Snapshot {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.snapshot == nil {
		return &topology.Snapshot{Driver: topology.Driver{State: topology.DriverMissing}}
	}
	return m.snapshot
}

// held returns the NICs to be taken for what they were when pods took them:
// those that the ledger lists, and those that came home a moment ago and that
// discovery has not seen at home yet.
func (m *machine) held(ledger map[string]topology.NIC, now time.Time) map[string]topology.NIC {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.returned == nil {
		m.returned = map[string]returnedNIC{}
	}
	for name, nic := range m.taken {
		if _, still := ledger[name]; !still {
			m.returned[name] = returnedNIC{nic: nic, at: now}
		}
	}
	m.taken = maps.Clone(ledger)
	held := make(map[string]topology.NIC, len(ledger))
	maps.Copy(held, ledger)
	for name, back := range m.returned {
		_, taken := ledger[name]
		var seen *topology.NIC
		if m.snapshot != nil {
			seen = m.snapshot.NIC(name)
		}
		atHome := seen != nil && (seen.Link != nil || back.nic.Link == nil)
		if taken || atHome || now.Sub(back.at) > homecoming {
			delete(m.returned, name)
			continue
		}
		held[name] = back.nic
	}
	return held
}

// made returns the partitions that are there because claims have them, by the
// ledger, or had them a moment ago, so that an instance which discovery still
// shows is not taken for the administrator's.
func (m *machine) made(ledger map[string]bool, now time.Time) map[string]bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.removed == nil {
		m.removed = map[string]removedPartition{}
	}
	for name := range m.cut {
		if !ledger[name] {
			m.removed[name] = removedPartition{at: now, snapshot: m.snapshot}
		}
	}
	m.cut = maps.Clone(ledger)
	made := map[string]bool{}
	maps.Copy(made, ledger)
	for name, gone := range m.removed {
		if ledger[name] || now.Sub(gone.at) > homecoming || m.snapshot != gone.snapshot && !exists(m.snapshot, name) {
			delete(m.removed, name)
			continue
		}
		made[name] = true
	}
	return made
}

func exists(snapshot *topology.Snapshot, partition string) bool {
	if snapshot == nil {
		return false
	}
	_, p := snapshot.Partition(partition)
	return p != nil && p.Instance != nil
}

// gpuGone returns why a GPU cannot have partitions any more. It is "" before the
// first look at the machine, when nothing is known of any GPU.
func (m *machine) gpuGone(name string) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.snapshot == nil {
		return ""
	}
	switch gpu := m.snapshot.GPU(name); {
	case m.snapshot.Driver.State != topology.DriverReady:
		return "" // which knows no GPUs, see driverSilent
	case gpu == nil:
		return "it was unplugged"
	case gpu.Lost:
		return "it has fallen off the bus"
	}
	return ""
}

// driverSilent returns why no GPU can be asked anything at present, "" if it can,
// and before the first look at the machine.
func (m *machine) driverSilent() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.snapshot == nil || m.snapshot.Driver.State == topology.DriverReady {
		return ""
	}
	return "the accelerator driver does not work: " + m.snapshot.Driver.Message
}
