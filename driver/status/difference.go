package status

// What is wanted against what the API server has: a status that says the same is
// not written again, and one that changes in words only keeps its time of transition.

import (
	"encoding/json"
	"reflect"
	"slices"
	"time"

	resourceapi "k8s.io/api/resource/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	metaapply "k8s.io/client-go/applyconfigurations/meta/v1"
	resourceapply "k8s.io/client-go/applyconfigurations/resource/v1"

	"github.com/hostler-dev/hostler/driver/publish"
)

// ours are the statuses of this driver's devices.
func ours(claim *resourceapi.ResourceClaim) []resourceapi.AllocatedDeviceStatus {
	var list []resourceapi.AllocatedDeviceStatus
	for _, device := range claim.Status.Devices {
		if device.Driver == publish.DriverName {
			list = append(list, device)
		}
	}
	return list
}

// dated has each condition's time of transition filled in: that of the present
// condition if its status is the same, or else now, in seconds as the API keeps it.
func dated(wanted, present []resourceapi.AllocatedDeviceStatus, now time.Time) []resourceapi.AllocatedDeviceStatus {
	list := slices.Clone(wanted)
	for i := range list {
		list[i].Conditions = slices.Clone(list[i].Conditions)
		before := find(present, deviceOf(&list[i]))
		for j := range list[i].Conditions {
			c := &list[i].Conditions[j]
			c.LastTransitionTime = metav1.NewTime(now.Truncate(time.Second))
			if before == nil {
				continue
			}
			for _, was := range before.Conditions {
				if was.Type == c.Type && was.Status == c.Status && !was.LastTransitionTime.IsZero() {
					c.LastTransitionTime = was.LastTransitionTime
				}
			}
		}
	}
	return list
}

// difference is how much of a status would change by writing it.
type difference int

const (
	same difference = iota
	// words: reasons and messages alone.
	words
	// substance: a condition's status, a device or how it is known in its pod.
	substance
)

func compare(wanted, present []resourceapi.AllocatedDeviceStatus) difference {
	if len(wanted) != len(present) {
		return substance
	}
	found := same
	for i := range wanted {
		is := find(present, deviceOf(&wanted[i]))
		if is == nil || !apiequality.Semantic.DeepEqual(wanted[i].NetworkData, is.NetworkData) || !sameJSON(wanted[i].Data, is.Data) || len(wanted[i].Conditions) != len(is.Conditions) {
			return substance
		}
		for _, c := range wanted[i].Conditions {
			j := slices.IndexFunc(is.Conditions, func(o metav1.Condition) bool { return o.Type == c.Type })
			switch {
			case j < 0 || is.Conditions[j].Status != c.Status:
				return substance
			case is.Conditions[j].Reason != c.Reason || is.Conditions[j].Message != c.Message:
				found = words
			}
		}
	}
	return found
}

// sameJSON leaves aside the order of fields, which the API server changes.
func sameJSON(a, b *runtime.RawExtension) bool {
	if a == nil || b == nil {
		return a == b
	}
	var left, right any
	if json.Unmarshal(a.Raw, &left) != nil || json.Unmarshal(b.Raw, &right) != nil {
		return false
	}
	return reflect.DeepEqual(left, right)
}

func find(list []resourceapi.AllocatedDeviceStatus, device Device) *resourceapi.AllocatedDeviceStatus {
	i := slices.IndexFunc(list, func(s resourceapi.AllocatedDeviceStatus) bool { return deviceOf(&s) == device })
	if i < 0 {
		return nil
	}
	return &list[i]
}

// applyConfiguration is all that this agent says of the claim; what it said before
// and does not say now goes. The UID has the API server refuse it for a later claim of the same name.
func applyConfiguration(k *known, devices []resourceapi.AllocatedDeviceStatus) *resourceapply.ResourceClaimApplyConfiguration {
	status := resourceapply.ResourceClaimStatus()
	for i := range devices {
		d := &devices[i]
		device := resourceapply.AllocatedDeviceStatus().WithDriver(d.Driver).WithPool(d.Pool).WithDevice(d.Device)
		if d.ShareID != nil {
			device.WithShareID(*d.ShareID)
		}
		for _, c := range d.Conditions {
			device.WithConditions(metaapply.Condition().WithType(c.Type).WithStatus(c.Status).WithReason(c.Reason).WithMessage(c.Message).WithLastTransitionTime(c.LastTransitionTime))
		}
		if n := d.NetworkData; n != nil {
			network := resourceapply.NetworkDeviceData().WithInterfaceName(n.InterfaceName).WithIPs(n.IPs...)
			if n.HardwareAddress != "" {
				network.WithHardwareAddress(n.HardwareAddress)
			}
			device.WithNetworkData(network)
		}
		if d.Data != nil {
			device.WithData(*d.Data)
		}
		status.WithDevices(device)
	}
	return resourceapply.ResourceClaim(k.name, k.namespace).WithUID(k.uid).WithStatus(status)
}
