// WatchEvents delivers what the driver reports of its own accord. A GPU that
// cannot register (register.go) costs its own events only, GPUs that appear later
// are registered when the session next enumerates them, and nothing polls faster
// than once a second. All who watch share one event set (audience.go).

package nvml

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
	"k8s.io/klog/v2"
)

// EventKind says what happened.
type EventKind string

const (
	EventXID            EventKind = "XID"
	EventECC            EventKind = "ECC"            // double-bit (uncorrected) error
	EventPageRetirement EventKind = "PageRetirement" // a memory page or row was retired, or could not be
	EventPoison         EventKind = "Poison"         // poisoned data was consumed
	EventRecoveryAction EventKind = "RecoveryAction" // field 230 changed: probe the GPU
	EventUnavailable    EventKind = "Unavailable"    // the GPU can no longer be used
	// EventMIGConfig: instances were made or destroyed, or the mode changed. Source.Watch uses it.
	EventMIGConfig EventKind = "MIGConfig"
	// EventLost: some GPU fell off the bus. NVML does not say which: PCI is "", probe
	// all. It is repeated, ever less often, for as long as the GPU is away.
	EventLost EventKind = "Lost"
)

// Event is one report of the driver.
type Event struct {
	// PCI is the GPU's canonical address, "" only for EventLost.
	PCI  string
	Kind EventKind
	// XID is the number of an EventXID.
	XID uint64
	// GPUInstance and ComputeInstance narrow the event to a MIG instance, nil for the whole GPU.
	GPUInstance, ComputeInstance *uint32
}

// faultEvents are what a watch of the GPUs' health is told of.
var faultEvents = map[uint64]EventKind{
	nvml.EventTypeXidCriticalError:      EventXID,
	nvml.EventTypeDoubleBitEccError:     EventECC,
	nvml.EventTypeDramRetirementEvent:   EventPageRetirement,
	nvml.EventTypeDramRetirementFailure: EventPageRetirement,
	nvml.EventTypeFatalPoisonError:      EventPoison,
	nvml.EventTypeNonFatalPoisonError:   EventPoison,
	nvml.EventTypeGpuUnavailableError:   EventUnavailable,
	nvml.EventTypeGpuRecoveryAction:     EventRecoveryAction,
}

// migEvents are what a watch of the inventory is told of.
var migEvents = map[uint64]EventKind{nvml.EventMigConfigChange: EventMIGConfig}

// waitMilliseconds bounds one nvmlEventSetWait, and so how long WatchEvents
// needs to notice that ctx is done or that a GPU was added. An event ends it at once.
const waitMilliseconds = 1000

// WatchEvents registers for the faults of every GPU and calls deliver for each,
// one after another, until ctx is done (nil) or the driver goes away (ErrDriverGone).
// It is ErrNotSupported if the library has no events.
func (s *Session) WatchEvents(ctx context.Context, deliver func(Event)) error {
	return s.watchEvents(ctx, faultEvents, deliver)
}

// watchEvents tells of those kinds of events, and of EventLost.
func (s *Session) watchEvents(ctx context.Context, kinds map[uint64]EventKind, deliver func(Event)) error {
	defer s.audience.join(kinds, deliver)()
	done, err := s.audience.await(ctx)
	if err != nil {
		return nil // ctx is done; until then another waited
	}
	defer done()
	return s.waitForEvents(ctx)
}

