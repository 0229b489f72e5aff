// What the API server checks of a slice, after pkg/apis/resource/validation of
// Kubernetes, and what the plugin library and the scheduler check of a pool, after
// resourceslice/validation.go: these are not importable. Every test that publishes
// something odd runs its slices through it.

package publish

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/dynamic-resource-allocation/resourceslice"
	"pgregory.net/rapid"

	"github.com/hostler-dev/hostler/topology"
)

// Whatever the machine, the taints, the claims and the API server: slices are legal.
func TestSlicesAreLegal(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		for pool, contents := range Resources(drawInput(t)).Pools {
			if problem := poolProblem(pool, contents); problem != "" {
				t.Fatal(problem)
			}
		}
	})
}

func TestWorstMachinesAreLegal(t *testing.T) {
	var everythingWrong []Taint
	machine := &topology.Snapshot{}
	for i := range 16 {
		var seven []topology.MIGInstance
		for start := range 7 {
			seven = append(seven, instance(19, start, 1))
		}
		machine.GPUs = append(machine.GPUs, migGPU(fmt.Sprintf("10000:%02x:00.0", i), seven...))
		machine.NICs = append(machine.NICs, withVFs(nic(fmt.Sprintf("0001:%02x:00.0", i)), 128)...)
	}
	made := map[string]bool{}
	for i := range machine.GPUs {
		for _, partition := range topology.Partitions(&machine.GPUs[i]) {
			made[partition.Name] = true
		}
		everythingWrong = append(everythingWrong, sixteenTaints(machine.GPUs[i].Name)...)
	}
	for i := range machine.NICs {
		everythingWrong = append(everythingWrong, sixteenTaints(machine.NICs[i].Name)...)
	}
	for _, test := range []struct {
		name    string
		in      Input
		devices int
	}{
		{"16 GPUs with 7 instances that this agent made, and 24 other placements each", Input{Made: made}, 16*(1+25) + 16*129},
		{"16 GPUs with 7 instances of the administrator", Input{}, 16*(1+7) + 16*129},
		{"all placements, and pairs", Input{Made: made, Publish: withPairs}, 16*(1+25) + 16*129 + 16},
	} {
		t.Run(test.name, func(t *testing.T) {
			test.in.NodeName, test.in.Features, test.in.Snapshot, test.in.Taints = node, everything, machine, everythingWrong
			devices := 0
			for pool, contents := range Resources(test.in).Pools {
				if problem := poolProblem(pool, contents); problem != "" {
					t.Error(problem)
				}
				for _, slice := range contents.Slices {
					devices += len(slice.Devices)
				}
			}
			if devices != test.devices+1 {
				t.Errorf("%d devices are published, want %d", devices, test.devices+1)
			}
		})
	}
}

func sixteenTaints(device string) []Taint {
	var taints []Taint
	for i := range 16 {
		taints = append(taints, Taint{Device: device, Key: fmt.Sprintf("hostler.dev/fault-%02d", i), Effect: resourceapi.DeviceTaintEffectNoExecute})
	}
	return taints
}

