// What a GPU in MIG mode is cut into, read at every poll. GPU instances are
// listed by profile; their compute instances, with the UUIDs that CUDA knows,
// are found as MIG devices. A GPU in any other mode is not asked at all.

package nvml

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/NVIDIA/go-nvml/pkg/nvml"

	"github.com/hostler-dev/hostler/topology"
)

// mig reads GPU.MIG, nil outside MIG mode.
func (r *reading) mig() {
	if r.failed != nil {
		return
	}
	if !r.gpu.MIGEnabled {
		r.gpu.MIG = nil
		r.device.keepProfiles(nil)
		return
	}
	if symbol := lacking(r.has, migSymbols); symbol != "" {
		r.gpu.MIG = nil
		r.gpu.Problems = append(r.gpu.Problems, topology.Problem{
			Subject: "MIG", Message: "the GPU is in MIG mode, but the driver's library lacks " + symbol + "; its partitions cannot be offered, install a newer driver",
		})
		return
	}
	profiles := r.device.keptProfiles()
	if profiles == nil {
		var complete bool
		if profiles, complete = r.profiles(); complete {
			r.device.keepProfiles(profiles)
		}
	}
	mig := shape(profiles)
	mig.Instances = r.instances(profiles)
	if r.failed == nil {
		r.gpu.MIG = &mig
	}
}

func (d *device) keptProfiles() []gpuInstanceProfile {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.profiles
}

func (d *device) keepProfiles(profiles []gpuInstanceProfile) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.profiles = profiles
}

// instances reads the GPU instances that exist, sorted by place.
func (r *reading) instances(profiles []gpuInstanceProfile) []topology.MIGInstance {
	var found []topology.MIGInstance
	for _, p := range profiles {
		found = append(found, r.instancesOf(p)...)
	}
	for _, d := range r.migDevices() {
		at := slices.IndexFunc(found, func(i topology.MIGInstance) bool { return i.GPUInstance == d.gpuInstance })
		if at < 0 { // of a profile that could not be read, or made a moment ago
			instance, err := call(r.ctx, r.device.lane, "nvmlDeviceGetGpuInstanceById", func() (*topology.MIGInstance, nvml.Return) { return instanceByID(r.handle, d.gpuInstance) })
			if err != nil || instance == nil {
				r.note(fmt.Sprintf("GPU instance %d", d.gpuInstance), err)
				continue
			}
			at, found = len(found), append(found, *instance)
		}
		found[at].ComputeInstances = append(found[at].ComputeInstances, topology.MIGComputeInstance{ComputeInstance: d.computeInstance, UUID: d.uuid})
	}
	for i := range found {
		sortComputeInstances(found[i].ComputeInstances)
	}
	slices.SortFunc(found, func(a, b topology.MIGInstance) int {
		return cmp.Or(cmp.Compare(a.Placement.Start, b.Placement.Start), cmp.Compare(a.GPUInstance, b.GPUInstance))
	})
	return found
}

func sortComputeInstances(list []topology.MIGComputeInstance) {
	slices.SortFunc(list, func(a, b topology.MIGComputeInstance) int { return cmp.Compare(a.ComputeInstance, b.ComputeInstance) })
}

// instancesOf lists the instances of a profile. If the driver does not say, those
// that were there last are taken to be there still: to believe their place free
// would offer it twice.
func (r *reading) instancesOf(p gpuInstanceProfile) []topology.MIGInstance {
	var found []topology.MIGInstance
	err := r.failed
	if err == nil {
		found, err = call(r.ctx, r.device.lane, "nvmlDeviceGetGpuInstances", func() ([]topology.MIGInstance, nvml.Return) {
			handles, ret := r.handle.GetGpuInstances(&nvml.GpuInstanceProfileInfo{Id: uint32(p.ID), InstanceCount: uint32(max(p.instances, 1))})
			if ret != nvml.SUCCESS {
				return nil, ret
			}
			var found []topology.MIGInstance
			for _, handle := range handles {
				switch instance, ret := instanceOf(handle); {
				case ret == nvml.SUCCESS:
					found = append(found, instance)
				case !destroyed(ret):
					return nil, ret
				}
			}
			return found, nvml.SUCCESS
		})
	}
	if err == nil {
		return found
	}
	r.note("instances of MIG profile "+p.Name, err)
	if r.gpu.MIG != nil {
		for _, last := range r.gpu.MIG.Instances {
			if last.ProfileID == p.ID {
				last.ComputeInstances = nil
				found = append(found, last)
			}
		}
	}
	return found
}

func instanceOf(handle nvml.GpuInstance) (topology.MIGInstance, nvml.Return) {
	info, ret := handle.GetInfo()
	return topology.MIGInstance{
		ProfileID: int(info.ProfileId), GPUInstance: int(info.Id),
		Placement: topology.MIGPlacement{Start: int(info.Placement.Start), Size: int(info.Placement.Size)},
	}, ret
}

// destroyed are the answers for what has gone since it was listed: others, and
// claims that are prepared at the same time, cut the GPU while it is read.
func destroyed(ret nvml.Return) bool {
	return ret == nvml.ERROR_INVALID_ARGUMENT || ret == nvml.ERROR_NOT_FOUND
}

// instanceByID is nil if the instance was destroyed.
func instanceByID(device nvml.Device, id int) (*topology.MIGInstance, nvml.Return) {
	var instance topology.MIGInstance
	handle, ret := device.GetGpuInstanceById(id)
	if ret == nvml.SUCCESS {
		instance, ret = instanceOf(handle)
	}
	if destroyed(ret) {
		return nil, nvml.SUCCESS
	}
	return &instance, ret
}

// migDevice is a compute instance as CUDA sees it.
type migDevice struct {
	handle                       nvml.Device
	gpuInstance, computeInstance int
	uuid                         string
}

// migDevices reads the GPU's MIG devices. Their indices have holes.
func (r *reading) migDevices() []migDevice {
	var found []migDevice
	get(r, "nvmlDeviceGetMaxMigDeviceCount", r.handle.GetMaxMigDeviceCount, func(most int) {
		for index := range min(most, mostProfiles) {
			get(r, "nvmlDeviceGetMigDeviceHandleByIndex", func() (*migDevice, nvml.Return) { return migDeviceAt(r.handle, index) }, func(d *migDevice) {
				if d == nil {
					return
				}
				there := true
				get(r, "nvmlDeviceGetUUID", func() (*string, nvml.Return) { return uuidOf(d.handle) }, func(uuid *string) {
					if there = uuid != nil; there {
						d.uuid = clean(*uuid)
					}
				})
				if there {
					found = append(found, *d)
				}
			})
		}
	})
	return found
}

// migDeviceAt is nil where there is none, or no longer.
func migDeviceAt(device nvml.Device, index int) (*migDevice, nvml.Return) {
	var d migDevice
	var ret nvml.Return
	if d.handle, ret = device.GetMigDeviceHandleByIndex(index); ret == nvml.SUCCESS {
		d.gpuInstance, ret = d.handle.GetGpuInstanceId()
	}
	if ret == nvml.SUCCESS {
		d.computeInstance, ret = d.handle.GetComputeInstanceId()
	}
	if destroyed(ret) {
		return nil, nvml.SUCCESS
	}
	return &d, ret
}

// uuidOf is nil if the MIG device was destroyed.
func uuidOf(device nvml.Device) (*string, nvml.Return) {
	uuid, ret := device.GetUUID()
	if destroyed(ret) {
		return nil, nvml.SUCCESS
	}
	return &uuid, ret
}
