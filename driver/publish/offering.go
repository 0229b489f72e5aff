// The offering: every device of the node, with what it takes and by what it is
// tainted, on the shelf from which slices are cut. Devices go through one door, add,
// which leaves out what the API server cannot express.

package publish

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/utils/ptr"

	"github.com/hostler-dev/hostler/api/v1alpha1"
	"github.com/hostler-dev/hostler/topology"
)

type offering struct {
	in Input
	// snapshot is in PCI order and has the held NICs as they were.
	snapshot topology.Snapshot
	wiring   *wiring
	taints   map[string]taints

	// pf numbers the PFs, vfs counts the VFs of each.
	pf, vfs map[string]int
	// pairs are offered or in use; pairedVFs are the VFs in them by PF; joined
	// are the halves of those in use.
	pairs     []topology.Pair
	pairedVFs map[string][]string
	joined    map[string]bool
	// stranded are the devices in use that the scheduler does not see.
	stranded []stranded

	// sets are all counter sets by name; gpuSets and nicSets have them in PCI order.
	sets             map[string]counters
	gpuSets, nicSets []resourceapi.CounterSet

	// whole has GPUs that are not cut and, where pairs are offered, pairs and PFs:
	// these are tainted together. cut has a shelf for each GPU in MIG mode, virtual
	// one for the VFs of each PF: their number changes without anyone else's.
	whole, physical *shelf
	cut             []*shelf
	virtual         map[string]*shelf

	names     map[string]bool
	faults    []string
	shortages []shortage
	// curtailed is the number of devices of which a taint is left out.
	curtailed int
}

// newOffering knows the machine and has nothing on its shelves.
func newOffering(in Input) *offering {
	o := &offering{
		in: in, taints: taintsByDevice(in.Taints),
		pf: map[string]int{}, vfs: map[string]int{}, pairedVFs: map[string][]string{}, joined: map[string]bool{},
		sets: map[string]counters{}, whole: &shelf{}, physical: &shelf{}, virtual: map[string]*shelf{}, names: map[string]bool{},
	}
	if in.Publish.CompositeDevices {
		o.physical = o.whole
	}
	o.snapshot = o.settled()
	list := in.Publish.NUMANode == v1alpha1.NUMANodeList && in.Features.ListAttributes
	o.wiring = wiringOf(&o.snapshot, numa{nodes: o.snapshot.NUMANodes, list: list})
	o.wiring.resourceName = func(nic *topology.NIC) string {
		return ResourceName(in.Publish.MultusResourceNames, &o.snapshot, nic)
	}
	return o
}

func offer(in Input) *offering {
	o := newOffering(in)
	for i := range o.snapshot.NICs {
		if nic := &o.snapshot.NICs[i]; nic.Kind == topology.VF {
			o.vfs[nic.Parent]++
		} else {
			o.pf[nic.Name] = len(o.pf)
		}
	}
	o.matchPairs()
	o.findStranded()
	for i := range o.snapshot.NICs {
		o.nicSet(&o.snapshot.NICs[i])
	}
	places := make([]place, len(o.snapshot.GPUs))
	for i := range places {
		places[i] = o.place(i)
	}
	// The scheduler looks at devices in their order: pairs are there to be found fast.
	for i := range o.pairs {
		at := slices.IndexFunc(o.snapshot.GPUs, func(g topology.GPU) bool { return g.Name == o.pairs[i].GPU })
		o.addPair(&o.pairs[i], &places[at])
	}
	for i := range places {
		o.addGPU(&o.snapshot.GPUs[i], &places[i])
	}
	for i := range o.snapshot.NICs {
		o.addNIC(i)
	}
	return o
}

// settled is the snapshot in an order of its own, with NICs that pods hold, and GPUs
// that they have in user space, as they were when the pods took them, and without what cannot be named.
func (o *offering) settled() topology.Snapshot {
	var s topology.Snapshot
	if o.in.Snapshot != nil {
		s = *o.in.Snapshot
	}
	nics := make(map[string]topology.NIC, len(s.NICs)+len(o.in.Held))
	for _, nic := range s.NICs {
		nics[nic.Name] = nic
	}
	maps.Copy(nics, o.in.Held)
	s.NICs = slices.Collect(maps.Values(nics))
	slices.SortFunc(s.NICs, func(a, b topology.NIC) int {
		return cmp.Or(cmp.Compare(a.Placement.PCI, b.Placement.PCI), cmp.Compare(a.Name, b.Name))
	})
	s.GPUs = slices.DeleteFunc(slices.Clone(s.GPUs), func(g topology.GPU) bool { _, held := o.in.HeldGPUs[g.Name]; return held })
	s.GPUs = slices.AppendSeq(s.GPUs, maps.Values(o.in.HeldGPUs))
	slices.SortFunc(s.GPUs, func(a, b topology.GPU) int {
		return cmp.Or(cmp.Compare(a.Placement.PCI, b.Placement.PCI), cmp.Compare(a.Name, b.Name))
	})
	names := map[string]bool{}
	s.GPUs = slices.DeleteFunc(s.GPUs, func(g topology.GPU) bool { return !o.claimName(names, g.Name) })
	s.NICs = slices.DeleteFunc(s.NICs, func(n topology.NIC) bool { return !o.claimName(names, n.Name) })
	return s
}

