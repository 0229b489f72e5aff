// Making MIG devices. A partition is a GPU instance and one compute instance
// that spans it; what was made is read back before it counts, and a half that
// stands alone is removed again. Once begun, a change is finished whatever becomes of
// the caller: a driver call cannot be cancelled, and what it makes must have an owner.

package nvml

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/NVIDIA/go-nvml/pkg/nvml"

	"github.com/hostler-dev/hostler/topology"
)

// reshapeTimeout of one call that makes or destroys an instance. Drivers need
// about a second; they wait for other clients of the GPU to let go.
const reshapeTimeout = 20 * time.Second

// createSymbols and destroySymbols are needed beside migSymbols.
var createSymbols = []string{
	"nvmlDeviceCreateGpuInstanceWithPlacement", "nvmlGpuInstanceGetComputeInstanceProfileInfo", "nvmlGpuInstanceCreateComputeInstance",
	"nvmlComputeInstanceGetInfo_v2", "nvmlGpuInstanceDestroy", "nvmlComputeInstanceDestroy",
}
var destroySymbols = []string{
	"nvmlGpuInstanceGetComputeInstanceProfileInfo", "nvmlGpuInstanceGetComputeInstances", "nvmlGpuInstanceDestroy", "nvmlComputeInstanceDestroy",
}

// partitioning is one change of a GPU's MIG instances.
type partitioning struct {
	ctx    context.Context
	device *device
	handle nvml.Device
	has    func(string) bool
}

// partitioning begins a change, or says why the GPU cannot be changed.
func (s *Session) partitioning(ctx context.Context, pci string, symbols []string) (*partitioning, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	for _, list := range [][]string{migSymbols, symbols} {
		if symbol := lacking(s.has, list); symbol != "" {
			return nil, fmt.Errorf("the driver's library lacks %s: %w; install a newer driver", symbol, ErrNotSupported)
		}
	}
	d, err := s.device(ctx, pci)
	if err != nil {
		return nil, err
	}
	return &partitioning{ctx: context.WithoutCancel(ctx), device: d, handle: d.nvml(), has: s.has}, nil
}

// act runs a call that changes something.
func act[T any](p *partitioning, name string, fn func() (T, nvml.Return)) (T, error) {
	return callFor(p.ctx, p.device.lane, reshapeTimeout, name, fn)
}

func ask[T any](p *partitioning, name string, fn func() (T, nvml.Return)) (T, error) {
	return call(p.ctx, p.device.lane, name, fn)
}

// CreatePartition makes a MIG device of that profile (topology.MIGProfile.ID) at
// that place on the GPU at a canonical PCI address. Errors match ErrNoCapacity if
// anything is in the way, even an instance of this very profile and place, ErrNotInMIGMode,
// ErrNotSupported, ErrUnknownGPU, ErrLost, ErrHung or ErrDriverGone. After ErrHung
// the driver may still finish what it was asked for: look at the next snapshot.
// Where nothing was made for certain, they match topology.ErrNothingMade.
func (s *Session) CreatePartition(ctx context.Context, pci string, profileID int, place topology.MIGPlacement) (topology.MIGInstance, error) {
	made, err := s.createPartition(ctx, pci, profileID, place)
	if err != nil {
		return topology.MIGInstance{}, fmt.Errorf("GPU %s: make a MIG device of profile %d on memory slices %d to %d: %w",
			pci, profileID, place.Start, place.Start+place.Size-1, err)
	}
	return made, nil
}

func (s *Session) createPartition(ctx context.Context, pci string, profileID int, place topology.MIGPlacement) (topology.MIGInstance, error) {
	p, err := s.partitioning(ctx, pci, createSymbols)
	if err != nil {
		return topology.MIGInstance{}, fmt.Errorf("%w: %w", topology.ErrNothingMade, err)
	}
	gi, err := act(p, "nvmlDeviceCreateGpuInstanceWithPlacement", func() (nvml.GpuInstance, nvml.Return) {
		return p.handle.CreateGpuInstanceWithPlacement(&nvml.GpuInstanceProfileInfo{Id: uint32(profileID)},
			&nvml.GpuInstancePlacement{Start: uint32(place.Start), Size: uint32(place.Size)})
	})
	if err != nil {
		return topology.MIGInstance{}, p.unmade(err)
	}
	made, err := p.complete(gi)
	if err == nil && (made.ProfileID != profileID || made.Placement != place) {
		err = fmt.Errorf("the driver made profile %d on memory slices %d to %d instead", made.ProfileID, made.Placement.Start, made.Placement.Start+made.Placement.Size-1)
	}
	if err != nil {
		if undo := p.clear(gi); undo != nil {
			return topology.MIGInstance{}, fmt.Errorf("%w; the GPU instance that was made for it stays behind: %w", err, undo)
		}
		return topology.MIGInstance{}, fmt.Errorf("%w: %w", topology.ErrNothingMade, err)
	}
	return made, nil
}

