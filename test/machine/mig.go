// MIG: what a GPU model can be cut into, what a GPU is cut into, and the lines
// in which the simulator takes both (test/nvmlsim/README.md, MIG).

package machine

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
)

// MIGProfile is a kind of GPU instance, as `nvidia-smi mig -lgip` and `-lgipp` list it.
type MIGProfile struct {
	// Index is the number of NVML_GPU_INSTANCE_PROFILE_*, ID the profile's number on the model.
	Index int `json:"index"`
	ID    int `json:"id"`
	// Name such as "1g.5gb+me".
	Name string `json:"name"`
	// Slices is the number of compute slices, Instances how many fit on one GPU.
	Slices          int `json:"slices"`
	Instances       int `json:"instances"`
	Multiprocessors int `json:"multiprocessors"`
	CopyEngines     int `json:"copyEngines,omitempty"`
	Decoders        int `json:"decoders,omitempty"`
	Encoders        int `json:"encoders,omitempty"`
	JPEGEngines     int `json:"jpegEngines,omitempty"`
	OFAEngines      int `json:"ofaEngines,omitempty"`
	MemoryMiB       int `json:"memoryMiB"`
	// Size in memory slices, and the slices at which it can start.
	Size   int   `json:"size"`
	Starts []int `json:"starts"`
}

// GPUMIG is a GPU in MIG mode.
type GPUMIG struct {
	Instances []MIGInstance `json:"instances,omitempty"`
}

// MIGInstance is a GPU instance that exists from the beginning.
type MIGInstance struct {
	// Profile is the name of its profile, Start its first memory slice.
	Profile string `json:"profile"`
	Start   int    `json:"start"`
	// ComputeSlices of each compute instance in it; none means one that spans it.
	ComputeSlices []int `json:"computeSlices,omitempty"`
}

// migMemorySlices of the GPUs that placements count on here; small GPUs have 4.
const migMemorySlices = 8

// computeProfiles are NVML_COMPUTE_INSTANCE_PROFILE_* by compute slices.
var computeProfiles = map[int]int{1: 0, 2: 1, 3: 2, 4: 3, 7: 4}

func (m *GPUModel) migProfile(name string) *MIGProfile {
	i := slices.IndexFunc(m.MIGProfiles, func(p MIGProfile) bool { return p.Name == name })
	if i < 0 {
		return nil
	}
	return &m.MIGProfiles[i]
}

// gpuInstance is the number that drivers give an instance: the node of the
// binary tree over the memory slices, 0 the whole, 1 and 2 the halves, and so on.
func gpuInstance(profile *MIGProfile, start int) int {
	return migMemorySlices/profile.Size - 1 + start/profile.Size
}

func (m *GPUModel) migProfileLines() string {
	var b strings.Builder
	for _, p := range m.MIGProfiles {
		places := make([]string, len(p.Starts))
		for i, start := range p.Starts {
			places[i] = fmt.Sprintf("%d:%d", start, p.Size)
		}
		fmt.Fprintf(&b, "%d %d %s %d %d %d %d %d %d %d %d %d %s\n", p.Index, p.ID, p.Name, p.Slices, p.Instances, p.Multiprocessors,
			p.CopyEngines, p.Decoders, p.Encoders, p.JPEGEngines, p.OFAEngines, p.MemoryMiB, strings.Join(places, ","))
	}
	return b.String()
}

