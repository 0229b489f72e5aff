package react

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"pgregory.net/rapid"

	"github.com/hostler-dev/hostler/health"
	"github.com/hostler-dev/hostler/topology"
)

const gpuA, gpuB, nicA = "gpu-0000-17-00-0", "gpu-0000-2a-00-0", "nic-0000-18-00-0"

var since = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func verdict(device string, family health.Family, severity health.Severity, reason string) health.Verdict {
	return health.Verdict{Device: device, Family: family, Severity: severity, Reason: reason, Message: "message of " + reason, Since: since}
}

// Health speaks of hardware. What a GPU is cut into has no faults by itself, and
// its health is derived where it is published.
func TestDevicesAreTheHardware(t *testing.T) {
	place := topology.MIGPlacement{Size: 1}
	cut := topology.GPU{Name: gpuB, MIGEnabled: true, MIG: &topology.MIG{
		Profiles:  []topology.MIGProfile{{Name: "1g.10gb", ID: 19, Placements: []topology.MIGPlacement{place}}},
		Instances: []topology.MIGInstance{{ProfileID: 19, Placement: place, GPUInstance: 7}},
	}}
	got := Devices(&topology.Snapshot{GPUs: []topology.GPU{{Name: gpuA}, cut}, NICs: []topology.NIC{{Name: nicA}}})
	if diff := cmp.Diff([]Device{{gpuA, true}, {gpuB, true}, {nicA, false}}, got); diff != "" {
		t.Errorf("devices (-want +got):\n%s", diff)
	}
}

func TestTaints(t *testing.T) {
	got := Taints([]health.Verdict{
		verdict("", health.FamilyAllGPUs, health.Fatal, "none-usable"),
		verdict("", health.FamilyDriver, health.Fatal, "failed"),
		verdict(gpuA, health.FamilyGPULost, health.Fatal, "lost"),
		verdict(gpuA, health.FamilyXID, health.NeedsReset, "48"),
		verdict(gpuB, health.FamilyXID, health.Info, "13"),
		verdict(nicA, health.FamilyLink, health.Degraded, "down"),
	}, []Device{{gpuA, true}, {gpuB, true}, {nicA, false}})
	want := []Taint{
		{gpuA, "hostler.dev/driver", "failed", resourceapi.DeviceTaintEffectNoSchedule, since},
		{gpuB, "hostler.dev/driver", "failed", resourceapi.DeviceTaintEffectNoSchedule, since},
		{gpuA, "hostler.dev/gpu-lost", "lost", resourceapi.DeviceTaintEffectNoSchedule, since},
		{gpuA, "hostler.dev/xid", "48", resourceapi.DeviceTaintEffectNoSchedule, since},
		{nicA, "hostler.dev/link", "down", resourceapi.DeviceTaintEffectNone, since},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("taints (-want +got):\n%s", diff)
	}
}

func TestTaintValueIsAlwaysAValidLabelValue(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		value := labelValue(rapid.String().Draw(t, "reason"))
		if problems := validation.IsValidLabelValue(value); len(problems) > 0 {
			t.Fatalf("%q: %s", value, strings.Join(problems, "; "))
		}
	})
}

func TestDeviceHealth(t *testing.T) {
	devices := []Device{{gpuA, true}, {gpuB, true}, {nicA, false}}
	for _, test := range []struct {
		name     string
		verdicts []health.Verdict
		want     []DeviceReport
	}{
		{"nothing stands", nil, []DeviceReport{{gpuA, Healthy, ""}, {gpuB, Healthy, ""}, {nicA, Healthy, ""}}},
		{"a fatal XID", []health.Verdict{verdict(gpuA, health.FamilyXID, health.Fatal, "79")},
			[]DeviceReport{{gpuA, Unhealthy, "message of 79"}, {gpuB, Healthy, ""}, {nicA, Healthy, ""}}},
		{"an application's XID is no news", []health.Verdict{verdict(gpuA, health.FamilyXID, health.Info, "13")},
			[]DeviceReport{{gpuA, Healthy, ""}, {gpuB, Healthy, ""}, {nicA, Healthy, ""}}},
		{"a degraded NIC works, and says so", []health.Verdict{verdict(nicA, health.FamilyLink, health.Degraded, "down")},
			[]DeviceReport{{gpuA, Healthy, ""}, {gpuB, Healthy, ""}, {nicA, Healthy, "message of down"}}},
		{"a hung GPU is unknown", []health.Verdict{verdict(gpuB, health.FamilyHung, health.NeedsReset, "hung")},
			[]DeviceReport{{gpuA, Healthy, ""}, {gpuB, Unknown, "message of hung"}, {nicA, Healthy, ""}}},
		{"known bad beats unknown", []health.Verdict{verdict(gpuB, health.FamilyHung, health.NeedsReset, "hung"), verdict(gpuB, health.FamilyXID, health.NeedsReset, "48")},
			[]DeviceReport{{gpuA, Healthy, ""}, {gpuB, Unhealthy, "message of hung; message of 48"}, {nicA, Healthy, ""}}},
		{"a dead driver leaves the GPUs unknown and the NICs alone", []health.Verdict{verdict("", health.FamilyDriver, health.Fatal, "failed")},
			[]DeviceReport{{gpuA, Unknown, "message of failed"}, {gpuB, Unknown, "message of failed"}, {nicA, Healthy, ""}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, DeviceHealth(test.verdicts, devices)); diff != "" {
				t.Errorf("health (-want +got):\n%s", diff)
			}
		})
	}
}
