package nvml

// Others cut the GPU while it is read: between two calls an instance can go.

import (
	"testing"
	"time"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock"
)

func TestAnInstanceThatGoesWhileTheGPUIsReadIsNoProblem(t *testing.T) {
	for _, gone := range []nvml.Return{nvml.ERROR_NOT_FOUND, nvml.ERROR_INVALID_ARGUMENT} {
		lately := nvml.SUCCESS
		instance := &mock.Device{
			GetUUIDFunc:              func() (string, nvml.Return) { return "MIG-a", lately },
			GetGpuInstanceIdFunc:     func() (int, nvml.Return) { return 7, nvml.SUCCESS },
			GetComputeInstanceIdFunc: func() (int, nvml.Return) { return 0, nvml.SUCCESS },
		}
		gpu := &mock.Device{
			GetMaxMigDeviceCountFunc:      func() (int, nvml.Return) { return 1, nvml.SUCCESS },
			GetMigDeviceHandleByIndexFunc: func(int) (nvml.Device, nvml.Return) { return instance, nvml.SUCCESS },
			GetGpuInstanceByIdFunc:        func(int) (nvml.GpuInstance, nvml.Return) { return nil, gone },
		}
		r := &reading{ctx: t.Context(), device: &device{lane: newLane("GPU a", time.Minute)}, handle: gpu, has: everything}
		if found := r.instances(nil); len(found) != 0 || r.first != nil {
			t.Errorf("%s after its device was listed: %v with the problem %v", nameOf(gone), found, r.first)
		}
		lately = gone
		if found := r.migDevices(); len(found) != 0 || r.first != nil {
			t.Errorf("%s before its UUID was read: %v with the problem %v", nameOf(gone), found, r.first)
		}
	}
}
