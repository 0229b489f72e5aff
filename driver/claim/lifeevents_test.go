package claim

// What happens to a node besides calls of the kubelet.

import (
	"errors"
	"os"
	"path/filepath"
	"slices"

	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/types"
	"pgregory.net/rapid"
)

func (l *lives) actions() map[string]func(*rapid.T) {
	return map[string]func(*rapid.T){
		"allocate":               l.allocate,
		"prepare":                l.prepare,
		"unprepare":              l.unprepare,
		"reconcile":              l.reconcile,
		"restart":                func(*rapid.T) { l.restart(0) },
		"doom":                   func(t *rapid.T) { l.restart(rapid.IntRange(1, 40).Draw(t, "moment")) },
		"reboot":                 l.rebootNode,
		"wipe CDI":               l.wipeSpecs,
		"API server":             func(*rapid.T) { l.apiAway = !l.apiAway },
		"delete claim":           func(t *rapid.T) { l.draw(t).object = nil },
		"force-delete pod":       l.deletePod,
		"another pod":            l.addPod,
		"sandbox":                l.toggleSandbox,
		"driver":                 l.toggleDriver,
		"netdevs do not come":    l.toggleHappiness,
		"processes in partition": l.toggleProcesses,
		"damaged journal":        l.damage,
		"":                       l.check,
	}
}

func (l *lives) rebootNode(*rapid.T) {
	l.reboot()
	for _, m := range l.all() {
		m.busy, m.bare, m.paper = false, false, true
	}
	l.restart(0)
}

func (l *lives) wipeSpecs(*rapid.T) {
	l.wipe()
	for _, m := range l.all() {
		m.bare = m.fate == whole && !m.paper
	}
}

// damage has the next agent rebuild the journal, whose remains the administrator then
// removes. What specs do not tell is not there: of a claim whose spec is gone the
// hardware would be left as it is.
func (l *lives) damage(t *rapid.T) {
	for _, m := range l.all() {
		if m.fate != absent && (m.fate != whole || m.bare || m.paper) {
			return
		}
	}
	if err := os.WriteFile(l.agent.path, []byte("damaged"), 0o600); err != nil {
		t.Fatal(err)
	}
	l.restart(0)
	asides, err := filepath.Glob(l.agent.path + ".*-*Z*")
	if err != nil || len(asides) == 0 {
		t.Fatalf("set aside are %v (%v)", asides, err)
	}
	for _, aside := range asides {
		if err := os.Remove(aside); err != nil {
			t.Fatal(err)
		}
	}
}

func (l *lives) deletePod(t *rapid.T) {
	if m := l.draw(t); m.object != nil {
		m.object = m.object.DeepCopy()
		m.object.Status.ReservedFor = nil
	}
}

func (l *lives) addPod(t *rapid.T) {
	if m := l.draw(t); m.object != nil {
		name := rapid.SampledFrom([]string{"x", "y"}).Draw(t, "pod")
		pod := resourceapi.ResourceClaimConsumerReference{Resource: "pods", Name: name, UID: types.UID("pod-" + name)}
		if !slices.Contains(m.object.Status.ReservedFor, pod) {
			m.object = m.object.DeepCopy()
			m.object.Status.ReservedFor = append(m.object.Status.ReservedFor, pod)
		}
	}
}

func (l *lives) toggleSandbox(t *rapid.T) {
	m := l.draw(t)
	l.inUse[m.uid()] = !l.inUse[m.uid()]
	if entry := l.agent.journal.Entry(m.uid()); l.inUse[m.uid()] && m.fate == whole {
		l.attach(entry)
	}
}

func (l *lives) toggleDriver(*rapid.T) {
	if l.dead = !l.dead; l.dead {
		l.agent.die()
	} else {
		l.agent.revive()
	}
}

func (l *lives) toggleHappiness(t *rapid.T) {
	if uid := l.draw(t).uid(); l.unhappy[uid] == nil {
		l.unhappy[uid] = errors.New("the netdev is not home yet")
	} else {
		delete(l.unhappy, uid)
	}
}

// toggleProcesses has processes begin or end in the first partition that was made for a claim.
func (l *lives) toggleProcesses(t *rapid.T) {
	m := l.draw(t)
	if m.holds() && !m.paper && m.has(isMade) {
		l.occupy(m, !m.busy)
	}
}

func (l *lives) occupy(m *modelClaim, busy bool) {
	first := slices.IndexFunc(m.held, isMade)
	for _, i := range l.gpu.Snapshot().MIG.Instances {
		if i.Placement == *m.held[first].made {
			m.busy = busy
			l.gpu.SetBusy(i.GPUInstance, busy)
		}
	}
}
