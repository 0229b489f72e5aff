package claim

// Random lives of a node, against the model: claims are prepared and unprepared,
// with devices of all kinds, while agents die at any moment, the machine reboots,
// the API server goes away, claims and pods are deleted behind the agent's back,
// the accelerator driver dies, and what a claim has does not come back.

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/types"
	"pgregory.net/rapid"
)

// lives is the state machine.
type lives struct {
	*world
	agent  *agent
	start  still
	claims map[string]*modelClaim
	// away: the API server does not answer.
	apiAway bool
}

func (l *lives) draw(t *rapid.T) *modelClaim {
	return l.claims[rapid.SampledFrom([]string{"a", "b", "c", "d"}).Draw(t, "claim")]
}

func (l *lives) restart(at int) { l.agent = l.world.start(at) }

// survive starts the next agent if this one was killed, and reports whether it was.
func (l *lives) survive(touched ...*modelClaim) bool {
	if !l.agent.dead {
		return false
	}
	for _, m := range touched {
		m.fate = unsure
		if m.busy { // its processes end, too
			l.occupy(m, false)
		}
	}
	l.restart(0)
	return true
}

// allocate has the scheduler give a claim devices, other ones if it has some.
func (l *lives) allocate(t *rapid.T) {
	m := l.draw(t)
	taken := map[string]bool{}
	m.wanted = nil
	for _, c := range rapid.SliceOfN(rapid.SampledFrom(choices()), 1, 3).Draw(t, "devices") {
		if !slices.ContainsFunc(append(c.units, c.device[1]), func(u string) bool { return taken[u] }) {
			m.wanted = append(m.wanted, c)
			for _, u := range append(c.units, c.device[1]) {
				taken[u] = true
			}
		}
	}
	var devices [][2]string
	for _, c := range m.wanted {
		devices = append(devices, c.device)
	}
	m.object = allocated(m.name, devices...)
	for i, c := range m.wanted {
		result := &m.object.Status.Allocation.Devices.Results[i]
		if c.config != "" {
			with(m.object, class, c.config, result.Request)
		}
		if c.share != "" {
			result.ShareID = new(types.UID(c.share))
		}
	}
}

// sameAllocation: the claim was prepared for what it has now.
func (m *modelClaim) sameAllocation() bool {
	return slices.EqualFunc(m.wanted, m.held, func(a, b choice) bool { return a.device == b.device && a.share == b.share })
}

func (l *lives) prepare(t *rapid.T) {
	m := l.draw(t)
	if m.object == nil {
		return
	}
	_, err := l.agent.prepare(m.object)
	if l.survive(m) {
		if m.held == nil || m.sameAllocation() {
			m.held = m.wanted
		}
		return
	}
	if m.fate == unsure {
		if err == nil {
			l.becomeWhole(m)
		}
		return
	}
	reason := l.prepared(m)
	if (err != nil) != (reason != "") {
		t.Fatalf("prepare %s: %v; by the model: %q", m.name, err, reason)
	}
}

func (l *lives) becomeWhole(m *modelClaim) {
	*m = modelClaim{name: m.name, object: m.object, wanted: m.wanted, held: m.wanted, fate: whole}
}

// prepared has the model prepare the claim, and returns why it cannot.
func (l *lives) prepared(m *modelClaim) string {
	if m.fate == whole && !m.paper && m.sameAllocation() {
		entry := l.agent.journal.Entry(m.uid())
		if reason := l.excluded(m); reason != "" && !slices.Equal(entry.Pods, podsOf(m.object)) {
			return reason
		}
		if l.dead && m.has(choice.cut) {
			return "the driver"
		}
		m.bare = false
		return ""
	}
	if m.fate != absent {
		if reason := l.undone(m); reason != "" {
			return reason
		}
		if m.fate == leftover {
			return "its own leftover"
		}
	}
	if l.dead && slices.ContainsFunc(m.wanted, choice.cut) {
		return "the driver"
	}
	if slices.ContainsFunc(m.wanted, choice.bypasses) && slices.ContainsFunc(m.wanted, choice.confines) {
		return "its scope"
	}
	for _, other := range l.claims {
		if entry := l.agent.journal.Entry(other.uid()); other != m && entry != nil {
			for _, unit := range units(entry) {
				if slices.ContainsFunc(m.wanted, func(c choice) bool { return slices.Contains(c.units, unit) }) {
					return other.name
				}
			}
		}
	}
	if reason := l.excluded(m); reason != "" {
		return reason
	}
	if slices.ContainsFunc(m.wanted, func(c choice) bool { return c.taken }) {
		if l.unhappy[m.uid()] != nil {
			m.held, m.fate, m.home = m.wanted, unsure, false
		}
		return "the administrator"
	}
	l.becomeWhole(m)
	return ""
}

// undone has the model undo the claim, and returns why it cannot.
func (l *lives) undone(m *modelClaim) string {
	switch {
	case m.fate == leftover && l.dead && !m.paper:
		return ""
	case m.fate != leftover && l.unhappy[m.uid()] != nil:
		if m.fate != ending {
			m.home = false
		}
		m.fate = ending
		return "its netdevs"
	case !m.paper && m.has(isMade) && l.dead:
		if m.fate == ending && m.home {
			m.held = m.held[slices.IndexFunc(m.held, isMade):][:1]
		}
		m.fate = leftover
		return ""
	case !m.paper && m.has(isMade) && m.busy:
		if m.fate != leftover {
			m.fate = ending
		} else {
			m.held = m.held[slices.IndexFunc(m.held, isMade):][:1]
		}
		m.home = true
		return "its processes"
	}
	m.forget()
	return ""
}

