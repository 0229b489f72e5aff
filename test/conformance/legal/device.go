// What a device may say of itself: names, numbers of values, and nothing that the
// API server does not know.

package legal

import (
	"fmt"
	"regexp"
	"strings"

	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/util/validation"
)

// fewTaints is DeviceTaintsMaxLength of k8s.io/api v0.34.
const fewTaints = 4

func (r *report) device(d *resourceapi.Device) {
	what := "device " + d.Name
	r.add(what, validation.IsDNS1123Label(d.Name)...)
	if r.devices[d.Name] {
		r.add(what, "there are two")
	}
	r.devices[d.Name] = true
	if d.AllowMultipleAllocations != nil && !r.server.SharedDevices {
		r.add(what, "it may be allocated several times, which the API server drops")
	}
	r.attributes(what, d)
	r.consumption(what, d)
	r.taints(what, d.Taints)
}

func (r *report) attributes(what string, d *resourceapi.Device) {
	r.atMost(what, "attributes and capacities", len(d.Attributes)+len(d.Capacity), resourceapi.ResourceSliceMaxAttributesAndCapacitiesPerDevice)
	values := 0
	for name, attribute := range d.Attributes {
		r.name(what+", attribute "+string(name), name)
		values += r.attribute(what+", attribute "+string(name), &attribute)
	}
	r.atMost(what, "attribute values", values, resourceapi.ResourceSliceMaxAttributeValuesPerDevice)
	for name, capacity := range d.Capacity {
		r.name(what+", capacity "+string(name), name)
		if capacity.Value.Sign() <= 0 {
			r.add(what+", capacity "+string(name), fmt.Sprintf("its value is %s", capacity.Value.String()))
		}
		if capacity.RequestPolicy != nil {
			r.add(what+", capacity "+string(name), policyFaults(d, &capacity)...)
		}
	}
}

var (
	semver     = regexp.MustCompile(`^(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)$`)
	identifier = regexp.MustCompile(fmt.Sprintf(`^[A-Za-z_][A-Za-z0-9_]{0,%d}$`, resourceapi.DeviceMaxIDLength-1))
)

func (r *report) name(what string, name resourceapi.QualifiedName) {
	if r.names[name] {
		return
	}
	before := len(r.problems)
	defer func() { r.names[name] = len(r.problems) == before }()
	domain, id, qualified := strings.Cut(string(name), "/")
	if !qualified {
		r.add(what, "its name has no domain")
		return
	}
	r.add(what, validation.IsDNS1123Subdomain(domain)...)
	r.atMost(what, "characters in its domain", len(domain), resourceapi.DeviceMaxDomainLength)
	if !identifier.MatchString(id) {
		r.add(what, "its name is no C identifier of at most 32 characters")
	}
}

// attribute returns the number of its values.
func (r *report) attribute(what string, a *resourceapi.DeviceAttribute) int {
	lists := len(a.IntValues) + len(a.StringValues) + len(a.BoolValues) + len(a.VersionValues)
	single := 0
	for _, has := range []bool{a.IntValue != nil, a.BoolValue != nil, a.StringValue != nil, a.VersionValue != nil} {
		if has {
			single++
		}
	}
	if single > 1 || (single == 1) == (lists > 0) {
		r.add(what, fmt.Sprintf("it has %d single values and %d in lists", single, lists))
	}
	if lists > 0 && !r.server.ListAttributes {
		r.add(what, "it is a list, which the API server drops")
	}
	if a.StringValue != nil {
		r.atMost(what, "characters", len(*a.StringValue), resourceapi.DeviceAttributeMaxValueLength)
	}
	if a.VersionValue != nil && (!semver.MatchString(*a.VersionValue) || len(*a.VersionValue) > resourceapi.DeviceAttributeMaxValueLength) {
		r.add(what, fmt.Sprintf("%q is no semantic version", *a.VersionValue))
	}
	return max(1, lists)
}

func (r *report) consumption(what string, d *resourceapi.Device) {
	r.atMost(what, "counter sets", len(d.ConsumesCounters), resourceapi.ResourceSliceMaxDeviceCounterConsumptionsPerDevice)
	if len(d.ConsumesCounters) > 0 && !r.server.Counters {
		r.add(what, "it takes from counter sets, which the API server drops")
	}
	seen := map[string]bool{}
	for _, taken := range d.ConsumesCounters {
		r.counters(what+", taken from "+taken.CounterSet, taken.CounterSet, taken.Counters)
		if seen[taken.CounterSet] {
			r.add(what, "it takes twice from "+taken.CounterSet)
		}
		seen[taken.CounterSet] = true
		for counter := range taken.Counters {
			if _, ok := r.sets[taken.CounterSet][counter]; !ok {
				r.add(what, fmt.Sprintf("it takes %s from %s, which does not have it", counter, taken.CounterSet))
			}
		}
	}
}

func (r *report) taints(what string, taints []resourceapi.DeviceTaint) {
	limit := resourceapi.DeviceTaintsMaxLength
	if r.server.FewTaints {
		limit = fewTaints
	}
	r.atMost(what, "taints", len(taints), limit)
	if len(taints) > 0 && !r.server.Taints {
		r.add(what, "it has taints, which the API server drops")
	}
	seen := map[string]bool{}
	for _, taint := range taints {
		id := fmt.Sprintf("taint %s:%s", taint.Key, taint.Effect)
		r.add(what+", "+id, validation.IsQualifiedName(taint.Key)...)
		r.add(what+", "+id, validation.IsValidLabelValue(taint.Value)...)
		if seen[id] {
			r.add(what, "it has twice the "+id)
		}
		seen[id] = true
		if r.server.FewTaints && taint.Effect == resourceapi.DeviceTaintEffectNone {
			r.add(what, "the API server refuses the effect of "+id)
		}
	}
}