func (p *Profile) migInstanceLines(nodeIndex int, g GPU) string {
	var b strings.Builder
	for _, instance := range g.MIG.Instances {
		profile := p.GPUModel.migProfile(instance.Profile)
		number := gpuInstance(profile, instance.Start)
		fmt.Fprintf(&b, "%d %d %d:%d", number, profile.ID, instance.Start, profile.Size)
		parts := instance.ComputeSlices
		if len(parts) == 0 {
			parts = []int{profile.Slices}
		}
		start := 0
		for i, part := range parts {
			fmt.Fprintf(&b, " %d/%d/%d:%d/%s", i, computeProfiles[part], start, part, p.MIGUUID(nodeIndex, g.PCI, number, i))
			start += part
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// MIGUUID is the UUID of a compute instance that exists from the beginning, in
// the GPU instance of that number on the GPU at that address.
func (p *Profile) MIGUUID(nodeIndex int, pci string, gpuInstance, computeInstance int) string {
	h := sha256.Sum256(fmt.Appendf(nil, "%s/%d/%s/%d/%d", p.Name, nodeIndex, pci, gpuInstance, computeInstance))
	// Version 5, variant 1, as NVIDIA's MIG UUIDs look.
	h[6], h[8] = h[6]&0x0f|0x50, h[8]&0x3f|0x80
	return fmt.Sprintf("MIG-%x-%x-%x-%x-%x", h[0:4], h[4:6], h[6:8], h[8:10], h[10:16])
}

// migCapabilities is the number of MIG devices nodes per GPU: the GPU instance
// and up to 8 compute instances of each of 15 GPU instances. The driver numbers
// them gpu by gpu from 3 on; 1 and 2 are config and monitor.
const migCapabilities, firstMIGCapability = 15 * 9, 3

// migMinors is the driver's list of which /dev/nvidia-caps/nvidia-cap<N> lets a
// process use which instance.
func migMinors(p *Profile) string {
	var b strings.Builder
	b.WriteString("config 1\nmonitor 2\n")
	for _, g := range p.GPUs {
		number := firstMIGCapability + g.Minor*migCapabilities
		for instance := range 15 {
			fmt.Fprintf(&b, "gpu%d/gi%d/access %d\n", g.Minor, instance, number)
			for compute := range 8 {
				fmt.Fprintf(&b, "gpu%d/gi%d/ci%d/access %d\n", g.Minor, instance, compute, number+1+compute)
			}
			number += 9
		}
	}
	return b.String()
}

func (v *validation) mig(p *Profile) {
	for i, profile := range p.GPUModel.MIGProfiles {
		owner := fmt.Sprintf("gpuModel.migProfiles[%d]", i)
		v.once("MIG profile ", profile.Name, owner)
		v.once("MIG profile ID ", fmt.Sprint(profile.ID), owner)
		if strings.ContainsAny(profile.Name, " \t\n#") || profile.Name == "" {
			v.add("%s: %q is not a profile name", owner, profile.Name)
		}
		if _, ok := computeProfiles[profile.Slices]; !ok {
			v.add("%s: %d compute slices; profiles have 1, 2, 3, 4 or 7", owner, profile.Slices)
		}
		if !slices.Contains([]int{1, 2, 4, 8}, profile.Size) {
			v.add("%s: size %d is not 1, 2, 4 or 8 memory slices", owner, profile.Size)
			continue
		}
		for _, start := range profile.Starts {
			if start < 0 || start%profile.Size != 0 || start+profile.Size > migMemorySlices {
				v.add("%s: start %d is not a multiple of its size within %d memory slices", owner, start, migMemorySlices)
			}
		}
	}
	for i, g := range p.GPUs {
		if g.MIG == nil {
			continue
		}
		if !p.GPUModel.MIGCapable || len(p.GPUModel.MIGProfiles) == 0 {
			v.add("gpus[%d]: is in MIG mode, but the model is not migCapable or has no migProfiles", i)
		}
		var taken [migMemorySlices]bool
		for j, instance := range g.MIG.Instances {
			v.migInstance(fmt.Sprintf("gpus[%d].mig.instances[%d]", i, j), &p.GPUModel, instance, &taken)
		}
	}
}

func (v *validation) migInstance(owner string, model *GPUModel, instance MIGInstance, taken *[migMemorySlices]bool) {
	profile := model.migProfile(instance.Profile)
	if profile == nil || !slices.Contains(profile.Starts, instance.Start) {
		v.add("%s: the model has no profile %q that starts at memory slice %d", owner, instance.Profile, instance.Start)
		return
	}
	for slice := max(0, instance.Start); slice < min(migMemorySlices, instance.Start+profile.Size); slice++ {
		if taken[slice] {
			v.add("%s: memory slice %d is taken", owner, slice)
		}
		taken[slice] = true
	}
	sum := 0
	for _, part := range instance.ComputeSlices {
		if _, ok := computeProfiles[part]; !ok {
			v.add("%s: a compute instance of %d slices does not exist", owner, part)
		}
		sum += part
	}
	if sum > profile.Slices || len(instance.ComputeSlices) > 8 {
		v.add("%s: compute instances of %d slices in a profile of %d", owner, sum, profile.Slices)
	}
}
