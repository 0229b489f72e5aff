// State is everything the engine remembers, as one plain value: it is cloned by
// Step, stored as JSON, and equal to itself after a restart. Faults join on the
// severity lattice here; what lifts them is in recovery.go.

package health

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// State of the judgement. The zero value is a node of which nothing is known.
type State struct {
	// BootID of the last inventory.
	BootID string `json:"bootID,omitempty"`
	// DriverReadyIn is the boot in which the driver was last seen working.
	DriverReadyIn string `json:"driverReadyIn,omitempty"`
	// GPUs that this boot has shown, sorted by name. One that is missing later is lost.
	GPUs []KnownGPU `json:"gpus,omitempty"`
	// Faults that stand, sorted by device and family.
	Faults []Fault `json:"faults,omitempty"`
	// Links that have been seen up.
	Links []LinkRecord `json:"links,omitempty"`
}

// KnownGPU is a GPU by name and address.
type KnownGPU struct {
	Device string `json:"device"`
	PCI    string `json:"pci"`
}

// Fault is a verdict with the evidence for and against it.
type Fault struct {
	Verdict
	// ReasonAt is when severity and reason were set.
	ReasonAt time.Time `json:"reasonAt"`
	// DirtyAt is when something last spoke for the fault or against the device.
	DirtyAt time.Time `json:"dirtyAt"`
	// CleanSince and CleanUntil span the time in which only good was heard.
	CleanSince time.Time `json:"cleanSince,omitzero"`
	CleanUntil time.Time `json:"cleanUntil,omitzero"`
}

func (s State) clone() State {
	s.GPUs = slices.Clone(s.GPUs)
	s.Faults = slices.Clone(s.Faults)
	s.Links = slices.Clone(s.Links)
	return s
}

func compareFaults(a, b Fault) int { return compareVerdicts(a.Verdict, b.Verdict) }

func (s *State) fault(device string, family Family) (index int, found bool) {
	return slices.BinarySearchFunc(s.Faults, Fault{Verdict: Verdict{Device: device, Family: family}}, compareFaults)
}

// raise joins a fault that was seen as an event: each sighting counts.
func (s *State) raise(v Verdict, now time.Time) { s.join(v, now, 1) }

// hold joins a fault that is seen as a level, again and again while it lasts:
// sightings of it are not counted.
func (s *State) hold(v Verdict, now time.Time) { s.join(v, now, 0) }

func (s *State) join(v Verdict, now time.Time, sightings int) {
	v.Since, v.Count, v.BootID = now, sightings, s.BootID
	index, found := s.fault(v.Device, v.Family)
	if !found {
		s.Faults = slices.Insert(s.Faults, index, Fault{Verdict: v, ReasonAt: now, DirtyAt: now})
		return
	}
	f := &s.Faults[index]
	f.DirtyAt, f.CleanSince, f.CleanUntil = now, time.Time{}, time.Time{}
	f.Count += sightings
	f.BootID = s.BootID
	// At one instant the order of arrival means nothing: the wording settles it.
	sameInstant := v.Severity == f.Severity && f.ReasonAt.Equal(now) &&
		cmp.Or(cmp.Compare(v.Reason, f.Reason), cmp.Compare(v.Message, f.Message)) < 0
	if v.Severity > f.Severity || sameInstant {
		f.Severity, f.Reason, f.Message, f.ReasonAt = v.Severity, v.Reason, v.Message, now
	}
}

// Verdicts that stand, sorted by device and family; the node's come first.
func (s State) Verdicts() []Verdict {
	verdicts := make([]Verdict, 0, len(s.Faults)+1)
	if v, stands := s.allGPUs(); stands {
		verdicts = append(verdicts, v)
	}
	for _, f := range s.Faults {
		verdicts = append(verdicts, f.Verdict)
	}
	slices.SortFunc(verdicts, compareVerdicts)
	return verdicts
}

// allGPUs derives the node's verdict from its GPUs': with every one of them
// unreachable the fault is the node's. It needs no memory of its own and goes
// when the first GPU is back.
func (s State) allGPUs() (Verdict, bool) {
	v := Verdict{
		Family: FamilyAllGPUs, Severity: Fatal, Reason: "none-usable", BootID: s.BootID,
		Message: fmt.Sprintf("none of the node's %d GPUs answers; look at the driver and at the machine's own log", len(s.GPUs)),
	}
	for _, gpu := range s.GPUs {
		since, unreachable := s.unreachableSince(gpu.Device)
		if !unreachable {
			return Verdict{}, false
		}
		if since.After(v.Since) {
			v.Since = since
		}
	}
	return v, len(s.GPUs) > 0
}

func (s State) unreachableSince(device string) (since time.Time, unreachable bool) {
	for _, family := range []Family{FamilyGPULost, FamilyHung, FamilyProbe} {
		if i, found := s.fault(device, family); found && (!unreachable || s.Faults[i].Since.Before(since)) {
			since, unreachable = s.Faults[i].Since, true
		}
	}
	return since, unreachable
}

// sameJudgement is whether two states differ in nothing but running evidence,
// which a restart may lose: it only makes the hold-down begin again.
func (s State) sameJudgement(other State) bool {
	return s.BootID == other.BootID && s.DriverReadyIn == other.DriverReadyIn &&
		slices.Equal(s.GPUs, other.GPUs) && slices.Equal(s.Links, other.Links) &&
		slices.EqualFunc(s.Faults, other.Faults, func(a, b Fault) bool { return a.Verdict == b.Verdict })
}
