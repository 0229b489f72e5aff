package apiserver

import (
	"context"
	"errors"
	"fmt"
	"testing"

	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/dynamic-resource-allocation/resourceslice"

	"github.com/hostler-dev/hostler/driver/apiserver"
	"github.com/hostler-dev/hostler/driver/publish"
)

// TestRollback takes the features away from under a running agent: publishing
// must tell, the probe must explain, and what is published then must be legal
// again, without the device that cannot be marked as faulty any more.
func TestRollback(t *testing.T) {
	t.Parallel()
	s := startServer(t, "1.37")
	agent := installAgent(t, s)
	probe := func() publish.Features {
		t.Helper()
		features, err := apiserver.Probe(t.Context(), agent, nodeName)
		if err != nil {
			t.Fatal(err)
		}
		return features
	}
	in := input(nil, nics(8))
	in.Features = probe()
	p := startPublishing(t, agent, in)

	s.process.kill()
	s.start(t, gatesArgument(gatesOff)...)
	faulty := in.Snapshot.NICs[5].Name
	in.Taints = []publish.Taint{{Device: faulty, Key: "hostler.dev/link", Effect: resourceapi.DeviceTaintEffectNoSchedule}}
	eventually(t, s.process, "the library to report a dropped taint", func(context.Context) error {
		err := p.try(t, in)
		var dropped *resourceslice.DroppedFieldsError
		if !errors.As(err, &dropped) {
			return fmt.Errorf("it reports: %w", errors.Join(err, errors.New("no dropped field")))
		}
		return nil
	})

	if in.Features = probe(); in.Features != (publish.Features{}) {
		t.Fatalf("features after the rollback are %+v, want none", in.Features)
	}
	p.publish(t, in)
	for name, slice := range p.stored(t) {
		if len(slice.Spec.SharedCounters) > 0 {
			t.Errorf("slice %s has counters that nobody reads", name)
		}
		for _, device := range slice.Spec.Devices {
			if device.Name == faulty {
				t.Errorf("slice %s offers %s without its taint", name, faulty)
			}
			if len(device.ConsumesCounters) > 0 || len(device.Taints) > 0 {
				t.Errorf("slice %s has device %s with parts that the server does not have", name, device.Name)
			}
		}
	}
}
