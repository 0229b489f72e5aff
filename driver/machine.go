// machine is what the driver has been told: the last snapshot, the last
// verdicts, and the NICs that pods hold or have just given back.

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

// homecoming is how long a NIC that was given back is taken for what it was
// before, unless discovery sees its netdev earlier: discovery needs a moment to
// notice, and the next pod may be faster.
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
	// changed is closed and replaced when anything above changes.
	changed chan struct{}
}

type returnedNIC struct {
	nic topology.NIC
	at  time.Time
}

// SetSnapshot hands over the machine as it is now.
func (d *Driver) SetSnapshot(snapshot *topology.Snapshot) {
	d.machine.update(func(m *machine) { m.snapshot = snapshot })
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
