// Who gets which part of a NIC, by the scheduler's own allocator, and that a share
// stays one as long as a claim has it.

package publish

import (
	"testing"

	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/dynamic-resource-allocation/structured"
	"k8s.io/klog/v2/ktesting"
	"pgregory.net/rapid"

	"github.com/hostler-dev/hostler/api/v1alpha1"
	"github.com/hostler-dev/hostler/test/allocator"
	"github.com/hostler-dev/hostler/topology"
)

// sharedNICs offers parts of NICs.
var sharedNICs = v1alpha1.PublishConfig{SharedNICs: true}

func bandwidth(amount string) allocator.Part {
	return allocator.Capacity(string(BandwidthCapacity), amount)
}

func TestSchedulerSharesABandwidth(t *testing.T) {
	const pf, firstVF, secondVF, pairName = "nic-0000-18-00-0", "nic-0000-18-01-0", "nic-0000-18-01-1", "pair-0000-17-00-0-0000-18-00-0"
	one := &topology.Snapshot{NICs: []topology.NIC{nic("0000:18:00.0")}} // 400 Gbit/s
	sriov := &topology.Snapshot{NICs: withVFs(nic("0000:18:00.0"), 2)}
	halves := &topology.Snapshot{GPUs: []topology.GPU{gpu("0000:17:00.0")}, NICs: []topology.NIC{nic("0000:18:00.0")}}
	down := nic("0000:18:00.0")
	down.Link = &topology.Link{Name: "eth0", Type: "ethernet"}
	infiniband := nic("0000:18:00.0")
	infiniband.Link = &topology.Link{Name: "ib0", Type: "infiniband", SpeedMbps: 400_000}
	uplink := nic("0000:18:00.0")
	uplink.Uplink = "carries the default route"
	whole := allocator.Request("nic", 1)
	tolerant := func(spec *resourceapi.DeviceClaim) {
		whole(spec)
		spec.Requests[0].Exactly.Tolerations = []resourceapi.DeviceToleration{{Operator: resourceapi.DeviceTolerationOpExists}}
	}
	kind := func(kind string) allocator.Part {
		return allocator.Request("nic", 1, `device.attributes["hostler.dev"].kind == "`+kind+`"`)
	}
	pair, shareable := allocator.Request("pair", 1), allocator.Request("nic", 1, `device.allowMultipleAllocations`)
	for _, test := range []struct {
		name     string
		snapshot *topology.Snapshot
		steps    []step
	}{
		{"two halves fit, and nothing beside them", one, []step{
			claim(pf, whole, bandwidth("200G")), claim(pf, whole, bandwidth("200G")), claim("", whole, bandwidth("10M")), claim("", whole)}},
		{"a third that is too much waits, a smaller one does not", one, []step{
			claim(pf, whole, bandwidth("150G")), claim(pf, whole, bandwidth("150G")), claim("", whole, bandwidth("150G")), claim(pf, whole, bandwidth("100G"))}},
		{"two requests of one claim share too", one, []step{claim(pf+" "+pf, whole, bandwidth("200G"), whole, bandwidth("200G")), claim("", whole, bandwidth("10M"))}},
		{"one request for two NICs gets two", one, []step{claim("", allocator.Request("nic", 2), bandwidth("10G"))}},
		{"who names no bandwidth gets all of it", one, []step{claim(pf, whole), claim("", whole, bandwidth("10M")), claim("", whole)}},
		{"and waits while another has a share", one, []step{claim(pf, whole, bandwidth("10M")), claim("", whole)}},
		{"the least share is ten megabits", one, []step{claim(pf, whole, bandwidth("399990M")), claim(pf, whole, bandwidth("1")), claim("", whole, bandwidth("1"))}},
		{"shares are whole megabits", one, []step{claim(pf, whole, bandwidth("399989999999")), claim(pf, whole, bandwidth("10M")), claim("", whole, bandwidth("10M"))}},
		{"more than there is", one, []step{claim("", whole, bandwidth("401G"))}},
		{"no VF beside a share of the PF", sriov, []step{claim(pf, kind("pf"), bandwidth("10G")), claim("", kind("vf")), claim("", kind("vf"), bandwidth("10G")), claim(pf, kind("pf"), bandwidth("10G"))}},
		{"no share of the PF beside one of a VF", sriov, []step{claim(firstVF, kind("vf"), bandwidth("10G")), claim("", kind("pf"), bandwidth("10G")), claim(firstVF, kind("vf"), bandwidth("10G")), claim(secondVF, kind("vf")), claim("", kind("pf"))}},
		{"no pair with a NIC of which a share is taken", halves, []step{claim(pf, whole, bandwidth("10G")), claim("", pair), claim(pf, whole, bandwidth("10G"))}},
		{"no share of a NIC in a pair", halves, []step{claim(pairName, pair), claim("", whole, bandwidth("10G"))}},
		{"a pair is not shared", halves, []step{claim(pairName, pair, bandwidth("10G")), claim("", pair, bandwidth("10G"))}},
		{"a NIC without a carrier is not shared", &topology.Snapshot{NICs: []topology.NIC{down}}, []step{claim("", shareable), claim("", whole, bandwidth("10M")), claim(pf, whole), claim("", whole)}},
		{"an InfiniBand port is not shared", &topology.Snapshot{NICs: []topology.NIC{infiniband}}, []step{claim("", shareable), claim(pf, whole), claim("", whole)}},
		{"an uplink is not shared", &topology.Snapshot{NICs: []topology.NIC{uplink}}, []step{claim("", shareable), claim(pf, tolerant), claim("", tolerant)}},
	} {
		t.Run(test.name, func(t *testing.T) {
			in := Input{Snapshot: test.snapshot, Features: everything, Publish: sharedNICs}
			in.Publish.CompositeDevices = test.snapshot == halves
			run(t, in, allocator.DefaultFeatures, test.steps)
		})
	}
}

