// The configs that apply to an allocation result. Which ones do is the
// library's business (resourceclaim.ConfigForResult knows sub-requests); how
// those of class and claim combine is ours: a claim's fields win over its
// class's, except that a class's egress scope is a ceiling, which a claim can
// lower and never raise, and that no claim changes what its class sets on a VF.

package claim

import (
	"encoding/json"
	"fmt"

	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/dynamic-resource-allocation/resourceclaim"

	"github.com/hostler-dev/hostler/api/v1alpha1"
	"github.com/hostler-dev/hostler/driver/publish"
)

// given is one config that applies to a result.
type given struct {
	object    runtime.Object
	fromClass bool
	// named says that the config lists the requests that it is for. One that
	// does not applies to all requests of the claim, of other kinds too.
	named bool
}

// configsFor decodes what applies to a result, in order of rising precedence.
func configsFor(claim *resourceapi.ResourceClaim, result *resourceapi.DeviceRequestAllocationResult) ([]given, error) {
	var class, own []given
	for _, config := range resourceclaim.ConfigForResult(claim.Status.Allocation.Devices.Config, *result) {
		if config.Opaque.Driver != publish.DriverName {
			continue
		}
		object, err := v1alpha1.Decode(config.Opaque.Parameters.Raw)
		if err != nil {
			return nil, fmt.Errorf("the config of %s for request %q: %w", sourceOf(config.Source), result.Request, err)
		}
		g := given{object: object, fromClass: config.Source == resourceapi.AllocationConfigSourceClass, named: len(config.Requests) > 0}
		if g.fromClass {
			class = append(class, g)
		} else {
			own = append(own, g)
		}
	}
	return append(class, own...), nil
}

// checkUse refuses a config of the claim that none of its devices can use: a
// NICConfig in a claim that got only GPUs. The list of requests that a config is
// for cannot tell, because the scheduler leaves it out of the allocation where
// the config applies to all of them. The entry has one device for each result.
func checkUse(allocation *resourceapi.AllocationResult, results []*resourceapi.DeviceRequestAllocationResult, entry *Entry) error {
	for _, config := range allocation.Devices.Config {
		if config.Source == resourceapi.AllocationConfigSourceClass || config.Opaque == nil || config.Opaque.Driver != publish.DriverName {
			continue
		}
		object, err := v1alpha1.Decode(config.Opaque.Parameters.Raw)
		if err != nil {
			return fmt.Errorf("the config of %s: %w", sourceOf(config.Source), err)
		}
		used, missed := false, ""
		for i, result := range results {
			if len(resourceclaim.ConfigForResult([]resourceapi.DeviceAllocationConfiguration{config}, *result)) == 0 {
				continue
			}
			if used = used || entry.Devices[i].takes(object); !used {
				missed = result.Device
			}
		}
		if !used && missed != "" {
			return fmt.Errorf("the claim has a %s, but no device of that kind: it got %s; use the kind of config that the device class documents", kindOf(object), missed)
		}
	}
	return nil
}

// takes reports whether a config applies to the device.
func (d *Device) takes(config runtime.Object) bool {
	if d.GPU == nil && d.NIC == nil {
		return isEgressConfig(config)
	}
	return parts{gpu: d.GPU, nic: d.NIC}.takes(config)
}

func isEgressConfig(config runtime.Object) bool {
	_, is := config.(*v1alpha1.EgressConfig)
	return is
}

// checkNamed refuses a config that names the device's request and is of a kind
// that does not apply to it. One that applies to all requests of the claim is meant for those of its kind.
func checkNamed(configs []given, device *Device, takes func(runtime.Object) bool) error {
	for _, config := range configs {
		if config.named && !takes(config.object) {
			return fmt.Errorf("request %q got device %s, to which the %s that names this request does not apply; use the kind of config that the device class documents, or name the request that it is for", device.Request, device.Name, kindOf(config.object))
		}
	}
	return nil
}

func kindOf(object runtime.Object) string { return object.GetObjectKind().GroupVersionKind().Kind }

func sourceOf(source resourceapi.AllocationConfigSource) string {
	if source == resourceapi.AllocationConfigSourceClass {
		return "its DeviceClass"
	}
	return "the claim"
}

// merged returns the configs of type T combined, defaulted and valid; others are
// left out.
func merged[T any, P interface {
	*T
	runtime.Object
}](configs []given, request string, combine func(under, over given) (P, error)) (P, error) {
	var current given
	for _, config := range configs {
		if _, fits := config.object.(P); !fits {
			continue
		}
		if current.object == nil {
			current = config
			continue
		}
		object, err := combine(current, config)
		if err != nil {
			return nil, fmt.Errorf("combine the configs for request %q: %w", request, err)
		}
		current = given{object: object, fromClass: current.fromClass && config.fromClass}
	}
	object, ok := current.object.(P)
	if !ok {
		object = P(new(T))
	}
	v1alpha1.SetDefaults(object)
	if faults := v1alpha1.Validate(object); len(faults) > 0 {
		return nil, fmt.Errorf("the config for request %q: %w", request, faults.ToAggregate())
	}
	return object, nil
}

// overlay lets the fields that over sets win, those of objects inside one by one.
func overlay[T any, P interface {
	*T
	runtime.Object
}](under, over given) (P, error) {
	fields := map[string]any{}
	for _, config := range []given{under, over} {
		raw, err := json.Marshal(config.object)
		if err != nil {
			return nil, err
		}
		var own map[string]any
		if err := json.Unmarshal(raw, &own); err != nil {
			return nil, err
		}
		overlayFields(fields, own)
	}
	raw, err := json.Marshal(fields)
	if err != nil {
		return nil, err
	}
	out := P(new(T))
	return out, json.Unmarshal(raw, out)
}

func overlayFields(under, over map[string]any) {
	for name, value := range over {
		inner, isObject := value.(map[string]any)
		if below, both := under[name].(map[string]any); isObject && both {
			overlayFields(below, inner)
			continue
		}
		under[name] = value
	}
}

// ceiling intersects a class's scope with what comes over it. Of a claim's
// own scopes the last one counts.
func ceiling(under, over given) (*v1alpha1.EgressConfig, error) {
	if !under.fromClass {
		return over.object.(*v1alpha1.EgressConfig), nil
	}
	both := v1alpha1.Intersect(*under.object.(*v1alpha1.EgressConfig), *over.object.(*v1alpha1.EgressConfig))
	return &both, nil
}
