// Pairs: a GPU and its nearest NIC as one device, for which the scheduler does
// not have to search. A pair takes all that its halves take, so that it can
// only be given away while both are free.

package publish

import (
	"cmp"
	"slices"

	resourceapi "k8s.io/api/resource/v1"

	"github.com/hostler-dev/hostler/topology"
)

// maxPairedVFs leaves room for the functions in the counter set of a PF.
const maxPairedVFs = resourceapi.ResourceSliceMaxCountersPerCounterSet - 1

// matchPairs finds the pairs to publish: those in use first, of which the graph may
// think otherwise by now.
func (o *offering) matchPairs() {
	if !o.in.Publish.CompositeDevices {
		return
	}
	matched := topology.Pairs(&o.snapshot)
	for _, pair := range append(o.formerPairs(matched), matched...) {
		switch _, used := o.in.InUse[pair.Name]; {
		case used:
			o.joined[pair.GPU], o.joined[pair.NIC] = true, true
		case !o.in.Features.Counters:
			o.withhold(lacksCounters, "%s", pairKind)
			continue
		}
		if nic := o.snapshot.NIC(pair.NIC); nic.Kind == topology.VF {
			if len(o.pairedVFs[nic.Parent]) == maxPairedVFs {
				o.fault("pair " + pair.Name + " is not published: as many pairs share the PF of its NIC as the API server can count")
				continue
			}
			o.pairedVFs[nic.Parent] = append(o.pairedVFs[nic.Parent], nic.Name)
		}
		o.pairs = append(o.pairs, pair)
	}
	slices.SortStableFunc(o.pairs, func(a, b topology.Pair) int { return cmp.Compare(a.Name, b.Name) })
}

// formerPairs are in use but not matched any more, for instance because VFs were made since.
func (o *offering) formerPairs(matched []topology.Pair) []topology.Pair {
	var former []topology.Pair
	for name, use := range o.in.InUse {
		isMatched := slices.ContainsFunc(matched, func(p topology.Pair) bool { return p.Name == name })
		if !use.pair() || isMatched || o.snapshot.GPU(use.GPU) == nil || o.snapshot.NIC(use.NIC) == nil {
			continue
		}
		distance := topology.Distance(&o.snapshot, use.GPU, use.NIC).Class
		former = append(former, topology.Pair{Name: name, GPU: use.GPU, NIC: use.NIC, Distance: distance})
	}
	slices.SortFunc(former, func(a, b topology.Pair) int { return cmp.Compare(a.Name, b.Name) })
	return former
}

// addPair puts the pair beside its GPU, with which it is tainted.
func (o *offering) addPair(pair *topology.Pair, at *place) {
	gpu, nic := o.snapshot.GPU(pair.GPU), o.snapshot.NIC(pair.NIC)
	if _, used := o.in.InUse[pair.Name]; !used && (o.gpuStranded(gpu) || o.nicStranded(nic)) {
		return
	}
	o.add(at.on, at.slot+1, pairKind, resourceapi.Device{
		Name:             pair.Name,
		Attributes:       pairAttributes(pair, gpu, nic, &o.snapshot.Driver, o.wiring),
		Capacity:         pairCapacity(gpu, nic),
		ConsumesCounters: append(o.takesAll(gpu.Name), o.nicTakes(nic)...),
		Taints:           together(o.gpuTaints(gpu), o.nicTaints(nic), o.taints[pair.Name]),
	})
}