// poolProblem says why the API server, the plugin library or the scheduler would
// refuse the pool, "" if they would not.
func poolProblem(name string, pool resourceslice.Pool) string {
	for _, segment := range strings.Split(name, "/") {
		if faults := validation.IsDNS1123Subdomain(segment); len(faults) > 0 {
			return fmt.Sprintf("pool name %q: %v", name, faults)
		}
	}
	if len(pool.Slices) == 0 {
		return "pool " + name + " has no slice"
	}
	sets, devices := map[string]map[string]resourceapi.Counter{}, map[string]bool{}
	for _, slice := range pool.Slices {
		if len(slice.SharedCounters) > 0 && len(slice.Devices) > 0 || len(slice.SharedCounters) > 8 || len(slice.Devices) > 64 {
			return fmt.Sprintf("a slice has %d counter sets and %d devices", len(slice.SharedCounters), len(slice.Devices))
		}
		for _, set := range slice.SharedCounters {
			if problem := countersProblem(set.Name, set.Counters); problem != "" || sets[set.Name] != nil {
				return fmt.Sprintf("counter set %s: double or %s", set.Name, problem)
			}
			sets[set.Name] = set.Counters
		}
	}
	for _, slice := range pool.Slices {
		for i := range slice.Devices {
			d := &slice.Devices[i]
			if problem := deviceProblem(d); problem != "" || devices[d.Name] {
				return fmt.Sprintf("device %s: double or %s", d.Name, problem)
			}
			devices[d.Name] = true
			for _, taken := range d.ConsumesCounters {
				for counter := range taken.Counters {
					if _, ok := sets[taken.CounterSet][counter]; !ok {
						return fmt.Sprintf("device %s takes %s of %s, which is not there", d.Name, counter, taken.CounterSet)
					}
				}
			}
		}
	}
	return ""
}

func countersProblem(set string, counters map[string]resourceapi.Counter) string {
	if len(counters) == 0 || len(counters) > 32 || len(validation.IsDNS1123Label(set)) > 0 {
		return fmt.Sprintf("%q has %d counters", set, len(counters))
	}
	for name, counter := range counters {
		if len(validation.IsDNS1123Label(name)) > 0 || counter.Value.Sign() <= 0 {
			return fmt.Sprintf("counter %q of %v", name, counter.Value)
		}
	}
	return ""
}

var (
	semver     = regexp.MustCompile(`^(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)$`)
	identifier = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,31}$`)
)

func deviceProblem(d *resourceapi.Device) string {
	if faults := validation.IsDNS1123Label(d.Name); len(faults) > 0 {
		return fmt.Sprintf("the name: %v", faults)
	}
	if len(d.Attributes)+len(d.Capacity) > 32 || len(d.Taints) > 16 || len(d.ConsumesCounters) > 2 {
		return fmt.Sprintf("%d attributes, %d capacities, %d taints, %d counter sets", len(d.Attributes), len(d.Capacity), len(d.Taints), len(d.ConsumesCounters))
	}
	values := 0
	for name, a := range d.Attributes {
		values += max(1, len(a.IntValues))
		value := strings.TrimPrefix(text(*d, string(name)), "version ")
		if problem := nameProblem(name); problem != "" || value == "no value" || a.IntValues == nil && len(value) > 64 || a.VersionValue != nil && !semver.MatchString(value) {
			return fmt.Sprintf("attribute %s is %q (%s)", name, value, problem)
		}
	}
	for name, capacity := range d.Capacity {
		if problem := nameProblem(name); problem != "" || capacity.Value.Sign() <= 0 {
			return fmt.Sprintf("capacity %s is %v (%s)", name, capacity.Value, problem)
		}
	}
	taken := map[string]bool{}
	for _, c := range d.ConsumesCounters {
		if problem := countersProblem(c.CounterSet, c.Counters); problem != "" || taken[c.CounterSet] {
			return fmt.Sprintf("takes from %s: double or %s", c.CounterSet, problem)
		}
		taken[c.CounterSet] = true
	}
	keys := map[string]bool{}
	for _, taint := range d.Taints {
		id := taint.Key + " " + string(taint.Effect)
		if faults := append(validation.IsQualifiedName(taint.Key), validation.IsValidLabelValue(taint.Value)...); len(faults) > 0 || keys[id] {
			return fmt.Sprintf("taint %s=%q: double or %v", id, taint.Value, faults)
		}
		keys[id] = true
	}
	if values > 48 {
		return fmt.Sprintf("%d attribute values", values)
	}
	return ""
}

func nameProblem(name resourceapi.QualifiedName) string {
	domain, id, qualified := strings.Cut(string(name), "/")
	if !qualified || len(domain) > 63 || len(validation.IsDNS1123Subdomain(domain)) > 0 || !identifier.MatchString(id) {
		return "bad name"
	}
	return ""
}
