// A Sample is one measurement of one GPU. A value that the GPU or the driver
// does not offer, or that failed this time, is nil: a zero would be a lie in a graph.

package nvml

import (
	"context"
	"errors"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
)

// Sample holds what a GPU measured.
type Sample struct {
	// Utilization of processors and of memory bandwidth, 0 to 1, over NVML's last sampling period.
	Utilization, MemoryUtilization *float64
	// MemoryUsedBytes is allocated memory, without what the driver reserves.
	MemoryUsedBytes, MemoryTotalBytes *uint64
	TemperatureCelsius, PowerWatts    *float64
	// EnergyJoules since the driver was loaded.
	EnergyJoules                   *float64
	SMClockHertz, MemoryClockHertz *float64
}

// Sample measures the GPU at a canonical PCI address. The error is ErrLost,
// ErrHung or ErrUnknownGPU, with whatever was measured before; if only single
// values failed, it joins their errors and the rest of the sample is good.
func (s *Session) Sample(ctx context.Context, pci string) (Sample, error) {
	var sample Sample
	d, err := s.device(ctx, pci)
	if err != nil {
		return sample, err
	}
	h, m := d.nvml(), &measuring{ctx: ctx, lane: d.lane, has: s.has}
	measure(m, "nvmlDeviceGetUtilizationRates", h.GetUtilizationRates, func(v nvml.Utilization) {
		sample.Utilization, sample.MemoryUtilization = scaled(v.Gpu, 0.01), scaled(v.Memory, 0.01)
	})
	// Version 1 counts what the driver reserves for itself as used; version 2 is
	// what nvidia-smi shows.
	if s.has("nvmlDeviceGetMemoryInfo_v2") {
		measure(m, "nvmlDeviceGetMemoryInfo_v2", h.GetMemoryInfo_v2, func(v nvml.Memory_v2) {
			sample.MemoryUsedBytes, sample.MemoryTotalBytes = &v.Used, &v.Total
		})
	} else {
		measure(m, "nvmlDeviceGetMemoryInfo", h.GetMemoryInfo, func(v nvml.Memory) {
			sample.MemoryUsedBytes, sample.MemoryTotalBytes = &v.Used, &v.Total
		})
	}
	measure(m, "nvmlDeviceGetTemperature", func() (uint32, nvml.Return) { return h.GetTemperature(nvml.TEMPERATURE_GPU) },
		func(v uint32) { sample.TemperatureCelsius = scaled(v, 1) })
	measure(m, "nvmlDeviceGetPowerUsage", h.GetPowerUsage, func(v uint32) { sample.PowerWatts = scaled(v, 1e-3) })
	measure(m, "nvmlDeviceGetTotalEnergyConsumption", h.GetTotalEnergyConsumption, func(v uint64) {
		joules := float64(v) / 1e3
		sample.EnergyJoules = &joules
	})
	measure(m, "nvmlDeviceGetClockInfo", func() (uint32, nvml.Return) { return h.GetClockInfo(nvml.CLOCK_SM) },
		func(v uint32) { sample.SMClockHertz = scaled(v, 1e6) })
	measure(m, "nvmlDeviceGetClockInfo", func() (uint32, nvml.Return) { return h.GetClockInfo(nvml.CLOCK_MEM) },
		func(v uint32) { sample.MemoryClockHertz = scaled(v, 1e6) })
	return sample, m.err()
}

func scaled(v uint32, factor float64) *float64 {
	f := float64(v) * factor
	return &f
}

// measuring collects the errors of a run of getters and ends the run when the
// GPU is lost or hung.
type measuring struct {
	ctx    context.Context
	lane   *lane
	has    func(string) bool
	ended  bool
	errors []error
}

func measure[T any](m *measuring, symbol string, fn func() (T, nvml.Return), store func(T)) {
	if m.ended || !m.has(symbol) {
		return
	}
	value, err := call(m.ctx, m.lane, symbol, fn)
	switch {
	case err == nil:
		store(value)
	case errors.Is(err, ErrNotSupported):
	case errors.Is(err, ErrLost), errors.Is(err, ErrHung), errors.Is(err, ErrDriverGone), m.ctx.Err() != nil:
		m.ended = true
		fallthrough
	default:
		m.errors = append(m.errors, err)
	}
}

func (m *measuring) err() error { return errors.Join(m.errors...) }