// Whatever is published and whatever the API server knows, one whole NIC goes to
// one claim, as it did before NICs could be shared.
func TestWholeNICGoesToOneClaimEverywhere(t *testing.T) {
	older, noCapacity := everything, allocator.DefaultFeatures
	older.SharedDevices, noCapacity.ConsumableCapacity = false, false
	for name, test := range map[string]struct {
		features  Features
		scheduler structured.Features
		publish   v1alpha1.PublishConfig
	}{
		"not shared":                 {everything, allocator.DefaultFeatures, v1alpha1.PublishConfig{}},
		"shared":                     {everything, allocator.DefaultFeatures, sharedNICs},
		"shared, on Kubernetes 1.34": {Features{}, allocator.Features134, sharedNICs},
		"shared, where capacity cannot be consumed": {older, noCapacity, sharedNICs},
	} {
		t.Run(name, func(t *testing.T) {
			in := Input{Snapshot: &topology.Snapshot{NICs: []topology.NIC{nic("0000:18:00.0"), nic("0000:19:00.0")}}, Features: test.features, Publish: test.publish}
			whole := allocator.Request("nic", 1)
			run(t, in, test.scheduler, []step{claim("nic-0000-18-00-0", whole), claim("nic-0000-19-00-0", whole), claim("", whole)})
		})
	}
}

// An entry becomes shared, or stops being so, while no claim has the device.
func TestSharingDoesNotChangeUnderAClaim(t *testing.T) {
	in := Input{NodeName: node, Features: everything, Snapshot: &topology.Snapshot{NICs: []topology.NIC{nic("0000:18:00.0")}}}
	const name = "nic-0000-18-00-0"
	lost := nic("0000:18:00.0")
	lost.Link = &topology.Link{Name: "eth0", Type: "ethernet"}
	for _, test := range []struct {
		name    string
		publish v1alpha1.PublishConfig
		use     *Use
		now     topology.NIC
		want    bool
	}{
		{"free, and not to be shared", v1alpha1.PublishConfig{}, nil, nic("0000:18:00.0"), false},
		{"free, and to be shared", sharedNICs, nil, nic("0000:18:00.0"), true},
		{"taken as a whole before it was to be shared", sharedNICs, &Use{NIC: name}, nic("0000:18:00.0"), false},
		{"taken as a share before it was not to be shared any more", v1alpha1.PublishConfig{}, &Use{NIC: name, Shared: true}, nic("0000:18:00.0"), true},
		{"taken as a share before its carrier was lost", sharedNICs, &Use{NIC: name, Shared: true}, lost, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			in.Publish, in.InUse, in.Held = test.publish, map[string]Use{}, map[string]topology.NIC{}
			in.Snapshot.NICs[0] = test.now
			if test.use != nil {
				in.InUse[name], in.Held[name] = *test.use, nic("0000:18:00.0")
			}
			device := find(Resources(in), name)
			if shared := device.AllowMultipleAllocations != nil; shared != test.want || (device.Capacity[BandwidthCapacity].RequestPolicy != nil) != test.want {
				t.Errorf("shared: %v, capacity %+v; want %v", shared, device.Capacity, test.want)
			}
		})
	}
}

// What the scheduler wrote into an allocation is what Share reads.
func TestShareIsWhatWasAllocated(t *testing.T) {
	_, ctx := ktesting.NewTestContext(t)
	rapid.Check(t, func(t *rapid.T) {
		n := nic("0000:18:00.0")
		n.Link.SpeedMbps = rapid.IntRange(11, 3_200_000).Draw(t, "speed")
		asked := rapid.IntRange(1, n.Link.SpeedMbps).Draw(t, "asked")
		in := Input{Features: everything, Publish: sharedNICs, Snapshot: &topology.Snapshot{NICs: []topology.NIC{n}}}
		wanted := megabits(asked)
		results, err := scheduler(in, allocator.DefaultFeatures).Find(ctx, allocator.Claim("c", allocator.Request("nic", 1), bandwidth(wanted.String())))
		if err != nil || len(results) != 1 {
			t.Fatalf("%d Mbit/s of %d: %v, %v", asked, n.Link.SpeedMbps, results, err)
		}
		share, all := Share(&results[0].Devices.Results[0], &n)
		if want := uint64(max(asked, leastShareMbps)) * 1e6; share != want || all != (want == uint64(n.Link.SpeedMbps)*1e6) {
			t.Fatalf("asked for %d Mbit/s of %d: %d bit/s, all: %v", asked, n.Link.SpeedMbps, share, all)
		}
	})
	id := types.UID("share")
	half := map[resourceapi.QualifiedName]resource.Quantity{BandwidthCapacity: resource.MustParse("200G")}
	for name, result := range map[string]resourceapi.DeviceRequestAllocationResult{
		"not shared":                 {},
		"a share of something else":  {ShareID: &id},
		"an amount without a share":  {ConsumedCapacity: half},
		"a share of nothing at all":  {ShareID: &id, ConsumedCapacity: map[resourceapi.QualifiedName]resource.Quantity{BandwidthCapacity: {}}},
		"a share of more than it is": {ShareID: &id, ConsumedCapacity: map[resourceapi.QualifiedName]resource.Quantity{BandwidthCapacity: resource.MustParse("800G")}},
	} {
		n := nic("0000:18:00.0")
		if _, all := Share(&result, &n); !all {
			t.Errorf("%s: it is not all", name)
		}
	}
}
