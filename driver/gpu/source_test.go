package gpu_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/hostler-dev/hostler/driver/gpu"
	"github.com/hostler-dev/hostler/driver/gpu/gputest"
	"github.com/hostler-dev/hostler/topology"
)

// source reads the one GPU, changed for the test.
type source struct {
	*gputest.GPU
	driver topology.Driver
	change func(*topology.GPU)
}

func (s source) ReadGPUs(context.Context) (topology.Driver, []topology.GPU, []topology.Problem) {
	read := s.Snapshot()
	if s.change != nil {
		s.change(&read)
	}
	return s.driver, []topology.GPU{read}, nil
}

func TestPartitionIsReadFromAllGPUs(t *testing.T) {
	device, ready := gputest.New(pci), topology.Driver{State: topology.DriverReady}
	made := cut(t, device, 14, topology.MIGPlacement{Start: 2, Size: 2})
	for _, test := range []struct {
		name   string
		driver topology.Driver
		change func(*topology.GPU)
		pci    string
		place  topology.MIGPlacement
		found  bool
		want   string
	}{
		{"one that is there", ready, nil, pci, made.Placement, true, ""},
		{"another place", ready, nil, pci, topology.MIGPlacement{Size: 2}, false, ""},
		{"out of MIG mode", ready, func(g *topology.GPU) { g.MIG = nil }, pci, made.Placement, false, ""},
		{"another GPU", ready, nil, "0000:99:00.0", made.Placement, false, "lists no GPU at 0000:99:00.0"},
		{"a lost GPU", ready, func(g *topology.GPU) { g.Lost = true }, pci, made.Placement, false, "fallen off the bus"},
		{"a GPU that hangs", ready, func(g *topology.GPU) { g.Problems = []topology.Problem{{Message: "GPU does not answer"}} }, pci, made.Placement, false, "not certain: GPU does not answer"},
		{"a dead driver", topology.Driver{State: topology.DriverFailed, Message: "Driver Not Loaded"}, nil, pci, made.Placement, false, "(Failed): Driver Not Loaded"},
	} {
		got, err := gpu.NewPartitioner(source{device, test.driver, test.change}).Partition(t.Context(), test.pci, 14, test.place)
		if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) || (got != nil) != test.found {
			t.Errorf("%s: %v, %v; want %q", test.name, got, err, test.want)
		}
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := gpu.NewPartitioner(source{device, ready, nil}).Partition(over, pci, 14, made.Placement); !errors.Is(err, context.Canceled) {
		t.Errorf("%v; a reading that was cut short is no answer", err)
	}
}