// unmade is a refusal to make a GPU instance. It says that nothing was made where
// that is certain: after a timeout or an unknown error the driver may have made it.
func (p *partitioning) unmade(err error) error {
	certain := errors.Is(err, ErrNotSupported)
	for _, ret := range []nvml.Return{nvml.ERROR_INSUFFICIENT_RESOURCES, nvml.ERROR_INVALID_ARGUMENT, nvml.ERROR_NO_PERMISSION, nvml.ERROR_IN_USE} {
		certain = certain || errors.Is(err, code(ret))
	}
	if err = p.refused(err); certain {
		return fmt.Errorf("%w: %w", topology.ErrNothingMade, err)
	}
	return err
}

// refused adds to a driver's refusal what an administrator can do about it.
func (p *partitioning) refused(err error) error {
	switch {
	case errors.Is(err, code(nvml.ERROR_INSUFFICIENT_RESOURCES)):
		return fmt.Errorf("%w: %w; see with `nvidia-smi mig -lgi` what is made already and destroy what nobody uses", ErrNoCapacity, err)
	case errors.Is(err, code(nvml.ERROR_INVALID_ARGUMENT)):
		return fmt.Errorf("%w; `nvidia-smi mig -lgipp` lists the GPU's profiles and where each can lie", err)
	case errors.Is(err, code(nvml.ERROR_NO_PERMISSION)):
		return fmt.Errorf("%w; the agent needs root and the capability file of MIG configuration (/proc/driver/nvidia/capabilities/mig/config)", err)
	case errors.Is(err, ErrNotSupported) && !p.inMIGMode():
		return fmt.Errorf("%w: %w; `nvidia-smi -mig 1` turns the mode on", ErrNotInMIGMode, err)
	}
	return err
}

func (p *partitioning) inMIGMode() bool {
	mode, err := ask(p, "nvmlDeviceGetMigMode", func() (int, nvml.Return) {
		current, _, ret := p.handle.GetMigMode()
		return current, ret
	})
	return err == nil && mode == nvml.DEVICE_MIG_ENABLE
}

// complete makes the compute instance that spans a GPU instance, and reads both back.
func (p *partitioning) complete(gi nvml.GpuInstance) (topology.MIGInstance, error) {
	whole, err := ask(p, "nvmlGpuInstanceGetComputeInstanceProfileInfo", func() (nvml.ComputeInstanceProfileInfo, nvml.Return) { return largest(gi) })
	if err != nil {
		return topology.MIGInstance{}, err
	}
	ci, err := act(p, "nvmlGpuInstanceCreateComputeInstance", func() (nvml.ComputeInstance, nvml.Return) { return gi.CreateComputeInstance(&whole) })
	if err != nil {
		return topology.MIGInstance{}, p.refused(err)
	}
	made, err := ask(p, "nvmlGpuInstanceGetInfo", func() (topology.MIGInstance, nvml.Return) { return instanceOf(gi) })
	if err != nil {
		return topology.MIGInstance{}, err
	}
	info, err := ask(p, "nvmlComputeInstanceGetInfo_v2", ci.GetInfo)
	if err != nil {
		return topology.MIGInstance{}, err
	}
	uuid, err := p.uuid(made.GPUInstance, int(info.Id))
	if err != nil {
		return topology.MIGInstance{}, err
	}
	made.ComputeInstances = []topology.MIGComputeInstance{{ComputeInstance: int(info.Id), UUID: uuid}}
	return made, nil
}

// largest is the compute instance profile that takes all slices of a GPU
// instance, the first if several do: the others are variants for special uses.
func largest(gi nvml.GpuInstance) (nvml.ComputeInstanceProfileInfo, nvml.Return) {
	var best nvml.ComputeInstanceProfileInfo
	for index := range nvml.COMPUTE_INSTANCE_PROFILE_COUNT {
		info, ret := gi.GetComputeInstanceProfileInfo(index, nvml.COMPUTE_INSTANCE_ENGINE_PROFILE_SHARED)
		switch {
		case ret == nvml.ERROR_NOT_SUPPORTED || ret == nvml.ERROR_INVALID_ARGUMENT:
		case ret != nvml.SUCCESS:
			return best, ret
		case info.SliceCount > best.SliceCount:
			best = info
		}
	}
	if best.SliceCount == 0 {
		return best, nvml.ERROR_NOT_SUPPORTED
	}
	return best, nvml.SUCCESS
}

// uuid looks the new MIG device up among the GPU's.
func (p *partitioning) uuid(gpuInstance, computeInstance int) (string, error) {
	r := &reading{ctx: p.ctx, device: p.device, handle: p.handle, has: p.has}
	for _, d := range r.migDevices() {
		if d.gpuInstance == gpuInstance && d.computeInstance == computeInstance && d.uuid != "" {
			return d.uuid, nil
		}
	}
	if r.first != nil {
		return "", fmt.Errorf("find the UUID of the new MIG device: %w", r.first)
	}
	return "", fmt.Errorf("the driver made GPU instance %d with compute instance %d, but lists no MIG device for it", gpuInstance, computeInstance)
}
