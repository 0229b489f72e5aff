// Partitions: the MIG devices that a GPU is cut into, and those that it could be
// cut into. Both kinds are named by profile and placement, so that a partition
// keeps its name while it is made, used and removed.

package topology

import "strings"

// MIG is how a GPU in MIG mode (Multi-Instance GPU) can be cut, and how it is.
type MIG struct {
	// Capacity of the whole GPU, in what its profiles take of it.
	Capacity MIGResources `json:"capacity"`
	// MemorySlices is the number of memory slices that placements count in: 8, or 4 on small GPUs.
	MemorySlices int `json:"memorySlices"`
	// Profiles that the GPU offers, sorted by ID.
	Profiles []MIGProfile `json:"profiles,omitempty"`
	// Instances are the GPU instances that exist, sorted by placement.
	Instances []MIGInstance `json:"instances,omitempty"`
}

// MIGResources is what a partition takes of its GPU.
type MIGResources struct {
	// ComputeSlices is the "3" of 3g.40gb.
	ComputeSlices   int    `json:"computeSlices"`
	Multiprocessors int    `json:"multiprocessors"`
	CopyEngines     int    `json:"copyEngines"`
	Decoders        int    `json:"decoders"`
	Encoders        int    `json:"encoders"`
	JPEGEngines     int    `json:"jpegEngines"`
	OFAEngines      int    `json:"ofaEngines"`
	MemoryBytes     uint64 `json:"memoryBytes"`
}

// MIGProfile is a kind of GPU instance.
type MIGProfile struct {
	// Name as nvidia-smi shows it, "1g.10gb+me".
	Name string `json:"name"`
	// ID is NVML's number of the profile on this GPU model (nvmlGpuInstanceProfileInfo_t.id).
	ID         int            `json:"id"`
	Resources  MIGResources   `json:"resources"`
	Placements []MIGPlacement `json:"placements,omitempty"`
}

// MIGPlacement is a run of memory slices.
type MIGPlacement struct {
	Start int `json:"start"`
	Size  int `json:"size"`
}

// Overlaps reports whether two placements share a memory slice.
func (p MIGPlacement) Overlaps(q MIGPlacement) bool {
	return p.Start < q.Start+q.Size && q.Start < p.Start+p.Size
}

// MIGInstance is a GPU instance that exists.
type MIGInstance struct {
	// ProfileID is the ID of its profile.
	ProfileID int          `json:"profileID"`
	Placement MIGPlacement `json:"placement"`
	// GPUInstance is NVML's number of the instance (the "gi" of an XID event).
	GPUInstance int `json:"gpuInstance"`
	// ComputeInstances that it is cut into. Only an instance with one that spans
	// it is a device that Hostler offers.
	ComputeInstances []MIGComputeInstance `json:"computeInstances,omitempty"`
}

// MIGComputeInstance is what CUDA calls a MIG device.
type MIGComputeInstance struct {
	ComputeInstance int `json:"computeInstance"`
	// UUID of the MIG device, "MIG-…".
	UUID string `json:"uuid,omitempty"`
}

// Partition is one MIG device that exists, or that could.
type Partition struct {
	// Name of the device, from GPU, profile and placement.
	Name string
	// Parent is the GPU's name.
	Parent    string
	Profile   MIGProfile
	Placement MIGPlacement
	// Instance is the GPU instance at this very place, nil if there is none.
	Instance *MIGInstance
}

// UUID of the MIG device, "" while the partition does not exist or is not whole.
func (p *Partition) UUID() string {
	if p.Instance == nil || len(p.Instance.ComputeInstances) != 1 {
		return ""
	}
	return p.Instance.ComputeInstances[0].UUID
}

// Partitions of a GPU, every profile at every placement, in the order of
// profile ID and placement; none if it is not in MIG mode. No two have one name:
// where a driver says the same of two places, only the first is a partition.
func Partitions(gpu *GPU) []Partition {
	if gpu.MIG == nil {
		return nil
	}
	var partitions []Partition
	named := map[string]bool{}
	for _, profile := range gpu.MIG.Profiles {
		for _, place := range profile.Placements {
			name := partitionName(gpu.Name, profile.Name, place.Start)
			if named[name] {
				continue
			}
			named[name] = true
			partitions = append(partitions, Partition{
				Name: name, Parent: gpu.Name,
				Profile: profile, Placement: place, Instance: gpu.MIG.instanceAt(profile.ID, place),
			})
		}
	}
	return partitions
}

func (m *MIG) instanceAt(profile int, place MIGPlacement) *MIGInstance {
	for i := range m.Instances {
		if m.Instances[i].ProfileID == profile && m.Instances[i].Placement == place {
			return &m.Instances[i]
		}
	}
	return nil
}

// Partition returns the GPU and the partition of that name, nil if the snapshot has none.
func (s *Snapshot) Partition(name string) (*GPU, *Partition) {
	for i := range s.GPUs {
		if !strings.HasPrefix(name, partitionsOf(s.GPUs[i].Name)) {
			continue
		}
		for _, partition := range Partitions(&s.GPUs[i]) {
			if partition.Name == name {
				return &s.GPUs[i], &partition
			}
		}
	}
	return nil, nil
}
