// The health of single devices, for the kubelet, which shows it in the status
// of the pods that hold them (KEP-4680, allocatedResourcesStatus).

package react

import (
	"strings"

	"github.com/hostler-dev/hostler/health"
	"github.com/hostler-dev/hostler/topology"
)

// Condition of a device as pods see it.
type Condition string

const (
	Healthy   Condition = "Healthy"
	Unhealthy Condition = "Unhealthy"
	// Unknown: the device does not answer, so nobody can say.
	Unknown Condition = "Unknown"
)

// Device is one that somebody wants the health of.
type Device struct {
	Name string
	// GPU: it needs the accelerator driver.
	GPU bool
}

// DeviceReport is the health of one device.
type DeviceReport struct {
	Device    string
	Condition Condition
	// Message explains anything but a plain Healthy.
	Message string
}

// Devices lists a snapshot's GPUs and NICs.
func Devices(s *topology.Snapshot) []Device {
	devices := make([]Device, 0, len(s.GPUs)+len(s.NICs))
	for _, gpu := range s.GPUs {
		devices = append(devices, Device{Name: gpu.Name, GPU: true})
	}
	for _, nic := range s.NICs {
		devices = append(devices, Device{Name: nic.Name})
	}
	return devices
}

// DeviceHealth reports every device, in the given order. A degraded device is
// Healthy with a message: it works. One that does not answer, or whose driver
// is dead, is Unknown.
func DeviceHealth(verdicts []health.Verdict, devices []Device) []DeviceReport {
	reports := make([]DeviceReport, 0, len(devices))
	for _, device := range devices {
		report := DeviceReport{Device: device.Name, Condition: Healthy}
		var messages []string
		for _, v := range verdicts {
			concerns := v.Device == device.Name || (device.GPU && v.Device == "" && v.Family == health.FamilyDriver)
			if !concerns || v.Severity <= health.Info {
				continue
			}
			messages = append(messages, v.Message)
			report.Condition = worse(report.Condition, conditionOf(v))
		}
		report.Message = strings.Join(messages, "; ")
		reports = append(reports, report)
	}
	return reports
}

func conditionOf(v health.Verdict) Condition {
	switch {
	case v.Family == health.FamilyHung, v.Family == health.FamilyProbe, v.Family == health.FamilyDriver:
		return Unknown
	case v.Severity >= health.NeedsReset:
		return Unhealthy
	default:
		return Healthy
	}
}

// worse prefers what is known to be bad to what is not known.
func worse(a, b Condition) Condition {
	rank := map[Condition]int{Healthy: 0, Unknown: 1, Unhealthy: 2}
	if rank[b] > rank[a] {
		return b
	}
	return a
}