// waitForEvents tells the audience of every event.
func (s *Session) waitForEvents(ctx context.Context) error {
	for _, symbol := range []string{"nvmlEventSetCreate", "nvmlEventSetFree", "nvmlDeviceRegisterEvents", "nvmlDeviceGetSupportedEventTypes", "nvmlEventSetWait_v2"} {
		if !s.has(symbol) {
			return fmt.Errorf("watch GPU events: the library lacks %s: %w", symbol, ErrNotSupported)
		}
	}
	if _, _, err := s.enumerate(ctx); err != nil {
		return fmt.Errorf("watch GPU events: %w", err)
	}
	set, err := call(ctx, s.system, "nvmlEventSetCreate", s.api.EventSetCreate)
	if err != nil {
		return fmt.Errorf("watch GPU events: %w", err)
	}
	kinds := maps.Clone(faultEvents)
	maps.Copy(kinds, migEvents)
	w := &watch{
		session: s, set: set, kinds: kinds, registered: map[nvml.Device]*registration{},
		lane: newLane("NVML events", waitMilliseconds*time.Millisecond+s.timeout),
	}
	defer w.free(ctx)
	var lost lasting
	for ctx.Err() == nil {
		w.register(ctx)
		event, err := w.next(ctx)
		switch {
		case ctx.Err() != nil:
		case errors.Is(err, ErrLost):
			// NVML repeats the answer at once for as long as the GPU is away, which
			// may be days; each delivery has the machine read and the GPUs probed.
			if lost.isDue() {
				s.audience.tell(Event{Kind: EventLost})
			}
			pause(ctx)
		case errors.Is(err, ErrDriverGone):
			return fmt.Errorf("watch GPU events: %w", err)
		case err != nil:
			klog.FromContext(ctx).Error(err, "Waiting for GPU events failed, trying again")
			pause(ctx)
		case event != nil:
			s.audience.tell(*event)
		}
		if err == nil {
			lost = lasting{}
		}
	}
	return nil
}

// lasting is a state that is told of when it begins and then ever less often.
type lasting struct {
	next  time.Time
	pause time.Duration
}

func (l *lasting) isDue() bool {
	now := time.Now()
	if now.Before(l.next) {
		return false
	}
	l.pause = min(max(2*l.pause, firstPause), longestPause)
	l.next = now.Add(l.pause)
	return true
}

type watch struct {
	session    *Session
	lane       *lane // of the event set: it must not be freed while a wait is out
	set        nvml.EventSet
	kinds      map[uint64]EventKind          // that are asked for, by NVML's number
	registered map[nvml.Device]*registration // by handle, also while it fails

	mu     sync.Mutex
	inside int  // registrations that use the set now
	freed  bool // or about to be
}

// wanted is the mask of the events to register for.
func (w *watch) wanted() uint64 {
	var mask uint64
	for eventType := range w.kinds {
		mask |= eventType
	}
	return mask
}

// next waits for one event; nil if none came within the wait.
func (w *watch) next(ctx context.Context) (*Event, error) {
	raw, err := call(ctx, w.lane, "nvmlEventSetWait_v2", func() (nvml.EventData, nvml.Return) {
		event, ret := w.set.Wait(waitMilliseconds)
		if ret == nvml.ERROR_TIMEOUT {
			return nvml.EventData{EventType: nvml.EventTypeNone}, nvml.SUCCESS
		}
		return event, ret
	})
	if err != nil {
		return nil, err
	}
	kind, ok := w.kinds[raw.EventType]
	if !ok {
		return nil, nil
	}
	from := w.registered[raw.Device]
	if from == nil {
		return nil, fmt.Errorf("event %s came from a GPU that is not registered", kind)
	}
	event := &Event{PCI: from.pci, Kind: kind, GPUInstance: instance(raw.GpuInstanceId), ComputeInstance: instance(raw.ComputeInstanceId)}
	if kind == EventXID {
		event.XID = raw.EventData
	}
	return event, nil
}

// instance: NVML says 0xFFFFFFFF for "not a MIG instance".
func instance(id uint32) *uint32 {
	if id == 0xFFFFFFFF {
		return nil
	}
	return &id
}

func (w *watch) free(ctx context.Context) {
	ctx = context.WithoutCancel(ctx)
	if !w.close() {
		klog.FromContext(ctx).Info("The NVML event set is left behind: a driver call that did not return uses it")
		return
	}
	if _, err := call(ctx, w.lane, "nvmlEventSetFree", func() (struct{}, nvml.Return) { return struct{}{}, w.set.Free() }); err != nil {
		klog.FromContext(ctx).Error(err, "The NVML event set could not be freed")
	}
}

func pause(ctx context.Context) {
	timer := time.NewTimer(waitMilliseconds * time.Millisecond)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
