// Counters: what devices have in common, so that the scheduler gives it away
// once. A set stands for one physical device and is named after it: a GPU in MIG
// mode by what its partitions divide, a PF by its functions, any other by itself.

package publish

import (
	"fmt"
	"math"

	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/hostler-dev/hostler/topology"
)

type counters map[string]resourceapi.Counter

const (
	// wholeCounter is all there is of a device that cannot be divided.
	wholeCounter = "device"
	// functionsCounter is the number of VFs that a PF can have.
	functionsCounter = "functions"
)

func (list amounts) counters() counters {
	all := counters{}
	for _, a := range list {
		if a.known() {
			all[a.name] = resourceapi.Counter{Value: a.quantity()}
		}
	}
	return all
}

// migCounters are what a partition takes apart from its memory slices. Compute
// slices need no counter: no layout of memory slices allows too many of them.
func migCounters(r *topology.MIGResources) amounts {
	return amounts{
		{"multiprocessors", uint64(r.Multiprocessors), resource.DecimalSI},
		{"copy-engines", uint64(r.CopyEngines), resource.DecimalSI},
		{"decoders", uint64(r.Decoders), resource.DecimalSI},
		{"encoders", uint64(r.Encoders), resource.DecimalSI},
		{"jpeg-engines", uint64(r.JPEGEngines), resource.DecimalSI},
		{"ofa-engines", uint64(r.OFAEngines), resource.DecimalSI},
		{"memory", r.MemoryBytes, resource.BinarySI},
	}
}

func memorySlices(place topology.MIGPlacement) amounts {
	var list amounts
	for i := range place.Size {
		list = append(list, amount{fmt.Sprintf("memory-slice-%d", place.Start+i), 1, resource.DecimalSI})
	}
	return list
}

// gpuSet publishes what there is of a GPU, if it has partitions or may be half of a pair.
func (o *offering) gpuSet(gpu *topology.GPU, cutting *cutting) {
	var all amounts
	switch {
	case cutting != nil:
		all = append(memorySlices(topology.MIGPlacement{Size: gpu.MIG.MemorySlices}), cutting.free...)
	case o.in.Publish.CompositeDevices:
		all = amounts{{wholeCounter, 1, resource.DecimalSI}}
	}
	o.gpuSets = o.addSet(o.gpuSets, gpu.Name, all)
}

// nicSet publishes what there is of a PF, if it can have VFs or may be half of a
// pair. The counter is TotalVFs, whatever number of them there is today: a change of
// that number changes nothing here. A VF that is also half of a pair has a
// counter of its own, because otherwise VF and pair could both be given away.
func (o *offering) nicSet(nic *topology.NIC) {
	_, ofPF := o.pf[nic.Parent]
	functions := min(max(nic.TotalVFs, nic.NumVFs, o.vfs[nic.Name]), math.MaxInt32)
	var all amounts
	switch {
	case nic.Kind == topology.VF && ofPF:
		return // takes its PF's
	case nic.Kind != topology.VF && functions > 0:
		all = amounts{{functionsCounter, uint64(functions), resource.DecimalSI}}
		for _, vf := range o.pairedVFs[nic.Name] {
			all = append(all, amount{vf, 1, resource.DecimalSI})
		}
	case o.in.Publish.CompositeDevices:
		all = amounts{{wholeCounter, 1, resource.DecimalSI}}
	}
	o.nicSets = o.addSet(o.nicSets, nic.Name, all)
}

func (o *offering) addSet(to []resourceapi.CounterSet, name string, all amounts) []resourceapi.CounterSet {
	set := all.counters()
	if !o.in.Features.Counters || len(set) == 0 {
		return to
	}
	o.sets[name] = set
	return append(to, resourceapi.CounterSet{Name: name, Counters: set})
}

// takes is the part of a set that a device takes: what it wants and the set has.
// A pool in which one device takes what no set has is invalid as a whole.
func (o *offering) takes(set string, wants counters) []resourceapi.DeviceCounterConsumption {
	taken := counters{}
	for name, counter := range wants {
		if _, ok := o.sets[set][name]; ok {
			taken[name] = counter
		}
	}
	if len(taken) == 0 {
		return nil
	}
	return []resourceapi.DeviceCounterConsumption{{CounterSet: set, Counters: taken}}
}

// takesAll is what a whole device takes.
func (o *offering) takesAll(set string) []resourceapi.DeviceCounterConsumption {
	return o.takes(set, o.sets[set])
}

func (o *offering) nicTakes(nic *topology.NIC) []resourceapi.DeviceCounterConsumption {
	if _, ofPF := o.pf[nic.Parent]; nic.Kind != topology.VF || !ofPF {
		return o.takesAll(nic.Name)
	}
	one := amounts{{functionsCounter, 1, resource.DecimalSI}, {nic.Name, 1, resource.DecimalSI}}
	return o.takes(nic.Parent, one.counters())
}
