// What a GPU in MIG mode can be cut into. NVML promises that profiles do not
// change while the mode is on, so they are read once for each time that it is
// turned on; if some could not be read, again at the next poll.

package nvml

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/NVIDIA/go-nvml/pkg/nvml"

	"github.com/hostler-dev/hostler/topology"
)

// migSymbols are what reading MIG needs beside nvmlDeviceGetMigMode. Drivers
// that can do MIG at all have them, but for the first few of branch 450.
var migSymbols = []string{
	"nvmlDeviceGetGpuInstanceProfileInfo", "nvmlDeviceGetGpuInstancePossiblePlacements_v2", "nvmlDeviceGetGpuInstances",
	"nvmlDeviceGetGpuInstanceById", "nvmlGpuInstanceGetInfo", "nvmlDeviceGetMaxMigDeviceCount",
	"nvmlDeviceGetMigDeviceHandleByIndex", "nvmlDeviceGetGpuInstanceId", "nvmlDeviceGetComputeInstanceId",
}

// lacking is the first of the symbols that the library does not have, "" if it has all.
func lacking(has func(string) bool, symbols []string) string {
	for _, symbol := range symbols {
		if !has(symbol) {
			return symbol
		}
	}
	return ""
}

// gpuInstanceProfile is a profile with the number of instances of it that fit at once.
type gpuInstanceProfile struct {
	topology.MIGProfile
	instances int
}

// mostProfiles bounds the search for profiles of a driver that never says "no more".
const mostProfiles = 64

// profiles reads every profile; complete is false if one could not be read.
func (r *reading) profiles() (found []gpuInstanceProfile, complete bool) {
	complete = true
	for index := range mostProfiles {
		said, exists, err := r.profile(index)
		if r.failed != nil {
			return nil, false
		}
		if err != nil {
			complete = false
			continue
		}
		if !exists && index >= nvml.GPU_INSTANCE_PROFILE_COUNT {
			break
		}
		if !exists {
			continue
		}
		twin := slices.IndexFunc(found, func(p gpuInstanceProfile) bool { return p.Name == said.Name || p.ID == said.ID })
		if twin >= 0 {
			r.note("MIG profile "+said.Name, fmt.Errorf("profile %d is called as profile %d is, %s; the second is not offered", said.ID, found[twin].ID, said.Name))
			continue
		}
		found = append(found, said)
	}
	slices.SortFunc(found, func(a, b gpuInstanceProfile) int { return cmp.Compare(a.ID, b.ID) })
	return found, complete
}

// profile reads one profile and where it can lie. Profiles that the GPU lacks
// answer "not supported", those that the driver has not heard of "invalid argument".
func (r *reading) profile(index int) (gpuInstanceProfile, bool, error) {
	subject := fmt.Sprintf("MIG profile with NVML index %d", index)
	info, err := call(r.ctx, r.device.lane, "nvmlDeviceGetGpuInstanceProfileInfo", func() (*nvml.GpuInstanceProfileInfo_v2, nvml.Return) {
		info, ret := r.profileInfo(index)
		if ret == nvml.ERROR_INVALID_ARGUMENT || ret == nvml.ERROR_NOT_SUPPORTED {
			return nil, nvml.SUCCESS
		}
		return &info, ret
	})
	if err != nil || info == nil {
		r.note(subject, err)
		return gpuInstanceProfile{}, false, err
	}
	name := cmp.Or(parseProfileName(cString(info.Name[:])), deriveProfileName(index, int(info.SliceCount), info.MemorySizeMB, r.gpu.MemoryBytes))
	places, err := call(r.ctx, r.device.lane, "nvmlDeviceGetGpuInstancePossiblePlacements_v2", func() ([]nvml.GpuInstancePlacement, nvml.Return) {
		return r.handle.GetGpuInstancePossiblePlacements(&nvml.GpuInstanceProfileInfo{Id: info.Id})
	})
	if err != nil {
		r.note("placements of MIG profile "+name, err)
		return gpuInstanceProfile{}, false, err
	}
	p := gpuInstanceProfile{instances: int(info.InstanceCount)}
	p.MIGProfile = topology.MIGProfile{Name: name, ID: int(info.Id), Resources: resources(info)}
	for _, place := range places {
		p.Placements = append(p.Placements, topology.MIGPlacement{Start: int(place.Start), Size: int(place.Size)})
	}
	slices.SortFunc(p.Placements, func(a, b topology.MIGPlacement) int { return cmp.Compare(a.Start, b.Start) })
	return p, true, nil
}

