package attach

// Where a network device is that was not found on the host. Several pods may use a claim,
// and the scheduler does not know that only one of them can have its NIC.

import (
	"errors"
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/types"

	"github.com/hostler-dev/hostler/netattach"
)

// elsewhere says who has the device that the pod's claim is for, as far as records tell.
func (a *Attacher) elsewhere(pod, claim types.UID, device netattach.DeviceIntent) error {
	away := fmt.Errorf("%s (%s) is not on the host at present, perhaps on its way home from an earlier pod; that is tried again", device.HostName, device.Device)
	records, err := a.records.list()
	if err != nil {
		return errors.Join(away, err)
	}
	for _, record := range records {
		has := slices.ContainsFunc(record.Intent.Devices, func(d netattach.DeviceIntent) bool { return d.Pool == device.Pool && d.Device == device.Device })
		if has && record.Intent.ClaimUID == claim && record.Pod.UID != pod && record.State == StateAttached {
			return fmt.Errorf("%s (%s) is in pod %s/%s, which uses claim %s/%s too, and one pod at a time can have it; give each pod a claim of its own (a ResourceClaimTemplate), or wait for that pod's end",
				device.HostName, device.Device, record.Pod.Namespace, record.Pod.Name, record.Intent.ClaimNamespace, record.Intent.ClaimName)
		}
	}
	return away
}
