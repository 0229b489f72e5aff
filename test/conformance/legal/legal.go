// Package legal says what an API server, the kubelet plugin library and the
// scheduler would refuse of the slices of a pool.
//
// Their own code is not importable. The rules are those of
// pkg/apis/resource/validation in Kubernetes and of resourceslice/validation.go in
// k8s.io/dynamic-resource-allocation; test/apiserver asks real API servers.
package legal

import (
	"fmt"
	"strings"

	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/dynamic-resource-allocation/resourceslice"
)

// Server has the fields of publish.Features, from which it can be converted: the
// optional parts of the API that an API server takes. Any other it would drop.
type Server struct {
	Taints, FewTaints, Counters, SharedDevices, ListAttributes bool
}

// Problems are the reasons to refuse the pool, or to publish it otherwise than it
// is; none if all is well.
func Problems(name string, pool resourceslice.Pool, server Server) []string {
	r := &report{pool: name, server: server, sets: map[string]map[string]resourceapi.Counter{}, devices: map[string]bool{}, names: map[resourceapi.QualifiedName]bool{}}
	for _, segment := range strings.Split(name, "/") {
		r.add("the name", validation.IsDNS1123Subdomain(segment)...)
	}
	if len(name) > resourceapi.PoolNameMaxLength {
		r.add("the name", fmt.Sprintf("it has %d characters", len(name)))
	}
	if len(pool.Slices) == 0 {
		r.add("the pool", "it has no slice, so that the scheduler cannot tell it from one that is not published yet")
	}
	for i := range pool.Slices {
		r.slice(fmt.Sprintf("slice %d", i), &pool.Slices[i])
	}
	for i := range pool.Slices {
		for j := range pool.Slices[i].Devices {
			r.device(&pool.Slices[i].Devices[j])
		}
	}
	return r.problems
}

type report struct {
	pool     string
	server   Server
	sets     map[string]map[string]resourceapi.Counter
	devices  map[string]bool
	names    map[resourceapi.QualifiedName]bool // that are in order
	problems []string
}

func (r *report) add(what string, problems ...string) {
	for _, problem := range problems {
		r.problems = append(r.problems, fmt.Sprintf("pool %s: %s: %s", r.pool, what, problem))
	}
}

// atMost reports a number beyond its limit.
func (r *report) atMost(what, of string, number, limit int) {
	if number > limit {
		r.add(what, fmt.Sprintf("it has %d %s, and %d are allowed", number, of, limit))
	}
}

func (r *report) slice(what string, slice *resourceslice.Slice) {
	limit := resourceapi.ResourceSliceMaxDevices
	for i := range slice.Devices {
		if len(slice.Devices[i].Taints)+len(slice.Devices[i].ConsumesCounters) > 0 {
			limit = resourceapi.ResourceSliceMaxDevicesWithAdvancedFeatures
		}
	}
	r.atMost(what, "devices", len(slice.Devices), limit)
	r.atMost(what, "counter sets", len(slice.SharedCounters), resourceapi.ResourceSliceMaxCounterSets)
	if len(slice.SharedCounters) > 0 && len(slice.Devices) > 0 {
		r.add(what, "it has counter sets and devices, which belong into slices of their own")
	}
	if len(slice.SharedCounters) > 0 && !r.server.Counters {
		r.add(what, "it has counter sets, which the API server drops")
	}
	for _, set := range slice.SharedCounters {
		if r.sets[set.Name] != nil {
			r.add("counter set "+set.Name, "there are two")
		}
		r.counters("counter set "+set.Name, set.Name, set.Counters)
		r.sets[set.Name] = set.Counters
	}
}

func (r *report) counters(what, set string, counters map[string]resourceapi.Counter) {
	r.add(what, validation.IsDNS1123Label(set)...)
	r.atMost(what, "counters", len(counters), resourceapi.ResourceSliceMaxCountersPerCounterSet)
	if len(counters) == 0 {
		r.add(what, "it has no counters")
	}
	for name, counter := range counters {
		r.add(what+", counter "+name, validation.IsDNS1123Label(name)...)
		if counter.Value.Sign() <= 0 {
			r.add(what+", counter "+name, fmt.Sprintf("its value is %s", counter.Value.String()))
		}
	}
}
