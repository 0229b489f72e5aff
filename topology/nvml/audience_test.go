package nvml

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/NVIDIA/go-nvml/pkg/nvml"

	"github.com/hostler-dev/hostler/test/nvmlsim"
)

// Each set that waits costs a thread and much of the runtime's attention.
func TestAllWhoWatchShareOneEventSet(t *testing.T) {
	control, source := simulate(t, nvmlsim.Build, 0)
	session, _ := source.current()
	watch := func(kinds map[uint64]EventKind) (told chan Event, end func()) {
		told = make(chan Event, 100)
		ended := make(chan error)
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			for {
				err := session.watchEvents(ctx, kinds, func(e Event) { told <- e })
				if ctx.Err() != nil || !errors.Is(err, ErrHung) { // on a busy machine it is begun again
					ended <- err
					return
				}
			}
		}()
		return told, func() {
			t.Helper()
			cancel()
			must(t, <-ended)
		}
	}
	// tells injects an event until it is told of: a watch may not have begun.
	tells := func(told <-chan Event, line string) Event {
		t.Helper()
		deadline := time.After(20 * time.Second)
		again := time.NewTicker(500 * time.Millisecond)
		defer again.Stop()
		for {
			must(t, control.InjectEvent(line))
			select {
			case e := <-told:
				return e
			case <-again.C:
			case <-deadline:
				t.Fatalf("nobody is told of %q", line)
			}
		}
	}

	faults, endFaults := watch(faultEvents)
	tells(faults, "xid gpu1 48")
	must(t, control.Fail("nvmlEventSetCreate", nvmlsim.AllGPUs, nvml.ERROR_INSUFFICIENT_RESOURCES))
	changes, endChanges := watch(migEvents)
	if e := tells(changes, "mig_config gpu0"); e.Kind != EventMIGConfig || e.PCI != first {
		t.Errorf("who watches MIG is told of %+v", e)
	}
	for len(faults) > 0 {
		if e := <-faults; e.Kind != EventXID {
			t.Errorf("who watches faults is told of %+v", e)
		}
	}

	must(t, control.ClearAll())
	endFaults() // it was the one who waited for both
	if e := tells(changes, "mig_config gpu0"); e.Kind != EventMIGConfig {
		t.Errorf("left alone, who watches MIG is told of %+v", e)
	}
	endChanges()
}
