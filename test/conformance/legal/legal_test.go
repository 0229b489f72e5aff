package legal

// A checker that finds nothing would make every machine legal: each rule is broken
// once, in a pool that is otherwise in order.

import (
	"fmt"
	"strings"
	"testing"

	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/dynamic-resource-allocation/resourceslice"
	"k8s.io/utils/ptr"
)

var everything = Server{Taints: true, Counters: true, SharedDevices: true, ListAttributes: true}

func counters(n int) map[string]resourceapi.Counter {
	all := map[string]resourceapi.Counter{}
	for i := range n {
		all[fmt.Sprintf("counter-%d", i)] = resourceapi.Counter{Value: resource.MustParse("1")}
	}
	return all
}

// pool has a counter set and a device that uses all that there is.
func pool() resourceslice.Pool {
	return resourceslice.Pool{Slices: []resourceslice.Slice{
		{SharedCounters: []resourceapi.CounterSet{{Name: "set", Counters: counters(2)}}},
		{Devices: []resourceapi.Device{{
			Name: "gpu", AllowMultipleAllocations: ptr.To(true),
			Attributes: map[resourceapi.QualifiedName]resourceapi.DeviceAttribute{
				"a.example/string": {StringValue: ptr.To("x")}, "a.example/version": {VersionValue: ptr.To("1.2.3")}, "a.example/ints": {IntValues: []int64{0, 1}},
			},
			Capacity:         map[resourceapi.QualifiedName]resourceapi.DeviceCapacity{"a.example/memory": {Value: resource.MustParse("1Gi")}},
			ConsumesCounters: []resourceapi.DeviceCounterConsumption{{CounterSet: "set", Counters: counters(1)}},
			Taints:           []resourceapi.DeviceTaint{{Key: "a.example/lost", Effect: resourceapi.DeviceTaintEffectNone}},
		}}},
	}}
}

// share has all of a device's memory, 1G, given away in parts.
func share(d *resourceapi.Device, fallback, least, step string) {
	quantity := func(text string) *resource.Quantity { return ptr.To(resource.MustParse(text)) }
	d.Capacity["a.example/memory"] = resourceapi.DeviceCapacity{Value: *quantity("1G"), RequestPolicy: &resourceapi.CapacityRequestPolicy{
		Default: quantity(fallback), ValidRange: &resourceapi.CapacityRequestPolicyRange{Min: quantity(least), Max: quantity("1G"), Step: quantity(step)},
	}}
}

func TestAPoolInOrderHasNoProblems(t *testing.T) {
	if problems := Problems("node/gpu", pool(), everything); len(problems) > 0 {
		t.Error(problems)
	}
	shared := pool()
	share(&shared.Slices[1].Devices[0], "1G", "10M", "1M")
	if problems := Problems("node/gpu", shared, everything); len(problems) > 0 {
		t.Error(problems)
	}
}

func TestEveryRuleFindsWhatBreaksIt(t *testing.T) {
	set := func(name, value string) func(*resourceapi.Device) {
		return func(d *resourceapi.Device) {
			d.Attributes[resourceapi.QualifiedName(name)] = resourceapi.DeviceAttribute{StringValue: ptr.To(value)}
		}
	}
	for _, test := range []struct {
		name   string
		change func(*resourceapi.Device)
		want   string
	}{
		{"a name with capitals", func(d *resourceapi.Device) { d.Name = "GPU" }, "RFC 1123"},
		{"33 attributes and capacities", func(d *resourceapi.Device) {
			for i := range 29 {
				set(fmt.Sprintf("a.example/a%d", i), "x")(d)
			}
		}, "33 attributes and capacities"},
		{"49 values in lists", func(d *resourceapi.Device) {
			d.Attributes["a.example/ints"] = resourceapi.DeviceAttribute{IntValues: make([]int64, 47)}
		}, "49 attribute values"},
		{"a string of 65 characters", set("a.example/string", strings.Repeat("x", 65)), "65 characters"},
		{"an attribute without domain", set("string", "x"), "no domain"},
		{"an attribute with a dash", set("a.example/a-b", "x"), "C identifier"},
		{"an attribute without value", func(d *resourceapi.Device) { d.Attributes["a.example/string"] = resourceapi.DeviceAttribute{} }, "0 single values"},
		{"a version with leading zeros", func(d *resourceapi.Device) {
			d.Attributes["a.example/version"] = resourceapi.DeviceAttribute{VersionValue: ptr.To("570.124.06")}
		}, "semantic version"},
		{"a capacity of zero", func(d *resourceapi.Device) { d.Capacity["a.example/memory"] = resourceapi.DeviceCapacity{} }, "its value is 0"},
		{"shares of a device that is not shared", func(d *resourceapi.Device) { share(d, "1G", "1M", "1M"); d.AllowMultipleAllocations = nil }, "the device is not"},
		{"shares without a default", func(d *resourceapi.Device) {
			share(d, "1G", "1M", "1M")
			d.Capacity["a.example/memory"].RequestPolicy.Default = nil
		}, "needs a minimum and a default"},
		{"a default above all there is", func(d *resourceapi.Device) { share(d, "2G", "1M", "1M") }, "the default share, 2G, is not between"},
		{"a default that is no step", func(d *resourceapi.Device) { share(d, "1G", "1M", "7M") }, "is not one of the steps of 7M"},
		{"a step beyond all there is", func(d *resourceapi.Device) { share(d, "1M", "1M", "1G") }, "is beyond all there is"},
		{"17 taints", func(d *resourceapi.Device) {
			for i := range 16 {
				d.Taints = append(d.Taints, resourceapi.DeviceTaint{Key: fmt.Sprintf("a.example/t%d", i), Effect: resourceapi.DeviceTaintEffectNoSchedule})
			}
		}, "17 taints"},
		{"a taint twice", func(d *resourceapi.Device) { d.Taints = append(d.Taints, d.Taints[0]) }, "twice the taint"},
		{"a sentence as a taint's value", func(d *resourceapi.Device) { d.Taints[0].Value = "fell off the bus" }, "a valid label"},
		{"a counter that no set has", func(d *resourceapi.Device) { d.ConsumesCounters[0].Counters = counters(3) }, "which does not have it"},
		{"one set twice", func(d *resourceapi.Device) { d.ConsumesCounters = append(d.ConsumesCounters, d.ConsumesCounters[0]) }, "twice from set"},
		{"no counters of a set", func(d *resourceapi.Device) { d.ConsumesCounters[0].Counters = nil }, "no counters"},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := pool()
			test.change(&p.Slices[1].Devices[0])
			found(t, Problems("node/gpu", p, everything), test.want)
		})
	}
}