// claimName reports whether the API can take a device of that name, and no other has it.
func (o *offering) claimName(taken map[string]bool, name string) bool {
	if problems := validation.IsDNS1123Label(name); len(problems) > 0 {
		o.fault(fmt.Sprintf("device %q is not published: its name is none that the API server takes (%s)", name, problems[0]))
		return false
	}
	if taken[name] {
		o.fault(fmt.Sprintf("a second device of the name %s is not published", name))
		return false
	}
	taken[name] = true
	return true
}

// inUse reports whether a claim has this very device, and not a pair with it.
func (o *offering) inUse(name string) bool {
	_, held := o.in.Held[name]
	_, used := o.in.InUse[name]
	return (used || held && !o.joined[name]) && !o.isStranded(name)
}

// place is where a GPU and all that is made of it belong.
type place struct {
	on      *shelf
	slot    int
	cutting *cutting
}

func (o *offering) place(i int) place {
	gpu := &o.snapshot.GPUs[i]
	cutting := o.cuttingOf(gpu)
	o.gpuSet(gpu, cutting)
	if !partitioned(gpu) {
		return place{on: o.whole, slot: 2 * i}
	}
	own := &shelf{}
	o.cut = append(o.cut, own)
	return place{on: own, cutting: cutting}
}

func (o *offering) addGPU(gpu *topology.GPU, at *place) {
	device := resourceapi.Device{
		Name:             gpu.Name,
		Attributes:       gpuAttributes(gpu, &o.snapshot.Driver, o.wiring),
		Capacity:         gpuCapacity(gpu),
		ConsumesCounters: o.takesAll(gpu.Name),
		Taints:           o.gpuTaints(gpu),
	}
	switch alone := o.in.Features.Counters || o.inUse(gpu.Name); {
	case o.gpuStranded(gpu):
	case !alone && partitioned(gpu):
		o.withhold(lacksCounters, "%s in MIG mode as a whole", gpuKind)
	case !alone && o.joined[gpu.Name]:
		o.withhold(lacksCounters, "%s in a pair that is in use", gpuKind)
	default:
		o.add(at.on, at.slot, gpuKind, device)
	}
	if at.cutting != nil {
		o.addPartitions(gpu, at.cutting, at.on)
	}
}

func (o *offering) addNIC(i int) {
	nic := &o.snapshot.NICs[i]
	on, slot := o.physical, 2*len(o.snapshot.GPUs)+o.pf[nic.Name]
	if nic.Kind == topology.VF {
		if o.virtual[nic.Parent] == nil {
			o.virtual[nic.Parent] = &shelf{}
		}
		on, slot = o.virtual[nic.Parent], nic.VFID
	}
	switch alone := o.in.Features.Counters || o.inUse(nic.Name); {
	case o.nicStranded(nic):
		return
	case !alone && o.vfs[nic.Name] > 0:
		o.withhold(lacksCounters, "%s with VFs", pfKind)
		return
	case !alone && nic.Kind == topology.VF && (o.inUse(nic.Parent) || o.joined[nic.Parent]):
		o.withhold(lacksCounters, "%s of a PF that is in use", vfKind)
		return
	case !alone && o.joined[nic.Name]:
		o.withhold(lacksCounters, "%s in a pair that is in use", nicKind)
		return
	}
	device := resourceapi.Device{
		Name:             nic.Name,
		Attributes:       nicAttributes(nic, o.wiring),
		Capacity:         nicCapacity(nic, o.shared(nic)),
		ConsumesCounters: o.nicTakes(nic),
		Taints:           o.nicTaints(nic),
	}
	if o.shared(nic) {
		device.AllowMultipleAllocations = ptr.To(true)
	}
	o.add(on, slot, nicKind, device)
}

// virtualFunctions are the shelves of VFs in the order of their PFs.
func (o *offering) virtualFunctions() []*shelf {
	var shelves []*shelf
	for _, pf := range slices.Sorted(maps.Keys(o.virtual)) {
		shelves = append(shelves, o.virtual[pf])
	}
	return shelves
}

// add puts a device on a shelf if the API server can express what has to be said of it.
func (o *offering) add(on *shelf, slot int, kind kind, device resourceapi.Device) {
	if !o.in.Features.Taints {
		if taint := taints(device.Taints).forbidding(); taint != nil && !o.inUse(device.Name) {
			o.withhold(lacksTaints, reasonOf(taint.Key), kind)
			return
		}
		device.Taints = nil
	}
	if few := taints(device.Taints).few(); o.in.Features.FewTaints && len(few) < len(device.Taints) {
		device.Taints = few
		o.curtailed++
	}
	if o.claimName(o.names, device.Name) {
		on.put(slot, device)
	}
}