func (m *modelClaim) forget() { *m = modelClaim{name: m.name, object: m.object, wanted: m.wanted} }

func (l *lives) unprepare(t *rapid.T) {
	m := l.draw(t)
	err := l.agent.Unprepare(quiet(), m.uid())
	switch {
	case l.survive(m):
	case m.fate == unsure:
		if err == nil && l.agent.journal.Entry(m.uid()) == nil {
			m.forget()
		}
	case m.fate == absent:
		if err != nil {
			t.Fatal(err)
		}
	default:
		if reason := l.undone(m); (err != nil) != (reason != "") {
			t.Fatalf("unprepare %s: %v; by the model: %q", m.name, err, reason)
		}
	}
}

func (l *lives) reconcile(t *rapid.T) {
	read := reader(l.objects()...)
	if l.apiAway {
		read = func(context.Context, string, string) (*resourceapi.ResourceClaim, error) {
			return nil, errors.New("connection refused")
		}
	}
	err := l.agent.Reconcile(quiet(), read, l.agent.cdi)
	touched := slices.DeleteFunc(l.all(), func(m *modelClaim) bool { return m.fate == absent })
	if l.survive(touched...) {
		return
	}
	reasons := ""
	for _, m := range l.all() {
		reasons += l.reconciled(m)
	}
	if err != nil && reasons == "" {
		t.Fatalf("reconcile: %v; by the model nothing is in the way", err)
	}
}

// reconciled has the model look at one claim, and returns what is in the way.
func (l *lives) reconciled(m *modelClaim) string {
	left := m.object == nil || len(m.object.Status.ReservedFor) == 0 || !m.sameAllocation()
	switch {
	case m.fate == absent:
		return ""
	case m.fate == unsure:
		// What an agent died over is one thing or the other now, if nothing is in its way.
		if l.agent.journal.Entry(m.uid()) == nil {
			m.forget()
		}
		return "unsure"
	case m.fate == leftover, m.fate == ending:
		return l.undone(m)
	case l.apiAway:
		return "the API server"
	case left && l.inUse[m.uid()]:
		return ""
	case left:
		return l.undone(m)
	}
	if m.paper {
		if reason := l.undone(m); reason != "" {
			return reason
		}
	}
	return l.prepared(m)
}

func (l *lives) all() []*modelClaim {
	var all []*modelClaim
	for _, name := range []string{"a", "b", "c", "d"} {
		all = append(all, l.claims[name])
	}
	return all
}

func (l *lives) objects() []*resourceapi.ResourceClaim {
	var objects []*resourceapi.ResourceClaim
	for _, m := range l.all() {
		if m.object != nil {
			objects = append(objects, m.object)
		}
	}
	return objects
}

func (l *lives) check(t *rapid.T) {
	holders := map[string]string{}
	sure := true
	for _, m := range l.all() {
		sure = sure && m.fate != unsure
		entry := l.agent.journal.Entry(m.uid())
		if m.fate != unsure && (entry != nil) != m.holds() {
			t.Fatalf("claim %s is in the journal: %v; by the model: %v", m.name, entry != nil, m.holds())
		}
		_, err := os.Stat(l.agent.cdi.File(m.uid()))
		if want := m.fate == whole && !m.bare; m.fate != unsure && !m.paper && !m.bare && (err == nil) != want {
			t.Fatalf("claim %s has a CDI spec: %v; by the model: %v", m.name, err, want)
		}
		if entry == nil {
			continue
		}
		for _, unit := range units(entry) {
			if other := holders[unit]; other != "" {
				t.Fatalf("%s is held by claims %s and %s", unit, other, m.name)
			}
			holders[unit] = m.name
		}
	}
	if sure {
		if diff := cmp.Diff(l.expected(), l.still(), cmpopts.IgnoreFields(still{}, "Away", "Entries", "Files")); diff != "" {
			t.Fatalf("the machine (-want +got):\n%s", diff)
		}
	}
}

// Every life ends, once nothing is in the way any more and all is unprepared, with
// the machine as its administrator left it.
func TestLives(t *testing.T) {
	root := inMemory(t)
	rapid.Check(t, func(rt *rapid.T) {
		directory, err := os.MkdirTemp(root, "")
		if err != nil {
			rt.Fatal(err)
		}
		l := &lives{world: newWorld(rt, directory), claims: map[string]*modelClaim{}}
		l.bus()
		l.start = l.still()
		for _, name := range strings.Split("abcd", "") {
			l.claims[name] = &modelClaim{name: name}
		}
		l.restart(0)
		rt.Repeat(l.actions())
		l.dead, l.apiAway = false, false
		clear(l.unhappy)
		clear(l.inUse)
		l.idle()
		l.restart(0)
		for _, m := range l.all() {
			if err := l.agent.Unprepare(quiet(), m.uid()); err != nil {
				rt.Fatal(err)
			}
		}
		if err := l.agent.reconcile(); err != nil {
			rt.Fatal(err)
		}
		if diff := cmp.Diff(l.start, l.still()); diff != "" {
			rt.Fatalf("the machine in the end (-want +got):\n%s", diff)
		}
		if err := os.RemoveAll(directory); err != nil {
			rt.Fatal(err)
		}
	})
}
