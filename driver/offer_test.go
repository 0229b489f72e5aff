package driver

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/dynamic-resource-allocation/kubeletplugin"
	"k8s.io/dynamic-resource-allocation/resourceslice"

	"github.com/hostler-dev/hostler/driver/publish"
	"github.com/hostler-dev/hostler/topology"
)

func TestOfferIsMadeOnceForEachChange(t *testing.T) {
	d, _ := newDriver(t, fake.NewClientset(), pathsIn(t))
	c := claimOn("a", publish.GPUPool(node), "gpu-0000-20-00-0")
	if first := d.offer(time.Now()); first.ready || d.offer(time.Now()) == first {
		t.Errorf("before the first look at the machine: %+v is kept", first)
	}
	var later time.Duration
	for _, test := range []struct {
		name   string
		change func() error
		anew   bool
	}{
		{"the machine", func() error { d.SetSnapshot(machineOf(2)); return nil }, true},
		{"nothing", func() error { return nil }, false},
		{"a health report", func() error { d.healthReport(); return nil }, false},
		{"the verdicts", func() error { d.SetVerdicts(nil, nil); return nil }, true},
		{"what the API server takes", func() error { d.Republish(); return nil }, true},
		{"a claim that is prepared", func() error { return prepareOnly(d, c) }, true},
		{"a claim that is done", func() error { return unprepareOnly(d, c) }, true},
		{"the time, after which what came home no longer counts as held", func() error { later = homecoming + 1; return nil }, true},
	} {
		before := d.offer(time.Now())
		if err := test.change(); err != nil {
			t.Fatal(err)
		}
		after := d.offer(time.Now().Add(later))
		if (after != before) != test.anew || !after.ready {
			t.Errorf("%s changed: a new offer %v, want %v", test.name, after != before, test.anew)
		}
	}
}

// The report lists what is published, whoever asked first and whatever changed since.
func TestHealthReportsWhatIsPublished(t *testing.T) {
	d, _ := newDriver(t, fake.NewClientset(), pathsIn(t))
	for n := range 5 {
		d.SetSnapshot(machineOf(n))
		if n%2 == 0 {
			d.healthReport()
		}
		var published, reported []string
		for pool, contents := range d.offer(time.Now()).resources.Pools {
			for _, slice := range contents.Slices {
				for _, device := range slice.Devices {
					published = append(published, pool+" "+device.Name)
				}
			}
		}
		for _, h := range d.healthReport().Devices {
			reported = append(reported, h.PoolName+" "+h.DeviceName)
		}
		slices.Sort(published)
		slices.Sort(reported)
		if len(reported) != n+2 || !slices.Equal(published, reported) {
			t.Errorf("with %d GPUs %q are reported of %q", n, reported, published)
		}
	}
}

// helperError is an error as the library hands it over: in publishing, all are recoverable.
type helperError struct{ error }

func (e helperError) Unwrap() error        { return e.error }
func (e helperError) Is(target error) bool { return target == kubeletplugin.ErrRecoverable }

func TestErrorsOfTheLibrary(t *testing.T) {
	for _, test := range []struct {
		name          string
		err           error
		failed, fatal int
	}{
		{"fields that the API server dropped", helperError{&resourceslice.DroppedFieldsError{PoolName: "node-a/gpu"}}, 1, 0},
		{"a write that failed", helperError{errors.New("the server could not find the requested resource")}, 1, 0},
		{"a socket that failed", errors.New("use of closed network connection"), 0, 1},
	} {
		failed, paths := 0, pathsIn(t)
		front := openFront(t, fake.NewClientset(), paths, "")
		front.HandleError(t.Context(), helperError{errors.New("an error while there is no driver")}, "problem")
		d, _ := newDriver(t, fake.NewClientset(), paths, func(c *Config) { c.PublishFailed = func() { failed++ } })
		if err := front.serve(t.Context(), d); err != nil {
			t.Fatal(err)
		}
		front.HandleError(t.Context(), test.err, "problem")
		fatal := len(front.failed)
		if failed != test.failed || fatal != test.fatal {
			t.Errorf("%s: told as a failed publish %d times and as the end %d times, want %d and %d", test.name, failed, fatal, test.failed, test.fatal)
		}
	}
}

// BenchmarkHealthReport is of a node with 2,000 VFs, in which nothing changes.
func BenchmarkHealthReport(b *testing.B) {
	d, _ := newDriver(b, fake.NewClientset(), pathsIn(b))
	machine := machineOf(8)
	for i := range 2000 {
		vf := topology.NIC{Kind: topology.VF, Link: &topology.Link{Name: fmt.Sprint("vf", i)}, Placement: topology.Placement{PCI: fmt.Sprintf("0001:%02x:%02x.%d", i/256, i/8%32, i%8)}}
		vf.Name = topology.NICName(vf.Placement.PCI)
		machine.NICs = append(machine.NICs, vf)
	}
	d.SetSnapshot(machine)
	if n := len(d.healthReport().Devices); n != 2010 {
		b.Fatalf("%d devices are reported", n)
	}
	b.ReportAllocs()
	for b.Loop() {
		d.healthReport()
	}
}
