// Destroying MIG devices. The compute instances go first, then the GPU
// instance; one that something runs on stays as it is, and one that is gone already
// is a success, so that the step can be repeated after a crash.

package nvml

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
)

// DestroyPartition removes a GPU instance and its compute instances from the GPU
// at a canonical PCI address, nil if it is gone already. Errors match
// ErrPartitionInUse, naming the processes if the driver does, or as CreatePartition's.
func (s *Session) DestroyPartition(ctx context.Context, pci string, gpuInstance int) error {
	p, err := s.partitioning(ctx, pci, destroySymbols)
	if err == nil {
		err = p.destroy(gpuInstance)
	}
	if err != nil {
		return fmt.Errorf("GPU %s: destroy GPU instance %d: %w", pci, gpuInstance, err)
	}
	return nil
}

func (p *partitioning) destroy(id int) error {
	gi, err := p.find(id)
	if err != nil || gi == nil {
		return err
	}
	// A compute instance without processes could be destroyed before one with
	// them is found; asked first, all stay.
	if users := p.users(id); users != "" {
		return fmt.Errorf("%w by %s; end them first", ErrPartitionInUse, users)
	}
	if err := p.clear(gi); err != nil {
		if left, unknown := p.find(id); left == nil && unknown == nil {
			return nil // somebody else was faster
		}
		return err
	}
	left, err := p.find(id)
	if err == nil && left != nil {
		err = errors.New("the driver says that it is done, but the GPU instance is still there")
	}
	return err
}

// find returns the GPU instance, nil if there is none, or no MIG mode to have it in.
func (p *partitioning) find(id int) (nvml.GpuInstance, error) {
	gi, err := ask(p, "nvmlDeviceGetGpuInstanceById", func() (nvml.GpuInstance, nvml.Return) { return p.handle.GetGpuInstanceById(id) })
	switch {
	case err == nil:
		return gi, nil
	case errors.Is(err, code(nvml.ERROR_NOT_FOUND)), errors.Is(err, ErrNotSupported) && !p.inMIGMode():
		return nil, nil
	}
	return nil, p.refused(err)
}

// clear destroys a GPU instance with all that is in it.
func (p *partitioning) clear(gi nvml.GpuInstance) error {
	for index := range nvml.COMPUTE_INSTANCE_PROFILE_COUNT {
		inside, err := ask(p, "nvmlGpuInstanceGetComputeInstances", func() ([]nvml.ComputeInstance, nvml.Return) { return computeInstances(gi, index) })
		if err != nil {
			return err
		}
		for _, ci := range inside {
			if _, err := act(p, "nvmlComputeInstanceDestroy", func() (struct{}, nvml.Return) { return struct{}{}, ci.Destroy() }); err != nil {
				return p.held(err)
			}
		}
	}
	_, err := act(p, "nvmlGpuInstanceDestroy", func() (struct{}, nvml.Return) { return struct{}{}, gi.Destroy() })
	return p.held(err)
}

// computeInstances of one profile; none if the GPU instance does not have the profile.
func computeInstances(gi nvml.GpuInstance, index int) ([]nvml.ComputeInstance, nvml.Return) {
	info, ret := gi.GetComputeInstanceProfileInfo(index, nvml.COMPUTE_INSTANCE_ENGINE_PROFILE_SHARED)
	if ret == nvml.SUCCESS {
		var found []nvml.ComputeInstance
		found, ret = gi.GetComputeInstances(&info)
		return found, ret
	}
	if ret == nvml.ERROR_NOT_SUPPORTED || ret == nvml.ERROR_INVALID_ARGUMENT {
		return nil, nvml.SUCCESS
	}
	return nil, ret
}

// held makes "in use" an ErrPartitionInUse.
func (p *partitioning) held(err error) error {
	if errors.Is(err, code(nvml.ERROR_IN_USE)) {
		return fmt.Errorf("%w: %w; `nvidia-smi` and `fuser -v /dev/nvidia*` on the node show by what", ErrPartitionInUse, err)
	}
	return err
}

// users names the processes that compute on a GPU instance, as far as the driver tells.
func (p *partitioning) users(id int) string {
	if !p.has("nvmlDeviceGetComputeRunningProcesses_v3") {
		return ""
	}
	running, err := ask(p, "nvmlDeviceGetComputeRunningProcesses_v3", p.handle.GetComputeRunningProcesses)
	if err != nil {
		return "" // the driver itself refuses to destroy what is in use
	}
	var users []string
	for _, process := range running {
		if process.GpuInstanceId == uint32(id) {
			users = append(users, fmt.Sprintf("process %d", process.Pid))
		}
	}
	return strings.Join(users, ", ")
}
