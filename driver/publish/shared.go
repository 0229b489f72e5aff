// Shared NICs: one NIC for several claims, each with a part of its bandwidth. The
// scheduler adds up what claims ask for. Who asks for no amount gets all of it, and so
// the NIC alone, as if it were not shared. What a claim got it finds in its
// allocation, and tc holds its pod to that.

package publish

import (
	"math"

	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/utils/ptr"

	"github.com/hostler-dev/hostler/topology"
)

// BandwidthCapacity is a NIC's rate in bits per second, which claims share.
const BandwidthCapacity resourceapi.QualifiedName = DriverName + "/bandwidth"

// leastShareMbps is what a claim gets at least, and stepMbps the amount by which
// shares differ: speeds are whole megabits, so a NIC's own is one of the steps. The
// API takes no bounds above mostMbps.
const leastShareMbps, stepMbps, mostMbps = 10, 1, math.MaxInt64 / 1_000_000

// nicCapacity is the link's rate in bits per second. That of a shared NIC says how
// much of it a claim can ask for.
func nicCapacity(nic *topology.NIC, shared bool) capacities {
	if nic.Link == nil || nic.Link.SpeedMbps <= 0 {
		return nil
	}
	all := megabits(nic.Link.SpeedMbps)
	capacity := resourceapi.DeviceCapacity{Value: all}
	if shared {
		capacity.RequestPolicy = &resourceapi.CapacityRequestPolicy{
			Default:    &all,
			ValidRange: &resourceapi.CapacityRequestPolicyRange{Min: ptr.To(megabits(leastShareMbps)), Max: &all, Step: ptr.To(megabits(stepMbps))},
		}
	}
	return capacities{BandwidthCapacity: capacity}
}

func megabits(n int) resource.Quantity {
	return *resource.NewScaledQuantity(int64(n), resource.Mega)
}

// shared says whether several claims can have the NIC at once. While a claim has
// it that does not change, whatever the configuration says by now: of an entry that
// is not shared any more the scheduler would not know that it is taken.
func (o *offering) shared(nic *topology.NIC) bool {
	if !o.in.Features.SharedDevices || nic.Uplink != "" || nic.Link == nil || nic.Link.Type != "ethernet" ||
		nic.Link.SpeedMbps < leastShareMbps+stepMbps || nic.Link.SpeedMbps > mostMbps {
		return false
	}
	if use, used := o.in.InUse[nic.Name]; used {
		return use.Shared
	}
	return o.in.Publish.SharedNICs
}

// Share is what an allocation gives of a NIC, in bits per second, and whether that
// is all of it: then the claim has the NIC alone. A NIC that was not shared is all.
func Share(result *resourceapi.DeviceRequestAllocationResult, nic *topology.NIC) (bitsPerSecond uint64, all bool) {
	consumed, partly := result.ConsumedCapacity[BandwidthCapacity]
	if result.ShareID == nil || !partly || consumed.Sign() <= 0 {
		return 0, true
	}
	whole := nicCapacity(nic, true)[BandwidthCapacity].Value
	return uint64(consumed.Value()), consumed.Cmp(whole) >= 0
}
