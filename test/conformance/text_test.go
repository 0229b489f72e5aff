package conformance

// Slices as a person reads them: one line a device, and what all devices of a slice
// have in common said once.

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/dynamic-resource-allocation/resourceslice"
)

// slicesText is YAML: a list of slices for each pool, with a line for each counter
// set and device. Names under hostler.dev are written without it.
func slicesText(resources resourceslice.DriverResources) string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(resources.Pools)) {
		fmt.Fprintf(&b, "%s:\n", strings.TrimPrefix(name, nodeName+"/"))
		for _, slice := range resources.Pools[name].Slices {
			if len(slice.SharedCounters) > 0 {
				b.WriteString("- counters:\n")
			}
			for _, set := range slice.SharedCounters {
				fmt.Fprintf(&b, "    %s: %s\n", set.Name, countersText(set.Counters))
			}
			devicesText(&b, slice.Devices)
			if len(slice.SharedCounters)+len(slice.Devices) == 0 {
				b.WriteString("- {}\n")
			}
		}
	}
	return b.String()
}

func devicesText(b *strings.Builder, devices []resourceapi.Device) {
	byType := map[string][]resourceapi.Device{}
	var types []string
	for _, d := range devices {
		kind := value(&d, own+"type")
		if byType[kind] == nil {
			types = append(types, kind)
		}
		byType[kind] = append(byType[kind], d)
	}
	bullet := "- "
	for _, kind := range types {
		fmt.Fprintf(b, "%s%s:\n", bullet, kind)
		bullet = "  "
		common := commonWords(byType[kind])
		if len(byType[kind]) > 1 {
			fmt.Fprintf(b, "    all: %s\n", strings.Join(common, " "))
		}
		for _, d := range byType[kind] {
			words := slices.DeleteFunc(deviceWords(&d), func(word string) bool { return len(byType[kind]) > 1 && slices.Contains(common, word) })
			fmt.Fprintf(b, "    %s: %s\n", d.Name, strings.Join(words, " "))
		}
	}
}

func commonWords(devices []resourceapi.Device) []string {
	count := map[string]int{}
	for i := range devices {
		for _, word := range deviceWords(&devices[i]) {
			count[word]++
		}
	}
	return slices.DeleteFunc(deviceWords(&devices[0]), func(word string) bool { return count[word] < len(devices) })
}

// deviceWords are attributes, capacities, counters and taints of a device, each kind sorted.
func deviceWords(d *resourceapi.Device) []string {
	var words []string
	for _, name := range slices.Sorted(maps.Keys(d.Attributes)) {
		words = append(words, shortName(name)+"="+quoted(attributeText(d.Attributes[name])))
	}
	for _, name := range slices.Sorted(maps.Keys(d.Capacity)) {
		quantity := d.Capacity[name].Value
		words = append(words, shortName(name)+":"+quantity.String())
	}
	for _, taken := range d.ConsumesCounters {
		words = append(words, "takes("+taken.CounterSet+" "+countersText(taken.Counters)+")")
	}
	for _, taint := range d.Taints {
		words = append(words, fmt.Sprintf("taint(%s=%s:%s)", taint.Key, taint.Value, taint.Effect))
	}
	if d.AllowMultipleAllocations != nil && *d.AllowMultipleAllocations {
		words = append(words, "shared")
	}
	return words
}

// countersText writes the memory slices of a GPU, of which there is one each, as
// their numbers: "memory-slices=0,1,2,3".
func countersText(counters map[string]resourceapi.Counter) string {
	var words, memory []string
	for _, name := range slices.Sorted(maps.Keys(counters)) {
		quantity := counters[name].Value
		if number, ok := strings.CutPrefix(name, "memory-slice-"); ok && quantity.String() == "1" {
			memory = append(memory, number)
			continue
		}
		words = append(words, name+"="+quantity.String())
	}
	if len(memory) > 0 {
		words = append(words, "memory-slices="+strings.Join(memory, ","))
	}
	return strings.Join(words, " ")
}

func shortName(name resourceapi.QualifiedName) string { return strings.TrimPrefix(string(name), own) }

// quoted keeps words apart, and strings from numbers.
func quoted(s string) string {
	if strings.Contains(s, " ") {
		return strconv.Quote(s)
	}
	return s
}

// attributeText of a version begins with a v.
func attributeText(a resourceapi.DeviceAttribute) string {
	switch {
	case a.StringValue != nil:
		return *a.StringValue
	case a.VersionValue != nil:
		return "v" + *a.VersionValue
	case a.IntValue != nil:
		return strconv.FormatInt(*a.IntValue, 10)
	case a.BoolValue != nil:
		return strconv.FormatBool(*a.BoolValue)
	}
	return fmt.Sprint(slices.Concat(texts(a.IntValues), texts(a.StringValues), texts(a.BoolValues), texts(a.VersionValues)))
}

func texts[T any](values []T) []string {
	var list []string
	for _, v := range values {
		list = append(list, fmt.Sprint(v))
	}
	return list
}
