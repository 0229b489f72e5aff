package claim

// The model of TestLives: what claims there are, what each holds, and what that
// makes of the machine.

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/hostler-dev/hostler/netattach"
	"github.com/hostler-dev/hostler/topology"
)

// choice is something that a claim can ask for.
type choice struct {
	device [2]string
	config string
	// units are the parts of the machine that it takes.
	units []string
	// made is the partition that is made for it, vf the VF that is set, bound the
	// PCI function that is given to user space; taken says that its place is the administrator's.
	made  *topology.MIGPlacement
	vf    string
	bound string
	taken bool
	// share is which one of the device it is, "" for the whole.
	share string
	// verbs: with it comes an RDMA device.
	verbs bool
}

func (c choice) cut() bool { return strings.Contains(c.device[1], "-mig-") }

// bypasses says of verbs and of a NIC in user space that no egress scope reaches them.
func (c choice) bypasses() bool { return c.verbs || c.bound != "" && c.device[0] == "nic" }

func (c choice) confines() bool { return c.device == onEgress() }

func choices() []choice {
	part := func(name string, place topology.MIGPlacement, taken bool) choice {
		c := choice{device: onGPU(name), made: &place, taken: taken}
		for i := range place.Size {
			c.units = append(c.units, fmt.Sprint("slice ", place.Start+i))
		}
		if place == theirs {
			c.made, c.taken = nil, false
		}
		return c
	}
	share := func(name string) choice {
		return choice{device: onNIC("nic-0000-19-00-0"), config: `NICConfig {"mode": "macvlan"}`, units: []string{"share " + name}, share: name}
	}
	shares := []string{"share a", "share b"} // of NIC 19
	return []choice{
		{device: onGPU("gpu-0000-17-00-0"), units: []string{"gpu 17"}},
		{device: onGPU("gpu-0000-27-00-0"), units: []string{"gpu 27"}},
		{device: onGPU("gpu-0000-17-00-0"), config: `GPUConfig {"mode": "vfio"}`, units: []string{"gpu 17"}, bound: "0000:17:00.0"},
		part(part1g0, topology.MIGPlacement{Size: 1}, false),
		part(part1g1, topology.MIGPlacement{Start: 1, Size: 1}, false),
		part(part2g0, topology.MIGPlacement{Size: 2}, false),
		part(part2g4, theirs, false),
		part(part1g4, topology.MIGPlacement{Start: 4, Size: 1}, true),
		{device: onNIC("nic-0000-19-00-0"), units: shares},
		{device: onNIC("nic-0000-19-00-0"), config: `NICConfig {"mode": "vfio"}`, units: shares, bound: "0000:19:00.0"},
		share("a"),
		share("b"),
		{device: onNIC("nic-0000-1d-00-0"), units: []string{"vf 0", "vf 1"}},
		{device: onNIC("nic-0000-1d-00-1"), config: vfSettings, units: []string{"vf 0"}, vf: "0000:1d:00.0/0"},
		{device: onNIC("nic-0000-1d-00-2"), units: []string{"vf 1"}},
		{device: onNIC("nic-0000-1d-00-2"), config: vfioNIC, units: []string{"vf 1"}, bound: "0000:1d:00.2"},
		{device: onNIC("nic-0000-18-00-0"), units: []string{"nic 18"}, verbs: true},
		{device: onNIC("nic-0000-1a-00-0"), units: []string{"nic 1a"}, verbs: true},
		{device: onAny(pairPlain), units: append([]string{"gpu 27"}, shares...)},
		{device: onAny(pairRDMA), units: []string{"gpu 17", "nic 18"}, verbs: true},
		{device: onEgress()},
	}
}

// fate is where a claim is between being asked for and being forgotten.
type fate int

const (
	absent fate = iota
	// whole: prepared.
	whole
	// ending: unpreparing failed. leftover: only partitions are left, under a dead driver.
	ending
	leftover
	// unsure: an agent died while it worked on the claim.
	unsure
)

