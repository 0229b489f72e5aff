// Package health turns what is observed about the node's devices into verdicts.
//
// Many sources see the same fault differently: an XID in the driver's event
// stream, a call that answers "GPU is lost", a call that does not answer at
// all. Step, a pure function, folds every observation into one verdict per
// (device, fault family) on a severity lattice that an observation can only
// climb; a recovery rule alone lowers it. The Engine feeds Step, writes its
// state to disk before it tells anybody, and restores it at start, so that
// neither a later harmless XID nor a restart of the agent heals a GPU.
package health

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"time"
)

// Severity says what a fault means for whoever would use the device next.
// Severities are ordered: joining two observations takes the larger.
type Severity int

const (
	// None: no fault.
	None Severity = iota
	// Info: worth knowing, says nothing about the device (an application's fault, say).
	Info
	// Degraded: the device works, but less well or less surely than it should.
	Degraded
	// NeedsReset: nothing new may run there until the device was reset.
	NeedsReset
	// Fatal: the device is gone, or only a reboot or a hand can bring it back.
	Fatal
)

func (s Severity) String() string {
	names := [...]string{"None", "Info", "Degraded", "NeedsReset", "Fatal"}
	if s < None || s > Fatal {
		return fmt.Sprintf("Severity(%d)", int(s))
	}
	return names[s]
}

// MarshalJSON writes the name: persisted state is read by people.
func (s Severity) MarshalJSON() ([]byte, error) { return json.Marshal(s.String()) }

// UnmarshalJSON reads what MarshalJSON wrote and refuses anything else.
func (s *Severity) UnmarshalJSON(raw []byte) error {
	var name string
	if err := json.Unmarshal(raw, &name); err != nil {
		return fmt.Errorf("a severity is a string: %w", err)
	}
	for candidate := None; candidate <= Fatal; candidate++ {
		if candidate.String() == name {
			*s = candidate
			return nil
		}
	}
	return fmt.Errorf("%q is not a severity", name)
}

// Family groups faults that replace each other. Each family has its own taint
// key, hostler.dev/<family>, so that two faults never overwrite one another.
type Family string

const (
	// FamilyXID: errors that the driver's event stream reports by number.
	FamilyXID Family = "xid"
	// FamilyGPULost: the GPU fell off the bus or vanished from the driver.
	FamilyGPULost Family = "gpu-lost"
	// FamilyHung: a driver call on the GPU did not return before its deadline.
	FamilyHung Family = "hung"
	// FamilyRecoveryAction: the driver itself asks for a reset, reboot or drain
	// (NVML field 230, NVML_FI_DEV_GET_GPU_RECOVERY_ACTION).
	FamilyRecoveryAction Family = "recovery-action"
	// FamilyMemory: uncorrectable ECC errors, row remapping pending or failed.
	FamilyMemory Family = "memory"
	// FamilyProbe: the GPU answers probes with an error of no known meaning, and
	// gives no sign of life.
	FamilyProbe Family = "probe"
	// FamilyReading: the GPU lives, but something that a probe reads cannot be read.
	FamilyReading Family = "reading"
	// FamilyLink: a NIC port that was up went down.
	FamilyLink Family = "link"
	// FamilyDriver: the driver of the node died. Its verdict has no device.
	FamilyDriver Family = "driver"
	// FamilyAllGPUs: no GPU of the node is usable. Its verdict has no device.
	FamilyAllGPUs Family = "all-gpus"
)

// Verdict is the standing judgement on one device in one fault family.
type Verdict struct {
	// Device is its name in the snapshot, "" if the fault concerns the whole node.
	Device   string   `json:"device"`
	Family   Family   `json:"family"`
	Severity Severity `json:"severity"`
	// Reason is short enough for a taint's value: "79", "lost", "Reset".
	Reason string `json:"reason"`
	// Message is a sentence for an administrator.
	Message string `json:"message"`
	// Since is when the fault was first seen.
	Since time.Time `json:"since"`
	// Count of the events (XIDs, memory errors) that spoke for it, 0 if it is
	// only measured.
	Count int `json:"count"`
	// BootID of the boot that saw it last.
	BootID string `json:"bootID,omitempty"`
}

func compareVerdicts(a, b Verdict) int {
	return cmp.Or(cmp.Compare(a.Device, b.Device), cmp.Compare(a.Family, b.Family))
}

// Change says how a reaction's verdict differs from the one before.
type Change string

const (
	// Raised: there was no such verdict.
	Raised Change = "Raised"
	// Worsened: the severity rose.
	Worsened Change = "Worsened"
	// Repeated: seen again, at the same severity or below.
	Repeated Change = "Repeated"
	// Cleared: a recovery rule lifted it. The verdict is the one that was lifted.
	Cleared Change = "Cleared"
)

// Reaction is one change of a verdict that somebody may want to answer.
type Reaction struct {
	Change  Change  `json:"change"`
	Verdict Verdict `json:"verdict"`
}

// Changes lists what changed between two sorted lists of verdicts.
func Changes(before, after []Verdict) []Reaction {
	var changes []Reaction
	find := func(list []Verdict, v Verdict) (Verdict, bool) {
		i, found := slices.BinarySearchFunc(list, v, compareVerdicts)
		if !found {
			return Verdict{}, false
		}
		return list[i], true
	}
	for _, v := range after {
		old, stood := find(before, v)
		switch {
		case !stood:
			changes = append(changes, Reaction{Raised, v})
		case v.Severity > old.Severity:
			changes = append(changes, Reaction{Worsened, v})
		case v != old:
			changes = append(changes, Reaction{Repeated, v})
		}
	}
	for _, v := range before {
		if _, stands := find(after, v); !stands {
			changes = append(changes, Reaction{Cleared, v})
		}
	}
	return changes
}
