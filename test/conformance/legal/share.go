// How a capacity is shared, by the rules of the API server (pkg/apis/resource/validation):
// what a claim gets that asks for no amount, and which amounts there are.

package legal

import (
	"fmt"

	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// policyFaults are the rules of the API server's validateRequestPolicyRange.
func policyFaults(d *resourceapi.Device, capacity *resourceapi.DeviceCapacity) (faults []string) {
	if d.AllowMultipleAllocations == nil || !*d.AllowMultipleAllocations {
		faults = append(faults, "it says how it is shared, and the device is not")
	}
	policy := capacity.RequestPolicy
	if policy.ValidRange == nil {
		return faults
	}
	if policy.Default == nil || policy.ValidRange.Min == nil {
		return append(faults, "a range of shares needs a minimum and a default")
	}
	least, whole := policy.ValidRange.Min.Value(), capacity.Value.Value()
	for name, value := range map[string]*resource.Quantity{"default": policy.Default, "max": policy.ValidRange.Max} {
		if value == nil {
			continue
		}
		if value.Value() < least || value.Value() > whole {
			faults = append(faults, fmt.Sprintf("the %s share, %s, is not between %d and %d", name, value, least, whole))
		}
		if step := policy.ValidRange.Step; step != nil && (step.Value() <= 0 || (value.Value()-least)%step.Value() != 0) {
			faults = append(faults, fmt.Sprintf("the %s share, %s, is not one of the steps of %s from %d", name, value, step, least))
		}
	}
	if step := policy.ValidRange.Step; step != nil && least+step.Value() > whole {
		faults = append(faults, fmt.Sprintf("the step of %s from %d is beyond all there is, %d", step, least, whole))
	}
	return faults
}