// modelClaim is what the model knows of a claim.
type modelClaim struct {
	name string
	// object is the claim in the API server, nil if it is deleted. Held are the
	// devices of the allocation for which it was prepared.
	object       *resourceapi.ResourceClaim
	wanted, held []choice
	fate         fate
	// busy: a process uses the first partition that was made for it.
	busy bool
	// bare: somebody wiped the CDI directory since.
	bare bool
	// paper: the machine has rebooted since, so that all this is on paper only.
	paper bool
	// home says of an ending claim that all but its first partition is undone.
	home bool
}

func (m *modelClaim) uid() types.UID { return types.UID("uid-" + m.name) }

// holds says that others cannot have its devices.
func (m *modelClaim) holds() bool { return m.fate != absent && m.fate != unsure }

// has are the choices that the claim has by its journal entry, which alone tells of a
// claim that an agent died over.
func has(entry *Entry) []choice {
	var all []choice
	for _, device := range entry.Devices {
		for _, c := range choices() {
			if c.device[1] == device.Name && c.share == string(device.share()) && (c.bound != "") == (device.VFIO != nil) {
				all = append(all, c)
				break
			}
		}
	}
	return all
}

// units are the parts of the machine that the claim takes by its journal entry.
func units(entry *Entry) []string {
	var units []string
	for _, c := range has(entry) {
		units = append(units, c.units...)
	}
	return units
}

// excluded has the model look for another claim of one of the claim's pods that the pod
// cannot have beside it.
func (l *lives) excluded(m *modelClaim) string {
	for _, other := range l.claims {
		entry := l.agent.journal.Entry(other.uid())
		if other == m || entry == nil || !slices.ContainsFunc(entry.Pods, func(p netattach.PodReference) bool { return slices.Contains(podsOf(m.object), p) }) {
			continue
		}
		theirs := has(entry)
		for _, pair := range [][2]func(choice) bool{{choice.bypasses, choice.confines}, {choice.confines, choice.bypasses}, {isShare, isShare}} {
			if slices.ContainsFunc(m.wanted, pair[0]) && slices.ContainsFunc(theirs, pair[1]) {
				return "claim " + other.name + " of one of its pods"
			}
		}
	}
	return ""
}

// isShare: children of one NIC would have one name in a pod.
func isShare(c choice) bool { return c.share != "" }

func (m *modelClaim) has(some func(choice) bool) bool { return slices.ContainsFunc(m.held, some) }

func isMade(c choice) bool { return c.made != nil }

// expected is the hardware as all claims together leave it.
func (l *lives) expected() still {
	want := l.start
	want.VFs, want.Bindings, want.Addresses = maps.Clone(want.VFs), maps.Clone(want.Bindings), maps.Clone(want.Addresses)
	want.Instances = []topology.MIGInstance{wholeAt(14, theirs)}
	for _, m := range l.claims {
		if !m.holds() || m.paper {
			continue
		}
		first := true
		for _, c := range m.held {
			if c.made != nil && (first || m.fate != ending || !m.home) {
				want.Instances = append(want.Instances, wholeAt(profileOf(c), *c.made))
				first = false
			}
			if m.fate == leftover || m.fate == ending && m.home {
				continue
			}
			if c.vf != "" {
				want.VFs[c.vf] = overlaid(want.VFs[c.vf], netattach.VFSettings{MAC: new("02:00:5e:10:00:01"), VLAN: new(100), Trust: new(true), MaxTxRate: new(400)})
				want.Addresses["0000:1d:00.1"] = "02:00:5e:10:00:01"
			}
			if c.bound != "" {
				want.Bindings[c.bound] = "vfio-pci"
			}
		}
	}
	slices.SortFunc(want.Instances, func(a, b topology.MIGInstance) int { return a.Placement.Start - b.Placement.Start })
	return want
}

func profileOf(c choice) int {
	if c.made.Size == 2 {
		return 14
	}
	return 19
}
