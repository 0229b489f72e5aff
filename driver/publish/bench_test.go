// What publishing costs, and what it costs the scheduler to find a GPU with its
// NIC: by a constraint over two requests, or as a pair that is already one device.

package publish

import (
	"fmt"
	"testing"

	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/klog/v2"
	"k8s.io/klog/v2/ktesting"

	"github.com/hostler-dev/hostler/test/allocator"
	"github.com/hostler-dev/hostler/topology"
)

// crowdedDGX has 16 PFs of 128 VFs besides.
func crowdedDGX() *topology.Snapshot {
	s := dgx()
	for i := range 16 {
		s.NICs = append(s.NICs, withVFs(nic(fmt.Sprintf("0001:%02x:00.0", i)), 128)...)
	}
	return s
}

func BenchmarkSchedulerFindsGPUWithNIC(b *testing.B) {
	_, ctx := ktesting.NewTestContext(b)
	ctx = klog.NewContext(ctx, klog.Logger{})
	matched := allocator.Claim("c", allocator.Request("gpu", 1), allocator.Request("nic", 1), allocator.Match(affinity))
	pair := allocator.Claim("c", allocator.Request("pair", 1))
	for _, machine := range []struct {
		name     string
		snapshot *topology.Snapshot
	}{{"8GPUs10NICs", dgx()}, {"8GPUs16x128VFs", crowdedDGX()}} {
		for _, form := range []struct {
			name      string
			claim     *resourceapi.ResourceClaim
			composite bool
		}{{"matchAttribute", matched, false}, {"matchAttributeBesidePairs", matched, true}, {"pair", pair, true}} {
			for _, taken := range []int{0, 7} {
				b.Run(fmt.Sprintf("%s/%s/%dTaken", machine.name, form.name, taken), func(b *testing.B) {
					in := Input{Features: everything, Snapshot: machine.snapshot}
					in.Publish.CompositeDevices = form.composite
					s := scheduler(in, allocator.DefaultFeatures)
					for range taken {
						if got, err := s.Allocate(ctx, form.claim); err != nil || got == nil {
							b.Fatalf("allocated %v, %v", got, err)
						}
					}
					for b.Loop() {
						if got, err := s.Find(ctx, form.claim); err != nil || got == nil {
							b.Fatalf("found %v, %v", got, err)
						}
					}
				})
			}
		}
	}
}

func BenchmarkResources(b *testing.B) {
	for name, in := range map[string]Input{
		"8GPUs10NICs": {Snapshot: dgx()}, "8GPUs16x128VFs": {Snapshot: crowdedDGX()}, "8GPUs16x128VFsAndPairs": {Snapshot: crowdedDGX(), Publish: withPairs},
	} {
		b.Run(name, func(b *testing.B) {
			in.NodeName, in.Features = node, everything
			for b.Loop() {
				Resources(in)
			}
		})
	}
}
