// Claims in the few shapes that tests need, written as one expression.

package allocator

import (
	"fmt"

	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
)

// Part is a part of a claim's spec.
type Part func(*resourceapi.DeviceClaim)

// Claim has a name, which is also its UID, and parts.
func Claim(name string, parts ...Part) *resourceapi.ResourceClaim {
	claim := &resourceapi.ResourceClaim{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name)}}
	for _, part := range parts {
		part(&claim.Spec.Devices)
	}
	return claim
}

// Request asks for count devices of a class that the CEL expressions select. It
// is named "r0", "r1", … by its place in the claim.
func Request(class string, count int, selectors ...string) Part {
	return func(spec *resourceapi.DeviceClaim) {
		exactly := &resourceapi.ExactDeviceRequest{
			DeviceClassName: class, AllocationMode: resourceapi.DeviceAllocationModeExactCount, Count: int64(count),
		}
		for _, expression := range selectors {
			exactly.Selectors = append(exactly.Selectors, resourceapi.DeviceSelector{CEL: &resourceapi.CELDeviceSelector{Expression: expression}})
		}
		spec.Requests = append(spec.Requests, resourceapi.DeviceRequest{Name: fmt.Sprintf("r%d", len(spec.Requests)), Exactly: exactly})
	}
}

// Capacity has the last request ask for an amount of a device's capacity.
func Capacity(name, amount string) Part {
	return func(spec *resourceapi.DeviceClaim) {
		spec.Requests[len(spec.Requests)-1].Exactly.Capacity = &resourceapi.CapacityRequirements{
			Requests: map[resourceapi.QualifiedName]resource.Quantity{resourceapi.QualifiedName(name): resource.MustParse(amount)},
		}
	}
}

// Match wants one value of the attribute on all devices of the requests, of all
// requests if none is named.
func Match(attribute string, requests ...string) Part {
	return func(spec *resourceapi.DeviceClaim) {
		spec.Constraints = append(spec.Constraints, resourceapi.DeviceConstraint{
			Requests: requests, MatchAttribute: ptr.To(resourceapi.FullyQualifiedName(attribute)),
		})
	}
}

// Distinct wants another value of the attribute on each device of the requests.
// The scheduler needs the feature ConsumableCapacity for it.
func Distinct(attribute string, requests ...string) Part {
	return func(spec *resourceapi.DeviceClaim) {
		spec.Constraints = append(spec.Constraints, resourceapi.DeviceConstraint{
			Requests: requests, DistinctAttribute: ptr.To(resourceapi.FullyQualifiedName(attribute)),
		})
	}
}
