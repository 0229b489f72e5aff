package claim

// What publishing learns of shares: an entry that is shared stays so while anyone
// has a share of it, and as fast as it was.

import (
	"testing"

	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/types"

	"github.com/hostler-dev/hostler/driver/publish"
)

// shareOfNIC is a claim that got a part of the NIC's bandwidth, for a macvlan child.
func shareOfNIC(name string, bandwidth string) *resourceapi.ResourceClaim {
	claim := with(allocated(name, onNIC("nic-0000-18-00-0")), resourceapi.AllocationConfigSourceClaim, `NICConfig {"mode": "macvlan", "interfaceName": "share0"}`)
	id := types.UID("share-of-" + name)
	result := &claim.Status.Allocation.Devices.Results[0]
	result.ShareID, result.ConsumedCapacity = &id, map[resourceapi.QualifiedName]resource.Quantity{publish.BandwidthCapacity: resource.MustParse(bandwidth)}
	return claim
}

func TestLedgerKnowsShares(t *testing.T) {
	r := newRoom(t, t.TempDir(), boot)
	for _, claim := range []*resourceapi.ResourceClaim{shareOfNIC("small", "20M"), shareOfNIC("large", "10G")} {
		if _, err := r.prepare(claim); err != nil {
			t.Fatal(err)
		}
	}
	ledger := NewLedger(r.journal)
	want := publish.Use{Pool: publish.NICPool(node), NIC: "nic-0000-18-00-0", Shared: true}
	if used := ledger.InUse(); len(used) != 1 || used["nic-0000-18-00-0"] != want {
		t.Errorf("in use %v; want %v", used, want)
	}
	if held := ledger.Held(); len(held) != 1 || held["nic-0000-18-00-0"].Link == nil {
		t.Errorf("held NICs %v", held)
	}
	bandwidths := map[uint64]types.UID{}
	for _, intent := range NewStore(r.journal).Intents() {
		device := intent.Devices[0]
		if device.Child == nil || device.ShareID == nil {
			t.Fatalf("the intent is for no share: %+v", device)
		}
		bandwidths[device.Bandwidth] = *device.ShareID
	}
	if len(bandwidths) != 2 || bandwidths[20e6] != "share-of-small" || bandwidths[10e9] != "share-of-large" {
		t.Errorf("bandwidths by share are %v", bandwidths)
	}
	if _, err := r.prepare(allocated("whole", onNIC("nic-0000-18-00-0"))); err == nil {
		t.Error("the whole NIC is given beside its shares")
	}
}
