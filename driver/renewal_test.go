package driver

// What waits for the driver: partitions that could not be removed while it was
// dead, and specs of prepared claims that are of an older one.

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/hostler-dev/hostler/driver/gpu/gputest"
	"github.com/hostler-dev/hostler/driver/publish"
	"github.com/hostler-dev/hostler/topology"
)

// reconciling runs the driver's loop, whose next turn by the clock is minutes away. In
// the end the claims are unprepared, which waits for what the loop began for them.
func reconciling(t *testing.T, d *Driver, recorder *countingRecorder, claims ...*resourceapi.ResourceClaim) (turns func() int) {
	t.Helper()
	turns = func() int {
		recorder.mu.Lock()
		defer recorder.mu.Unlock()
		return recorder.seen["reconcile ok=true"] + recorder.seen["reconcile ok=false"]
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { d.reconcile(ctx); close(done) }()
	t.Cleanup(func() {
		stop()
		<-done
		for _, c := range claims {
			if err := unprepareOnly(d, c); err != nil {
				t.Error(err)
			}
		}
	})
	eventually(t, "the first turn", func() bool { return turns() > 0 })
	return turns
}

func TestPartitionUnderADeadDriverIsRemovedWhenItIsBack(t *testing.T) {
	device := gputest.New(migPCI)
	d, recorder := newDriver(t, fake.NewClientset(), withCapabilities(t, pathsIn(t)), func(c *Config) { c.Partitioner = device })
	d.SetSnapshot(cutMachine(device))
	c := claimOn("a", publish.GPUPool(node), part1g)
	if err := prepareOnly(d, c); err != nil {
		t.Fatal(err)
	}
	device.Fault = errors.New("Driver Not Loaded")
	d.SetSnapshot(&topology.Snapshot{BootID: "boot", Driver: topology.Driver{State: topology.DriverFailed, Message: "Driver Not Loaded"}})
	for range 2 { // the kubelet may ask again
		if err := unprepareOnly(d, c); err != nil {
			t.Fatalf("%v; the pod would hang in its termination", err)
		}
	}
	turns := reconciling(t, d, recorder, c)
	in, _ := d.publishInput(time.Now())
	if len(in.InUse)+len(d.ledger.Holders()) > 0 || !in.Made[part1g] || turns() != 1 {
		t.Errorf("in use %v, held %v, made %v; want it ours and nobody's", in.InUse, d.ledger.Holders(), in.Made)
	}
	device.Fault = nil
	d.SetSnapshot(cutMachine(device))
	eventually(t, "the partition is removed", func() bool { return d.cfg.Journal.Entry(c.UID) == nil })
	if instances := device.Snapshot().MIG.Instances; len(instances) > 0 {
		t.Errorf("the journal forgot instances %v", instances)
	}
}

func TestPartitionWaitsForWhatALeftoverHolds(t *testing.T) {
	device, client := gputest.New(migPCI), fake.NewClientset()
	before, after := claimOn("before", publish.GPUPool(node), part1g), claimOn("after", publish.GPUPool(node), part1g)
	if err := errors.Join(client.Tracker().Add(before), client.Tracker().Add(after)); err != nil {
		t.Fatal(err)
	}
	d, recorder := newDriver(t, client, withCapabilities(t, pathsIn(t)), func(c *Config) { c.Partitioner = device })
	d.SetSnapshot(cutMachine(device))
	reconciling(t, d, recorder, before, after)
	if err := prepareOnly(d, before); err != nil {
		t.Fatal(err)
	}
	device.Fault = errors.New("Driver Not Loaded")
	dead := cutMachine(device)
	dead.Driver.State = topology.DriverFailed
	d.SetSnapshot(dead)
	if err := unprepareOnly(d, before); err != nil {
		t.Fatal(err)
	}
	device.Fault = nil
	d.SetSnapshot(cutMachine(device))
	if err := prepareOnly(d, after); err != nil {
		t.Errorf("%v; the leftover is removed at once when a claim wants its place", err)
	}
	if d.cfg.Journal.Entry(before.UID) != nil || len(device.Snapshot().MIG.Instances) != 1 {
		t.Errorf("instances %v; want the new claim's alone", device.Snapshot().MIG.Instances)
	}
}

func TestSpecsFollowTheDriverAtOnce(t *testing.T) {
	client := fake.NewClientset()
	c := claimOn("a", publish.GPUPool(node), "gpu-0000-20-00-0")
	if err := client.Tracker().Add(c); err != nil {
		t.Fatal(err)
	}
	d, recorder := newDriver(t, client, pathsIn(t))
	d.SetSnapshot(machineOf(1))
	if err := prepareOnly(d, c); err != nil {
		t.Fatal(err)
	}
	reconciling(t, d, recorder, c)
	renumbered := machineOf(1)
	renumbered.GPUs[0].Minor = 3
	d.SetSnapshot(renumbered)
	eventually(t, "the spec has the GPU's new number", func() bool {
		spec, err := os.ReadFile(d.directory.File(c.UID))
		return err == nil && strings.Contains(string(spec), `"/dev/nvidia3"`) && !strings.Contains(string(spec), `"/dev/nvidia0"`)
	})
}

func TestWhatMakesSpecsStale(t *testing.T) {
	changed := func(change func(*topology.Snapshot)) *topology.Snapshot {
		s := machineOf(2)
		change(s)
		return s
	}
	dead := changed(func(s *topology.Snapshot) { s.Driver.State, s.GPUs = topology.DriverFailed, nil })
	for name, test := range map[string]struct {
		before, now *topology.Snapshot
		stale       bool
	}{
		"the same again":              {machineOf(2), machineOf(2), false},
		"a NIC went into a pod":       {machineOf(2), changed(func(s *topology.Snapshot) { s.NICs = nil }), false},
		"another version":             {machineOf(2), changed(func(s *topology.Snapshot) { s.Driver.Version = "580" }), true},
		"another number":              {machineOf(2), changed(func(s *topology.Snapshot) { s.GPUs[0].Minor = 7 }), true},
		"a GPU that is back":          {changed(func(s *topology.Snapshot) { s.GPUs[0].Lost = true }), machineOf(2), true},
		"a driver that is back":       {dead, machineOf(2), true},
		"a driver that died":          {machineOf(2), dead, false},
		"a driver that is still dead": {dead, dead, false},
	} {
		if got := renewed(test.before, test.now); got != test.stale {
			t.Errorf("%s: stale %v", name, got)
		}
	}
}