// profileInfo asks in the youngest version of the structure that the driver
// knows: version 3 dropped a field that version 2 has, both have the name.
func (r *reading) profileInfo(index int) (nvml.GpuInstanceProfileInfo_v2, nvml.Return) {
	if r.has("nvmlDeviceGetGpuInstanceProfileInfoV") {
		third, ret := r.handle.GetGpuInstanceProfileInfoV(index).V3()
		if ret != nvml.ERROR_ARGUMENT_VERSION_MISMATCH {
			return nvml.GpuInstanceProfileInfo_v2{
				Id: third.Id, SliceCount: third.SliceCount, InstanceCount: third.InstanceCount, MultiprocessorCount: third.MultiprocessorCount,
				CopyEngineCount: third.CopyEngineCount, DecoderCount: third.DecoderCount, EncoderCount: third.EncoderCount,
				JpegCount: third.JpegCount, OfaCount: third.OfaCount, MemorySizeMB: third.MemorySizeMB, Name: third.Name,
			}, ret
		}
		if second, ret := r.handle.GetGpuInstanceProfileInfoV(index).V2(); ret != nvml.ERROR_ARGUMENT_VERSION_MISMATCH {
			return second, ret
		}
	}
	first, ret := r.handle.GetGpuInstanceProfileInfo(index)
	return nvml.GpuInstanceProfileInfo_v2{
		Id: first.Id, SliceCount: first.SliceCount, InstanceCount: first.InstanceCount, MultiprocessorCount: first.MultiprocessorCount,
		CopyEngineCount: first.CopyEngineCount, DecoderCount: first.DecoderCount, EncoderCount: first.EncoderCount,
		JpegCount: first.JpegCount, OfaCount: first.OfaCount, MemorySizeMB: first.MemorySizeMB,
	}, ret
}

func resources(info *nvml.GpuInstanceProfileInfo_v2) topology.MIGResources {
	return topology.MIGResources{
		ComputeSlices: int(info.SliceCount), Multiprocessors: int(info.MultiprocessorCount), CopyEngines: int(info.CopyEngineCount),
		Decoders: int(info.DecoderCount), Encoders: int(info.EncoderCount), JPEGEngines: int(info.JpegCount), OFAEngines: int(info.OfaCount),
		MemoryBytes: info.MemorySizeMB << 20,
	}
}

// shape is the part of topology.MIG that follows from the profiles. NVML does
// not say what the whole GPU has; it has at least what all instances of any one
// profile take together.
func shape(profiles []gpuInstanceProfile) topology.MIG {
	var mig topology.MIG
	for _, p := range profiles {
		mig.Profiles = append(mig.Profiles, p.MIGProfile)
		for _, place := range p.Placements {
			mig.MemorySlices = max(mig.MemorySlices, place.Start+place.Size)
		}
		takes, all, n := p.Resources, &mig.Capacity, max(p.instances, 1)
		all.ComputeSlices = max(all.ComputeSlices, n*takes.ComputeSlices)
		all.Multiprocessors = max(all.Multiprocessors, n*takes.Multiprocessors)
		all.CopyEngines = max(all.CopyEngines, n*takes.CopyEngines)
		all.Decoders = max(all.Decoders, n*takes.Decoders)
		all.Encoders = max(all.Encoders, n*takes.Encoders)
		all.JPEGEngines = max(all.JPEGEngines, n*takes.JPEGEngines)
		all.OFAEngines = max(all.OFAEngines, n*takes.OFAEngines)
		all.MemoryBytes = max(all.MemoryBytes, uint64(n)*takes.MemoryBytes)
	}
	return mig
}
