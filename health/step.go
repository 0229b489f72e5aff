// Step is the whole judgement: state and observation in, state and reactions
// out, no clock, no file, no call. Whoever wants to know why a GPU is tainted
// replays its observations through this function.

package health

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hostler-dev/hostler/topology"
)

// Step folds one observation, made at now, into the state.
func (r Rules) Step(state State, o Observation, now time.Time) (State, []Reaction) {
	now = now.UTC().Round(0) // as a state file gives it back
	next := state.clone()
	switch o := o.(type) {
	case XIDEvent:
		r.seeXID(&next, o, now)
	case MemoryEvent:
		next.raise(Verdict{
			Device: o.Device, Family: FamilyMemory, Severity: NeedsReset, Reason: "uncorrectable-ecc",
			Message: "the GPU reported an uncorrectable (double-bit) memory error; drain and reset it",
		}, now)
	case ProbeResult:
		seeProbe(&next, o, now)
	case Inventory:
		seeInventory(&next, o, now)
	case DriverReport:
		seeDriver(&next, o, now)
	case Ports:
		for _, port := range o {
			r.seePort(&next, port, now)
		}
	case Tick:
		r.lift(&next)
	}
	return next, Changes(state.Verdicts(), next.Verdicts())
}

func (r Rules) seeXID(s *State, e XIDEvent, now time.Time) {
	xid := LookupXID(e.Code)
	v := Verdict{
		Device: e.Device, Family: FamilyXID, Severity: xid.Class.Severity(), Reason: strconv.FormatUint(e.Code, 10),
		Message: fmt.Sprintf("the driver reported XID %d: %s (%s)", e.Code, xid.Meaning, xid.Class),
	}
	if slices.ContainsFunc(r.IgnoredXIDs, func(ignored int32) bool { return ignored >= 0 && uint64(ignored) == e.Code }) {
		v.Severity, v.Message = Info, v.Message+"; ignored by configuration"
	}
	s.raise(v, now)
}

// seeProbe holds what the probe measures, and adds to the evidence for or
// against each other fault of the device.
func seeProbe(s *State, p ProbeResult, now time.Time) {
	if p.Unasked {
		return
	}
	found := probeFaults(p)
	for _, v := range found {
		v.Device = p.Device
		s.hold(v, now)
	}
	for i := range s.Faults {
		f := &s.Faults[i]
		if f.Device != p.Device || f.Family == FamilyLink {
			continue
		}
		again := slices.ContainsFunc(found, func(v Verdict) bool { return v.Family == f.Family })
		switch {
		case f.isMeasured() && !again && f.disprovedBy(p, s.BootID),
			len(found) == 0 && f.disprovedBy(p, s.BootID):
			f.hearGood(now)
		case f.isMeasured(), len(found) > 0:
			f.DirtyAt, f.CleanSince, f.CleanUntil = now, time.Time{}, time.Time{}
		}
	}
}

