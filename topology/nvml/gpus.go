// GPUs reads what a snapshot says about each GPU. Attributes that never change
// are read once; MIG mode, links and fabric every time. All GPUs are read at once,
// each in its own lane, so that the slowest one sets the time and not the sum.

package nvml

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/NVIDIA/go-nvml/pkg/nvml"

	"github.com/hostler-dev/hostler/topology"
)

// GPUs returns every GPU that NVML lists, sorted by PCI address, with only PCI
// set in the placement. A lost GPU is present with what was known of it and Lost
// set; a hung one with what was known and a Problem. The error means that the session is of no more use.
func (s *Session) GPUs(ctx context.Context) ([]topology.GPU, []topology.Problem, error) {
	seats, problems, err := s.enumerate(ctx)
	if err != nil {
		return nil, problems, err
	}
	gpus := make([]topology.GPU, 0, len(seats))
	var mu sync.Mutex
	var readers sync.WaitGroup
	for _, seat := range seats {
		if seat.device == nil {
			continue
		}
		readers.Go(func() {
			gpu := s.read(ctx, seat.device, seat.err)
			mu.Lock()
			defer mu.Unlock()
			gpus = append(gpus, gpu)
		})
	}
	readers.Wait()
	if err := ctx.Err(); err != nil {
		return nil, nil, err
	}
	matchPeers(gpus)
	slices.SortFunc(gpus, func(a, b topology.GPU) int { return strings.Compare(a.Placement.PCI, b.Placement.PCI) })
	return gpus, problems, nil
}

// reading is one pass over the getters of a GPU.
type reading struct {
	ctx    context.Context
	device *device
	handle nvml.Device
	has    func(string) bool
	gpu    topology.GPU
	failed error // lost or hung: further getters would answer the same
	first  error // what went wrong first, as it is worded in gpu.Problems
}

func (s *Session) read(ctx context.Context, d *device, seatErr error) topology.GPU {
	handle, known, complete := d.state()
	r := &reading{ctx: ctx, device: d, handle: handle, has: s.has, gpu: known}
	r.note("handle", seatErr)
	if !complete {
		r.fixed()
	}
	fixedRead := len(r.gpu.Problems) == 0
	r.changing()
	if r.failed != nil && complete {
		// Half a reading of a failing GPU is worse than the last whole one.
		known.Lost, known.Problems = r.gpu.Lost, r.gpu.Problems
		return known
	}
	d.remember(r.gpu, complete || fixedRead)
	return r.gpu
}

func (d *device) state() (nvml.Device, topology.GPU, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.handle, d.known, d.complete
}

func (d *device) remember(gpu topology.GPU, complete bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	gpu.Index = d.known.Index
	gpu.Lost, gpu.Problems = false, nil
	d.known, d.complete = gpu, complete
}

// get runs one getter and stores its value, or notes why it could not. Getters
// of symbols that the library lacks, and of features that the GPU lacks, leave the
// attribute empty without a Problem: nothing is wrong. Asked again, only a getter that
// is not done may answer otherwise.
func get[T any](r *reading, symbol string, fn func() (T, nvml.Return), store func(T)) (done bool) {
	if r.failed != nil {
		return false
	}
	if !r.has(symbol) {
		return true
	}
	value, err := call(r.ctx, r.device.lane, symbol, fn)
	if err != nil {
		r.note(symbol, err)
		return errors.Is(err, ErrNotSupported)
	}
	store(value)
	return true
}

func (r *reading) note(subject string, err error) {
	if err == nil || errors.Is(err, ErrNotSupported) {
		return
	}
	if errors.Is(err, ErrLost) {
		r.gpu.Lost = true
	}
	if errors.Is(err, ErrLost) || errors.Is(err, ErrHung) || r.ctx.Err() != nil {
		r.failed = err
	}
	r.first = cmp.Or(r.first, err)
	problem := topology.Problem{Subject: subject, Message: err.Error()}
	if !slices.Contains(r.gpu.Problems, problem) { // a getter that is asked for each link fails once
		r.gpu.Problems = append(r.gpu.Problems, problem)
	}
}

// fixed reads the attributes that a GPU keeps for life.
func (r *reading) fixed() {
	h, g := r.handle, &r.gpu
	get(r, "nvmlDeviceGetUUID", h.GetUUID, func(v string) { g.UUID = clean(v) })
	get(r, "nvmlDeviceGetName", h.GetName, func(v string) { g.ProductName = clean(v) })
	get(r, "nvmlDeviceGetMinorNumber", h.GetMinorNumber, func(v int) { g.Minor = v })
	get(r, "nvmlDeviceGetSerial", h.GetSerial, func(v string) { g.Serial = clean(v) })
	get(r, "nvmlDeviceGetVbiosVersion", h.GetVbiosVersion, func(v string) { g.VBIOSVersion = clean(v) })
	get(r, "nvmlDeviceGetMemoryInfo", h.GetMemoryInfo, func(v nvml.Memory) { g.MemoryBytes = v.Total })
	get(r, "nvmlDeviceGetArchitecture", h.GetArchitecture, func(v nvml.DeviceArchitecture) { g.Architecture = architectureName(v) })
	get(r, "nvmlDeviceGetCudaComputeCapability", func() ([2]int, nvml.Return) {
		major, minor, ret := h.GetCudaComputeCapability()
		return [2]int{major, minor}, ret
	}, func(v [2]int) { g.ComputeCapability = fmt.Sprintf("%d.%d", v[0], v[1]) })
}

// changing reads what can be different at the next poll.
func (r *reading) changing() {
	// A getter that touches the hardware: the identity above is cached by the
	// driver and would be answered for a GPU that has left the bus.
	get(r, "nvmlDeviceGetTemperature", func() (uint32, nvml.Return) { return r.handle.GetTemperature(nvml.TEMPERATURE_GPU) }, func(uint32) {})
	r.migMode()
	r.mig()
	r.links()
	r.fabric()
}

var architectureNames = map[nvml.DeviceArchitecture]string{
	nvml.DEVICE_ARCH_KEPLER: "Kepler", nvml.DEVICE_ARCH_MAXWELL: "Maxwell", nvml.DEVICE_ARCH_PASCAL: "Pascal",
	nvml.DEVICE_ARCH_VOLTA: "Volta", nvml.DEVICE_ARCH_TURING: "Turing", nvml.DEVICE_ARCH_AMPERE: "Ampere",
	nvml.DEVICE_ARCH_ADA: "Ada", nvml.DEVICE_ARCH_HOPPER: "Hopper", nvml.DEVICE_ARCH_BLACKWELL: "Blackwell",
	nvml.DEVICE_ARCH_RUBIN: "Rubin",
}

// architectureName is "" for a GPU younger than this table: no name is better than a wrong one.
func architectureName(a nvml.DeviceArchitecture) string { return architectureNames[a] }
