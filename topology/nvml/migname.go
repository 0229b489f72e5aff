// Names of MIG profiles. The driver says "MIG 1g.5gb+me" since version 2 of its
// structure; for older ones the name is derived as nvidia-smi does. Names become
// part of device names, so only what looks like one is taken.

package nvml

import (
	"fmt"
	"math"
	"regexp"
	"strings"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
)

// profilePattern: slices, memory, and what is special about the media or graphics
// engines: "+me" has one of each, "+me.all" all, "-me" none, "+gfx" can render.
var profilePattern = regexp.MustCompile(`^[1-9][0-9]?g\.[1-9][0-9]{0,3}gb([+-][a-z0-9]+(\.[a-z0-9]+)*)*$`)

// parseProfileName takes the name out of what the driver says, "" if there is none in it.
func parseProfileName(said string) string {
	name := strings.ToLower(clean(said))
	name = strings.TrimSpace(strings.TrimPrefix(name, "mig "))
	if len(name) > 32 || !profilePattern.MatchString(name) {
		return ""
	}
	return name
}

// profileSuffixes by NVML_GPU_INSTANCE_PROFILE_* number.
var profileSuffixes = map[int]string{
	nvml.GPU_INSTANCE_PROFILE_1_SLICE_REV1: "+me", nvml.GPU_INSTANCE_PROFILE_2_SLICE_REV1: "+me",
	nvml.GPU_INSTANCE_PROFILE_1_SLICE_NO_ME: "-me", nvml.GPU_INSTANCE_PROFILE_2_SLICE_NO_ME: "-me",
	nvml.GPU_INSTANCE_PROFILE_1_SLICE_ALL_ME: "+me.all", nvml.GPU_INSTANCE_PROFILE_2_SLICE_ALL_ME: "+me.all",
	nvml.GPU_INSTANCE_PROFILE_1_SLICE_GFX: "+gfx", nvml.GPU_INSTANCE_PROFILE_2_SLICE_GFX: "+gfx",
	nvml.GPU_INSTANCE_PROFILE_3_SLICE_GFX: "+gfx", nvml.GPU_INSTANCE_PROFILE_4_SLICE_GFX: "+gfx",
}

// deriveProfileName is "<slices>g.<GB>gb" with the GPU's advertised memory in
// proportion: what the instance has, in whole eighths of the GPU, since some of both
// is reserved ("1g.18gb" of a 141 GB GPU can use 16 GiB). gpuBytes may be 0.
func deriveProfileName(index, slices int, memoryMB, gpuBytes uint64) string {
	gigabytes := math.Ceil(float64(memoryMB) / 1024)
	if gpuBytes > 0 {
		eighths := math.Ceil(8 * float64(memoryMB) * (1 << 20) / float64(gpuBytes))
		gigabytes = math.Round(eighths / 8 * math.Ceil(float64(gpuBytes)/(1<<30)))
	}
	return fmt.Sprintf("%dg.%.0fgb%s", slices, gigabytes, profileSuffixes[index])
}
