// Watch tells the observer when to look again: at once when MIG instances come
// or go or a GPU is lost, within a second when the driver goes away or its library
// is installed or replaced. What it misses is found by the poll.

package nvml

import (
	"context"
	"errors"

	"k8s.io/klog/v2"
)

// hint is one watcher's function.
type hint struct{ changed func() }

// hint tells all watchers that the GPUs may have changed.
func (s *Source) hint() {
	s.mu.Lock()
	watchers := make([]*hint, 0, len(s.hints))
	for h := range s.hints {
		watchers = append(watchers, h)
	}
	s.mu.Unlock()
	for _, h := range watchers {
		h.changed()
	}
}

func (s *Source) subscribe(changed func()) (cancel func()) {
	h := &hint{changed}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hints[h] = struct{}{}
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.hints, h)
	}
}

// Watch calls changed, which must not block, until ctx is done. It is a
// topology.Watcher. It opens no driver: that is for ReadGPUs, which the hint leads to.
func (s *Source) Watch(ctx context.Context, changed func()) error {
	defer s.subscribe(changed)()
	installed := s.installed()
	for ; ctx.Err() == nil; pause(ctx) {
		if now := s.installed(); now != installed {
			installed = now
			changed()
		}
		s.watchMIG(ctx, changed)
	}
	return nil
}

// watchMIG returns when the session ends or is paused, at once if there is none.
func (s *Source) watchMIG(ctx context.Context, changed func()) {
	ctx, leave, err := s.watching(ctx)
	if err != nil {
		return // ctx is done
	}
	defer leave()
	session, _ := s.current()
	if session == nil {
		return
	}
	switch err := session.watchEvents(ctx, migEvents, func(Event) { changed() }); {
	case errors.Is(err, ErrDriverGone):
		s.drop(ctx, session, err)
	case err != nil:
		// A library without events, or a driver that hangs, which the snapshot
		// tells of: the poll finds what changes.
		klog.FromContext(ctx).V(4).Info("Changes of MIG cannot be watched now", "reason", err.Error())
	}
}