// probeFaults lists what one answer says is wrong.
func probeFaults(p ProbeResult) []Verdict {
	var faults []Verdict
	add := func(family Family, severity Severity, reason, message string) {
		faults = append(faults, Verdict{Family: family, Severity: severity, Reason: reason, Message: message})
	}
	switch {
	case p.Lost:
		add(FamilyGPULost, Fatal, "lost", "the driver says that the GPU is lost (fallen off the bus); reboot the node, and have the GPU and its slot inspected if it happens again")
	case p.Hung:
		add(FamilyHung, NeedsReset, "no-answer", "a driver call on the GPU did not return before its deadline; look at the kernel log, then reset the GPU or reboot")
	case p.Silent:
		add(FamilyProbe, Degraded, "error", "probing the GPU failed: "+p.Error)
	case p.Error != "":
		add(FamilyReading, Degraded, "error", "the GPU answers, but a part of the probe failed: "+p.Error)
	}
	switch p.Action {
	case ActionReset, ActionDrainAndReset, ActionBusReset:
		add(FamilyRecoveryAction, NeedsReset, string(p.Action), "the driver asks for a reset of the GPU")
	case ActionReboot, ActionSystemReboot:
		add(FamilyRecoveryAction, Fatal, string(p.Action), "the driver asks for a reboot of the node")
	case ActionDrainP2P:
		add(FamilyRecoveryAction, Degraded, string(p.Action), "the driver asks that peer-to-peer traffic of the GPU be drained")
	case ActionRecoverIMEXDomain:
		add(FamilyRecoveryAction, Degraded, string(p.Action), "the driver asks that the IMEX domain of the NVLink network be recovered")
	}
	switch {
	case p.RemapFailed:
		add(FamilyMemory, Fatal, "remap-failed", "a failing memory row could not be replaced; the GPU needs inspection")
	case p.UncorrectedECC && p.Action == ActionNone:
		add(FamilyMemory, Degraded, "contained-ecc", "the GPU counts uncorrectable memory errors since the driver was loaded; the driver contained them and asks for nothing")
	case p.UncorrectedECC:
		add(FamilyMemory, NeedsReset, "uncorrectable-ecc", "the GPU counts uncorrectable memory errors since the driver was loaded; drain and reset it")
	case p.RemapPending:
		add(FamilyMemory, Degraded, "remap-pending", "a failing memory row is replaced at the next reset; reset the GPU when it is idle")
	}
	return faults
}

func seeInventory(s *State, o Inventory, now time.Time) {
	if s.BootID != "" && o.BootID != s.BootID {
		s.GPUs, s.Links = nil, nil
	}
	s.BootID = o.BootID
	s.GPUs = slices.DeleteFunc(s.GPUs, func(known KnownGPU) bool { return slices.Contains(o.InUserSpace, known.Device) })
	seeDriver(s, o.Driver, now)
	if o.Driver.State == topology.DriverReady {
		seeGPUs(s, o.GPUs, now)
	}
}

// seeDriver judges a driver only if it has worked before: a node whose driver
// was never installed is not broken.
func seeDriver(s *State, o DriverReport, now time.Time) {
	switch {
	case o.State != topology.DriverReady && o.Idle:
	case o.State == topology.DriverReady:
		s.DriverReadyIn = s.BootID
		s.clean("", FamilyDriver, now)
	case o.State == topology.DriverFailed && s.DriverReadyIn != "",
		o.State == topology.DriverMissing && s.DriverReadyIn == s.BootID && s.BootID != "":
		s.hold(Verdict{
			Family: FamilyDriver, Severity: Fatal, Reason: strings.ToLower(string(o.State)),
			Message: strings.TrimSuffix("the accelerator driver worked before and does not now: "+o.Message, ": "),
		}, now)
	}
}

// seeGPUs learns new GPUs and holds those lost that the driver calls lost or
// no longer lists.
func seeGPUs(s *State, present []GPUPresence, now time.Time) {
	listed := map[string]bool{}
	for _, gpu := range present {
		listed[gpu.Device] = true
		if !slices.ContainsFunc(s.GPUs, func(known KnownGPU) bool { return known.Device == gpu.Device }) {
			s.GPUs = append(s.GPUs, KnownGPU{Device: gpu.Device, PCI: gpu.PCI})
		}
		if gpu.Lost {
			lost := probeFaults(ProbeResult{Lost: true})[0]
			lost.Device = gpu.Device
			s.hold(lost, now)
		}
	}
	slices.SortFunc(s.GPUs, func(a, b KnownGPU) int { return strings.Compare(a.Device, b.Device) })
	for _, known := range s.GPUs {
		if !listed[known.Device] {
			s.hold(Verdict{
				Device: known.Device, Family: FamilyGPULost, Severity: Fatal, Reason: "vanished",
				Message: fmt.Sprintf("the driver no longer lists the GPU at %s, which this boot has shown before; look at the kernel log", known.PCI),
			}, now)
		}
	}
}
