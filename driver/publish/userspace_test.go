package publish

import (
	"testing"

	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"pgregory.net/rapid"

	"github.com/hostler-dev/hostler/topology"
)

// To the scheduler a GPU in user space is an allocated device like others, whether
// the snapshot has lost it, calls it lost, or does not know yet that it is away.
func TestAGPUInUserSpaceStaysAsItIs(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := Input{NodeName: node, Features: everything, Snapshot: drawMachine(t)}
		in.Publish.CompositeDevices = rapid.Bool().Draw(t, "pairs")
		before := Resources(in)
		in.HeldGPUs = map[string]topology.GPU{}
		away := *in.Snapshot
		away.GPUs = nil
		for _, gpu := range in.Snapshot.GPUs {
			if !rapid.Bool().Draw(t, "in user space") {
				away.GPUs = append(away.GPUs, gpu)
				continue
			}
			in.HeldGPUs[gpu.Name] = gpu
			switch rapid.IntRange(0, 2).Draw(t, "the snapshot") {
			case 0:
				away.GPUs = append(away.GPUs, gpu)
			case 1:
				away.GPUs = append(away.GPUs, topology.GPU{Name: gpu.Name, Lost: true, Placement: gpu.Placement})
			}
		}
		in.Snapshot = &away
		if !apiequality.Semantic.DeepEqual(before, Resources(in)) {
			t.Fatal("the slices are others")
		}
	})
}
