// Safety: no piece of hardware can be given away twice, whatever the API server
// has, and what claims hold never leaves the slices. This knows hardware, and
// nothing of how devices are published.

package publish

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	resourceapi "k8s.io/api/resource/v1"
	"pgregory.net/rapid"

	"github.com/hostler-dev/hostler/api/v1alpha1"
	"github.com/hostler-dev/hostler/topology"
)

func TestNothingCanBeGivenAwayTwice(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in, hardware := drawClaims(t)
		resources := Resources(in)
		var devices []*resourceapi.Device
		sets := map[string]counters{}
		for _, pool := range resources.Pools {
			for _, slice := range pool.Slices {
				for i := range slice.Devices {
					devices = append(devices, &slice.Devices[i])
				}
				for _, set := range slice.SharedCounters {
					sets[set.Name] = set.Counters
				}
			}
		}
		for i, a := range devices {
			for _, b := range devices[:i] {
				if overlap(hardware[a.Name], hardware[b.Name]) && !exclude(sets, a, b) {
					t.Fatalf("%s and %s share hardware and can both be allocated: %v, %v", a.Name, b.Name, a.ConsumesCounters, b.ConsumesCounters)
				}
			}
		}
		for name, use := range in.InUse {
			if counts := slices.Contains(names(resources, use.Pool, name), name); counts {
				continue
			}
			if use.Pool == poolNow(in, &use) && (use.GPU == "" || in.Snapshot.GPU(use.GPU) != nil) {
				t.Fatalf("%s is in use and not published", name)
			}
			for _, d := range devices {
				if overlap(hardware[name], hardware[d.Name]) {
					t.Fatalf("%s is in use from pool %s, which the scheduler does not see, and %s is on offer", name, use.Pool, d.Name)
				}
			}
		}
	})
}

// poolNow is where a device in use belongs, "" for a pair where there are none.
func poolNow(in Input, use *Use) string {
	switch {
	case in.Publish.CompositeDevices:
		return DevicePool(node)
	case use.pair():
		return ""
	case use.GPU != "":
		return GPUPool(node)
	}
	return NICPool(node)
}

// drawClaims is a machine with partitions of an administrator and of this agent,
// some of whose devices are in use, and the pieces of hardware of all devices
// that it could offer.
func drawClaims(t *rapid.T) (Input, map[string][]string) {
	in := Input{NodeName: node, Snapshot: dgx(), Made: map[string]bool{}, InUse: map[string]Use{}, Held: map[string]topology.NIC{}, Features: everything, Publish: v1alpha1.PublishConfig{
		CompositeDevices: rapid.Bool().Draw(t, "composite"), SharedNICs: rapid.Bool().Draw(t, "shared NICs"), Partitions: v1alpha1.PartitionsAll,
	}}
	in.Features.Counters, in.Features.Taints = rapid.Bool().Draw(t, "counters"), rapid.Bool().Draw(t, "taints")
	s := in.Snapshot
	s.GPUs, s.NICs = s.GPUs[:3], s.NICs[:3]
	in.Snapshot.NICs[2].Uplink = rapid.SampledFrom([]string{"", "carries the default route"}).Draw(t, "uplink")
	if place := s.NICs[1].Placement; rapid.Bool().Draw(t, "vfs") {
		pf := nic(place.PCI)
		pf.Placement = place
		s.NICs = append(s.NICs[:1:1], append(withVFs(pf, rapid.IntRange(1, 3).Draw(t, "number")), s.NICs[2])...)
	}
	hardware := map[string][]string{}
	for i := range s.GPUs {
		if place := s.GPUs[i].Placement; i > 0 && rapid.Bool().Draw(t, "mig") {
			s.GPUs[i] = migGPU(place.PCI, rapid.SampledFrom([][]topology.MIGInstance{
				nil, {instance(9, 4, 4)}, {instance(19, 0, 1), instance(14, 2, 2)}, {instance(0, 0, 8)}, {instance(20, 3, 1)},
			}).Draw(t, "instances")...)
			s.GPUs[i].Placement = place
		}
		pieces := func(at topology.MIGPlacement) (list []string) {
			for slice := range at.Size {
				list = append(list, fmt.Sprintf("%s/%d", s.GPUs[i].Name, at.Start+slice))
			}
			return list
		}
		hardware[s.GPUs[i].Name] = pieces(topology.MIGPlacement{Size: 8})
		for _, p := range topology.Partitions(&s.GPUs[i]) {
			hardware[p.Name] = pieces(p.Placement)
			in.Made[p.Name] = p.Instance != nil && rapid.Bool().Draw(t, "made")
		}
	}
	for i := range s.NICs {
		hardware[s.NICs[i].Name] = append(hardware[s.NICs[i].Name], s.NICs[i].Name)
		if s.NICs[i].Kind == topology.VF {
			hardware[s.NICs[i].Parent] = append(hardware[s.NICs[i].Parent], s.NICs[i].Name)
		}
	}
	uses := map[string]Use{}
	for i := range s.NICs {
		uses[s.NICs[i].Name] = Use{NIC: s.NICs[i].Name}
	}
	for i := range s.GPUs {
		uses[s.GPUs[i].Name] = Use{GPU: s.GPUs[i].Name}
		for _, p := range topology.Partitions(&s.GPUs[i]) {
			uses[p.Name] = Use{GPU: s.GPUs[i].Name}
		}
		for j := range s.NICs {
			name := topology.PairName(s.GPUs[i].Placement.PCI, s.NICs[j].Placement.PCI)
			uses[name] = Use{GPU: s.GPUs[i].Name, NIC: s.NICs[j].Name}
			hardware[name] = append(append([]string{}, hardware[s.GPUs[i].Name]...), hardware[s.NICs[j].Name]...)
		}
	}
	for range rapid.IntRange(0, 4).Draw(t, "claims") {
		name := rapid.SampledFrom(slices.Sorted(maps.Keys(hardware))).Draw(t, "in use")
		use := uses[name]
		before := in
		before.Publish.CompositeDevices = use.pair() || rapid.Bool().Draw(t, "composite then")
		use.Pool = poolNow(before, &use)
		// Two claims never have the same hardware.
		taken := func(other string) bool { return overlap(hardware[name], hardware[other]) }
		if !slices.ContainsFunc(slices.Collect(maps.Keys(in.InUse)), taken) {
			in.InUse[name] = use
			if n := s.NIC(use.NIC); n != nil {
				in.Held[n.Name] = *n
			}
		}
	}
	if rapid.Bool().Draw(t, "a GPU is unplugged") {
		s.GPUs = s.GPUs[1:]
	}
	return in, hardware
}

func overlap(a, b []string) bool {
	return slices.ContainsFunc(a, func(piece string) bool { return slices.Contains(b, piece) })
}

// exclude reports whether the two together take more of a counter than there is.
func exclude(sets map[string]counters, a, b *resourceapi.Device) bool {
	for _, x := range a.ConsumesCounters {
		for _, y := range b.ConsumesCounters {
			if x.CounterSet != y.CounterSet {
				continue
			}
			for name, counter := range x.Counters {
				sum, available := counter.Value.DeepCopy(), sets[x.CounterSet][name].Value
				sum.Add(y.Counters[name].Value)
				if sum.Cmp(available) > 0 {
					return true
				}
			}
		}
	}
	return false
}
