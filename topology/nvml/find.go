// Finding one MIG device. Before a partition is made or removed, what counts is
// what its GPU says now: a snapshot is too old for that by up to one poll. No
// more is asked than the answer takes, so that what else is wrong with the GPU,
// or with another one, does not keep this partition from its claim.

package nvml

import (
	"context"
	"fmt"
	"slices"

	"github.com/NVIDIA/go-nvml/pkg/nvml"

	"github.com/hostler-dev/hostler/topology"
)

// Partition reads the MIG device of that profile (topology.MIGProfile.ID) at
// exactly that place on the GPU at a canonical PCI address. It is nil if there is
// none, which is also true of a GPU outside MIG mode and of one without the
// profile. Errors match ErrNotSupported, ErrUnknownGPU, ErrLost, ErrHung or ErrDriverGone.
func (s *Session) Partition(ctx context.Context, pci string, profileID int, place topology.MIGPlacement) (*topology.MIGInstance, error) {
	p, err := s.partitioning(ctx, pci, nil)
	if err == nil {
		r := &reading{ctx: ctx, device: p.device, handle: p.handle, has: s.has}
		var found *topology.MIGInstance
		if found, err = r.partition(profileID, place); err == nil {
			return found, nil
		}
	}
	return nil, fmt.Errorf("GPU %s: look for the MIG device of profile %d on memory slices %d to %d: %w",
		pci, profileID, place.Start, place.Start+place.Size-1, err)
}

func (r *reading) partition(profileID int, place topology.MIGPlacement) (*topology.MIGInstance, error) {
	r.migMode()
	if r.first != nil || !r.gpu.MIGEnabled {
		return nil, r.first
	}
	profile, err := r.profileWith(profileID)
	if profile == nil {
		return nil, err
	}
	instances := r.instancesOf(*profile)
	at := slices.IndexFunc(instances, func(i topology.MIGInstance) bool { return i.Placement == place })
	if r.first != nil || at < 0 {
		return nil, r.first
	}
	found := instances[at]
	for _, d := range r.migDevices() {
		if d.gpuInstance == found.GPUInstance {
			found.ComputeInstances = append(found.ComputeInstances, topology.MIGComputeInstance{ComputeInstance: d.computeInstance, UUID: d.uuid})
		}
	}
	if r.first != nil {
		return nil, r.first
	}
	sortComputeInstances(found.ComputeInstances)
	return &found, nil
}

// migMode reads MIGEnabled; it stays false on a GPU that does not know the mode.
func (r *reading) migMode() {
	get(r, "nvmlDeviceGetMigMode", func() (int, nvml.Return) {
		current, _, ret := r.handle.GetMigMode()
		return current, ret
	}, func(v int) { r.gpu.MIGEnabled = v == nvml.DEVICE_MIG_ENABLE })
}

// profileWith is the GPU's profile of that ID, nil if it has none or, with an
// error, if that is not certain. What fails of other profiles does not matter.
func (r *reading) profileWith(id int) (*gpuInstanceProfile, error) {
	profiles := r.device.keptProfiles()
	complete := profiles != nil
	aside := &reading{ctx: r.ctx, device: r.device, handle: r.handle, has: r.has}
	if !complete {
		profiles, complete = aside.profiles()
	}
	at := slices.IndexFunc(profiles, func(p gpuInstanceProfile) bool { return p.ID == id })
	switch {
	case at >= 0:
		return &profiles[at], nil
	case complete:
		return nil, nil
	}
	return nil, aside.first
}
