// Package react turns verdicts into what others act on: device taints for the
// scheduler, device health for pods, Events, the condition and the taint of the
// node. What a verdict means is decided by pure functions of the whole list;
// what talks to the API server is level-triggered and only ever catches up.
package react

import (
	"regexp"
	"strings"
	"time"

	resourceapi "k8s.io/api/resource/v1"

	"github.com/hostler-dev/hostler/health"
)

// KeyPrefix of all taint keys; a fault family follows.
const KeyPrefix = "hostler.dev/"

// Taint of one device, as the slice that publishes it needs it.
type Taint struct {
	Device string
	Key    string
	Value  string
	Effect resourceapi.DeviceTaintEffect
	// TimeAdded is when the fault was first seen.
	TimeAdded time.Time
}

// Taints are the device taints of the verdicts that stand, in their order. One
// key per fault family: two faults never overwrite each other, and the scheduler
// obeys the worst. Of the node's own verdicts, a dead driver's taints every GPU
// among the devices: a pod that tolerates the node's taint must still not get one.
func Taints(verdicts []health.Verdict, devices []Device) []Taint {
	var taints []Taint
	for _, v := range verdicts {
		effect := Effect(v.Severity)
		if effect == "" {
			continue
		}
		for _, device := range concerned(v, devices) {
			taints = append(taints, Taint{
				Device: device, Key: KeyPrefix + string(v.Family), Value: labelValue(v.Reason),
				Effect: effect, TimeAdded: v.Since,
			})
		}
	}
	return taints
}

// concerned are the names of the devices that a verdict speaks of.
func concerned(v health.Verdict, devices []Device) []string {
	if v.Device != "" {
		return []string{v.Device}
	}
	var gpus []string
	for _, device := range devices {
		if device.GPU && v.Family == health.FamilyDriver {
			gpus = append(gpus, device.Name)
		}
	}
	return gpus
}

// Effect of a severity on scheduling, "" for no taint at all. Degraded is
// visible in the slice and harms nobody (effect None, KEP-5055).
func Effect(s health.Severity) resourceapi.DeviceTaintEffect {
	switch {
	case s >= health.NeedsReset:
		return resourceapi.DeviceTaintEffectNoSchedule
	case s == health.Degraded:
		return resourceapi.DeviceTaintEffectNone
	default:
		return ""
	}
}

// labelValue makes a valid label value of any reason: the API server refuses a
// slice as a whole for one bad taint value.
func labelValue(reason string) string {
	value := regexp.MustCompile(`[^A-Za-z0-9_.-]+`).ReplaceAllString(reason, "-")
	if len(value) > 63 {
		value = value[:63]
	}
	return strings.Trim(value, "-_.")
}
