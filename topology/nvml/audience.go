// Whoever watches a session's events shares one event set with all others. A wait
// for events holds a thread in the driver for a second, and Go's runtime looks after a
// thread that has gone into C every few ten microseconds until, after 10 ms, it takes its
// processor away (retake in runtime/proc.go): two waits a second cost an idle agent a
// third of all its time. So one of those who watch waits for all of them.

package nvml

import (
	"context"
	"sync"
)

// audience is who watches a session. Its zero value is nobody.
type audience struct {
	mu        sync.Mutex
	listeners map[*listener]struct{}
	// waiting is closed when the one who waits for all stops, nil while nobody does.
	waiting chan struct{}
}

// listener is one who watches, with the kinds of events that it is told of.
type listener struct {
	kinds   map[uint64]EventKind
	deliver func(Event)
}

func (l *listener) wants(kind EventKind) bool {
	if kind == EventLost {
		return true
	}
	for _, k := range l.kinds {
		if k == kind {
			return true
		}
	}
	return false
}

// join adds a listener. Once leave has returned nothing more is delivered to it.
func (a *audience) join(kinds map[uint64]EventKind, deliver func(Event)) (leave func()) {
	l := &listener{kinds, deliver}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.listeners == nil {
		a.listeners = map[*listener]struct{}{}
	}
	a.listeners[l] = struct{}{}
	return func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		delete(a.listeners, l)
	}
}

// tell delivers an event to all who want it, one after another.
func (a *audience) tell(event Event) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for l := range a.listeners {
		if l.wants(event.Kind) {
			l.deliver(event)
		}
	}
}

// await returns once it is the caller's turn to wait for all, which ends with done. The
// error is ctx's. What the driver reports between two turns is told to nobody: turns end
// when a watch is ended, of which an agent has none that the others outlive for long.
func (a *audience) await(ctx context.Context) (done func(), err error) {
	for {
		a.mu.Lock()
		others := a.waiting
		if others == nil {
			mine := make(chan struct{})
			a.waiting = mine
			a.mu.Unlock()
			return func() {
				a.mu.Lock()
				defer a.mu.Unlock()
				a.waiting = nil
				close(mine)
			}, nil
		}
		a.mu.Unlock()
		select {
		case <-others:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}
