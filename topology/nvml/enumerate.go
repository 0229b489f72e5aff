// Enumeration: which GPUs does NVML list, and at which PCI address? The index
// is NVML's and changes with the set of GPUs; it is used here and never again.

package nvml

import (
	"context"
	"fmt"

	"github.com/NVIDIA/go-nvml/pkg/nvml"

	"github.com/hostler-dev/hostler/topology"
)

// seat is what sits at one NVML index: a device, or the reason why none could be had.
type seat struct {
	index  int
	device *device
	err    error
}

// enumerate asks NVML for every index. An error means that not even the count
// could be had; what goes wrong with one GPU stays in its seat.
func (s *Session) enumerate(ctx context.Context) ([]seat, []topology.Problem, error) {
	count, err := call(ctx, s.system, "nvmlDeviceGetCount_v2", s.api.DeviceGetCount)
	if err != nil {
		return nil, nil, fmt.Errorf("count the GPUs: %w", err)
	}
	seats := make([]seat, count)
	done := make(chan int)
	for index := range seats {
		go func() {
			d, err := s.deviceAt(ctx, index)
			seats[index] = seat{index: index, device: d, err: err}
			done <- index
		}()
	}
	for range seats {
		<-done
	}
	// One that is known by its old index too, because the GPUs moved up, sits where it answers.
	answering := map[*device]bool{}
	for _, seat := range seats {
		answering[seat.device] = answering[seat.device] || seat.err == nil
	}
	var problems []topology.Problem
	for i, seat := range seats {
		if seat.err != nil && answering[seat.device] {
			seats[i].device, seat.device = nil, nil
		}
		if seat.device == nil {
			problems = append(problems, topology.Problem{
				Subject: fmt.Sprintf("NVML index %d", seat.index),
				Message: fmt.Sprintf("the driver counts a GPU here but does not say which: %v", seat.err),
			})
		}
	}
	return seats, problems, nil
}

// deviceAt finds out who sits at an index. If the GPU no longer answers but did
// earlier in this session, it is the one that was known to sit there.
func (s *Session) deviceAt(ctx context.Context, index int) (*device, error) {
	slot := s.slot(index)
	handle, err := call(ctx, slot, "nvmlDeviceGetHandleByIndex_v2", func() (nvml.Device, nvml.Return) { return s.api.DeviceGetHandleByIndex(index) })
	if err != nil {
		return s.lastAt(index), err
	}
	info, err := call(ctx, slot, "nvmlDeviceGetPciInfo_v3", handle.GetPciInfo)
	if err != nil {
		return s.lastAt(index), err
	}
	pci, err := canonical(info)
	if err != nil {
		return s.lastAt(index), err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.gpus[pci]
	if d == nil {
		d = &device{pci: pci, lane: newLane("GPU "+pci, s.timeout)}
		d.known = topology.GPU{
			Name: topology.GPUName(pci), Minor: -1,
			Placement: topology.Placement{PCI: pci, NUMANode: -1, Socket: -1},
		}
		s.gpus[pci] = d
	}
	for _, other := range s.gpus {
		if other != d {
			other.leave(index)
		}
	}
	d.bind(handle, index)
	return d, nil
}

func (s *Session) slot(index int) *lane {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.slots[index] == nil {
		s.slots[index] = newLane(fmt.Sprintf("GPU at NVML index %d", index), s.timeout)
	}
	return s.slots[index]
}

// lastAt is the device that last answered at the index, nil if none ever did.
func (s *Session) lastAt(index int) *device {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range s.gpus {
		if d.index() == index {
			return d
		}
	}
	return nil
}

func (d *device) bind(handle nvml.Device, index int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.handle, d.known.Index = handle, index
}

// noIndex is the index of a device whose place another one has taken.
const noIndex = -1

func (d *device) leave(index int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.known.Index == index {
		d.known.Index = noIndex
	}
}

func (d *device) index() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.known.Index
}

func (d *device) nvml() nvml.Device {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.handle
}

// canonical reads the address out of nvmlPciInfo_t, where busId is
// "domain:bus:device.function" with an eight-digit domain.
func canonical(info nvml.PciInfo) (string, error) {
	pci, err := topology.CanonicalPCI(cString(info.BusId[:]))
	if err != nil {
		return "", fmt.Errorf("nvmlDeviceGetPciInfo_v3: %w", err)
	}
	return pci, nil
}
