// Recovery: the only place where a verdict goes away. What a probe measures, a
// probe disproves. What was an event (an XID, a memory error) is believed until
// the driver itself says that no action is needed, or the node has rebooted;
// and in either case a probe must pass, for as long as the hold-down asks.

package health

import (
	"slices"
	"time"
)

// isMeasured is whether each probe finds out about f anew, whatever else is
// wrong with the device: a hung GPU that answers again is not hung, also while
// one of its memory rows waits for a reset. The other families hold what was an
// event, against which only a probe without any finding speaks.
func (f *Fault) isMeasured() bool {
	switch f.Family {
	case FamilyGPULost, FamilyHung, FamilyProbe, FamilyReading, FamilyRecoveryAction:
		return true
	}
	return false
}

// disprovedBy is whether a probe that did not find f speaks against it.
func (f *Fault) disprovedBy(p ProbeResult, bootID string) bool {
	switch f.Family {
	case FamilyHung:
		return !p.Hung && !p.Silent // "it is lost" is an answer
	case FamilyGPULost, FamilyProbe, FamilyReading:
		return p.alive()
	case FamilyRecoveryAction:
		return p.alive() && (p.Action != ActionUnknown || p.Error == "")
	}
	// An event's fault. Old drivers have no recovery action (field 230 is not
	// supported); a passed probe then suffices for what was mild, and a fault
	// that asks for a reset waits for a reboot, which always resets.
	return p.Action == ActionNone || f.Severity <= Degraded || f.ofEarlierBoot(bootID)
}

func (f *Fault) ofEarlierBoot(bootID string) bool {
	return f.BootID != "" && bootID != "" && f.BootID != bootID
}

// hearGood adds to the span in which only good was heard. Good and bad news of
// one instant count as bad.
func (f *Fault) hearGood(now time.Time) {
	if !now.After(f.DirtyAt) {
		return
	}
	if f.CleanSince.IsZero() || now.Before(f.CleanSince) {
		f.CleanSince = now
	}
	f.CleanUntil = now
}

// clean adds good news about one family.
func (s *State) clean(device string, family Family, now time.Time) {
	if i, found := s.fault(device, family); found {
		s.Faults[i].hearGood(now)
	}
}

// lift removes the faults whose recovery is proven, and those of devices that a
// new boot no longer has.
func (r Rules) lift(s *State) {
	s.Faults = slices.DeleteFunc(s.Faults, func(f Fault) bool {
		if f.ofEarlierBoot(s.BootID) && f.isGPUs() && s.DriverReadyIn == s.BootID && !s.knows(f.Device) {
			return true
		}
		if f.CleanSince.IsZero() {
			return false
		}
		return f.ofEarlierBoot(s.BootID) || f.CleanUntil.Sub(f.CleanSince) >= r.RecoveryHoldDown
	})
}

func (f *Fault) isGPUs() bool { return f.Device != "" && f.Family != FamilyLink }

func (s *State) knows(device string) bool {
	return slices.ContainsFunc(s.GPUs, func(gpu KnownGPU) bool { return gpu.Device == device })
}