func TestSlicesHaveLimits(t *testing.T) {
	devices := func(n int) []resourceapi.Device {
		list := make([]resourceapi.Device, n)
		for i := range list {
			list[i].Name = fmt.Sprintf("d%d", i)
		}
		return list
	}
	tainted := devices(65)
	tainted[64].Taints = []resourceapi.DeviceTaint{{Key: "a.example/lost", Effect: resourceapi.DeviceTaintEffectNoSchedule}}
	nine := make([]resourceapi.CounterSet, 9)
	for i := range nine {
		nine[i] = resourceapi.CounterSet{Name: fmt.Sprintf("set-%d", i), Counters: counters(1)}
	}
	for _, test := range []struct {
		name   string
		slices []resourceslice.Slice
		want   string
	}{
		{"128 devices", []resourceslice.Slice{{Devices: devices(128)}}, ""},
		{"129 devices", []resourceslice.Slice{{Devices: devices(129)}}, "129 devices"},
		{"65 devices of which one has a taint", []resourceslice.Slice{{Devices: tainted}}, "65 devices, and 64 are allowed"},
		{"a device in two slices", []resourceslice.Slice{{Devices: devices(1)}, {Devices: devices(1)}}, "there are two"},
		{"nine counter sets", []resourceslice.Slice{{SharedCounters: nine}}, "9 counter sets"},
		{"a counter set in two slices", []resourceslice.Slice{{SharedCounters: nine[:1]}, {SharedCounters: nine[:1]}}, "there are two"},
		{"33 counters", []resourceslice.Slice{{SharedCounters: []resourceapi.CounterSet{{Name: "set", Counters: counters(33)}}}}, "33 counters"},
		{"counter sets beside devices", []resourceslice.Slice{{SharedCounters: nine[:1], Devices: devices(1)}}, "slices of their own"},
		{"no slice", nil, "no slice"},
	} {
		t.Run(test.name, func(t *testing.T) {
			found(t, Problems("node/gpu", resourceslice.Pool{Slices: test.slices}, everything), test.want)
		})
	}
}

func TestWhatAnAPIServerDropsIsAProblem(t *testing.T) {
	lacking := func(lack func(*Server)) Server { s := everything; lack(&s); return s }
	for want, server := range map[string]Server{
		"has taints, which":                 lacking(func(s *Server) { s.Taints = false }),
		"refuses the effect":                lacking(func(s *Server) { s.FewTaints = true }),
		"has counter sets, which":           lacking(func(s *Server) { s.Counters = false }),
		"allocated several times":           lacking(func(s *Server) { s.SharedDevices = false }),
		"is a list, which the API server":   lacking(func(s *Server) { s.ListAttributes = false }),
		"takes from counter sets, which th": lacking(func(s *Server) { s.Counters = false }),
	} {
		found(t, Problems("node/gpu", pool(), server), want)
	}
}

// found wants a problem with these words, or none at all.
func found(t *testing.T, problems []string, want string) {
	t.Helper()
	if all := strings.Join(problems, "\n"); !strings.Contains(all, want) || want == "" && all != "" {
		t.Errorf("problems are %q, want one with %q", problems, want)
	}
}
