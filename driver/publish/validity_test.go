// Whether slices are legal, by the rules of test/conformance/legal. Every test that
// publishes something odd runs its slices through them.

package publish

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/dynamic-resource-allocation/resourceslice"
	"pgregory.net/rapid"

	"github.com/hostler-dev/hostler/test/conformance/legal"
	"github.com/hostler-dev/hostler/topology"
)

// Whatever the machine, the taints, the claims and the API server: slices are legal.
func TestSlicesAreLegal(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := drawInput(t)
		resources, shortfalls := Offer(in)
		if diff := cmp.Diff(Shortfalls(in), shortfalls); diff != "" {
			t.Fatalf("worked out together the shortfalls are other ones: %s", diff)
		}
		for pool, contents := range resources.Pools {
			if problem := poolProblem(pool, contents, in.Features); problem != "" {
				t.Fatal(problem)
			}
		}
	})
}

func TestWorstMachinesAreLegal(t *testing.T) {
	var everythingWrong []Taint
	machine := &topology.Snapshot{}
	for i := range 16 {
		var seven []topology.MIGInstance
		for start := range 7 {
			seven = append(seven, instance(19, start, 1))
		}
		machine.GPUs = append(machine.GPUs, migGPU(fmt.Sprintf("10000:%02x:00.0", i), seven...))
		machine.NICs = append(machine.NICs, withVFs(nic(fmt.Sprintf("0001:%02x:00.0", i)), 128)...)
	}
	made := map[string]bool{}
	for i := range machine.GPUs {
		for _, partition := range topology.Partitions(&machine.GPUs[i]) {
			made[partition.Name] = true
		}
		everythingWrong = append(everythingWrong, sixteenTaints(machine.GPUs[i].Name)...)
	}
	for i := range machine.NICs {
		everythingWrong = append(everythingWrong, sixteenTaints(machine.NICs[i].Name)...)
	}
	for _, test := range []struct {
		name    string
		in      Input
		devices int
	}{
		{"16 GPUs with 7 instances that this agent made, and 24 other placements each", Input{Made: made}, 16*(1+25) + 16*129},
		{"16 GPUs with 7 instances of the administrator", Input{}, 16*(1+7) + 16*129},
		{"all placements, and pairs", Input{Made: made, Publish: withPairs}, 16*(1+25) + 16*129 + 16},
	} {
		t.Run(test.name, func(t *testing.T) {
			test.in.NodeName, test.in.Features, test.in.Snapshot, test.in.Taints = node, everything, machine, everythingWrong
			devices := 0
			for pool, contents := range Resources(test.in).Pools {
				if problem := poolProblem(pool, contents, everything); problem != "" {
					t.Error(problem)
				}
				for _, slice := range contents.Slices {
					devices += len(slice.Devices)
				}
			}
			if devices != test.devices+1 {
				t.Errorf("%d devices are published, want %d", devices, test.devices+1)
			}
		})
	}
}

func sixteenTaints(device string) []Taint {
	var taints []Taint
	for i := range 16 {
		taints = append(taints, Taint{Device: device, Key: fmt.Sprintf("hostler.dev/fault-%02d", i), Effect: resourceapi.DeviceTaintEffectNoExecute})
	}
	return taints
}

// poolProblem says why an API server of those features, the plugin library or the
// scheduler would refuse the pool, "" if they would not. Beyond what they ask for, no slice
// has more devices than it may have once one of them is tainted.
func poolProblem(name string, pool resourceslice.Pool, features Features) string {
	problems := legal.Problems(name, pool, legal.Server(features))
	for i, slice := range pool.Slices {
		if n := len(slice.Devices); n > resourceapi.ResourceSliceMaxDevicesWithAdvancedFeatures {
			problems = append(problems, fmt.Sprintf("slice %d has %d devices, too many for a first taint", i, n))
		}
	}
	return strings.Join(problems, "; ")
}
