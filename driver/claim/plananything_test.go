package claim

// Plan is pure, whatever it is asked: the same question has the same answer, nothing that
// it was given is changed, and what it planned is all of what was allocated, no more.

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"pgregory.net/rapid"
)

// allDevices are what claims of the machine can be allocated, and some that they cannot.
func allDevices() [][2]string {
	devices := [][2]string{onGPU("gpu-gone"), onNIC("nic-0000-1c-00-0"), onGPU("gpu-0000-37-00-0"), onGPU(migGPU), onNIC("nic-0000-1d-00-0")}
	for _, k := range append(kinds(), everything()) {
		devices = append(append(devices, k.devices...), k.other...)
	}
	return devices
}

// FuzzConfigs has a class and a claim say anything of one device and of two.
func FuzzConfigs(f *testing.F) {
	for i, k := range kinds() {
		for _, body := range append(k.configs, `GPUConfig {"driverCapabilities": ["compute"]}`, `EgressConfig {"dns": "None"}`) {
			f.Add(config(body), config(body), uint8(i), uint8(i+1))
		}
	}
	f.Add([]byte("apiVersion: hostler.dev/v1alpha1\nkind: NICConfig\nmtu: 1500\n"), []byte("{}"), uint8(3), uint8(13))
	f.Fuzz(func(t *testing.T, ofClass, own []byte, first, second uint8) {
		devices := allDevices()
		pick := func(i uint8) [2]string { return devices[int(i)%len(devices)] }
		c := allocated("c", pick(first))
		if second%2 == 0 {
			c = allocated("c", pick(first), pick(second))
		}
		for source, raw := range map[resourceapi.AllocationConfigSource][]byte{class: ofClass, claim: own} {
			if json.Valid(raw) { // the API server lets nothing else through
				with(c, source, `GPUConfig {}`)
				c.Status.Allocation.Devices.Config[len(c.Status.Allocation.Devices.Config)-1].Opaque.Parameters = runtime.RawExtension{Raw: raw}
			}
		}
		planPurely(t, c)
	})
}

// planPurely reports whether the claim was planned.
func planPurely(t failer, c *resourceapi.ResourceClaim) bool {
	in := PlanInput{Claim: c, NodeName: node, Snapshot: cutMachine(migDevice()), Resolvers: []netip.Addr{}}
	asked, seen := c.DeepCopy(), cutMachine(migDevice())
	entry, err := Plan(in)
	again, same := Plan(in)
	if fmt.Sprint(err) != fmt.Sprint(same) || err == nil && gocmp.Diff(entry, again, planned()...) != "" {
		t.Fatal("planned ", entry, err, " and then ", again, same)
	}
	if diff := gocmp.Diff(asked, c); diff != "" {
		t.Fatal("the plan changed the claim:\n" + diff)
	}
	if diff := gocmp.Diff(seen, in.Snapshot, planned()...); diff != "" {
		t.Fatal("the plan changed the snapshot:\n" + diff)
	}
	if err != nil {
		if !strings.Contains(err.Error(), "claim team/c: ") {
			t.Fatal("the refusal does not name the claim: ", err)
		}
		return false
	}
	if !entry.answers(c) || len(entry.Pods) != len(c.Status.ReservedFor) || entry.ClaimUID != c.UID {
		t.Fatal("planned is something else: ", entry)
	}
	throughTheJournal(t, entry)
	return true
}

func planned() []gocmp.Option {
	return []gocmp.Option{cmpopts.EquateComparable(netip.Prefix{}, netip.Addr{}), cmpopts.EquateEmpty()}
}

// Any allocation: several requests, alternatives, shares, admin access, devices of other
// drivers, and configs for all of them or some.
func TestPlanIsPure(t *testing.T) {
	devices, done := allDevices(), 0
	rapid.Check(t, func(t *rapid.T) {
		c := allocated("c", rapid.SliceOfN(rapid.SampledFrom(devices), 1, 4).Draw(t, "devices")...)
		var requests []string
		for i := range c.Status.Allocation.Devices.Results {
			result := &c.Status.Allocation.Devices.Results[i]
			result.Request = rapid.SampledFrom([]string{result.Request, result.Request, "r0", result.Request + "/sub"}).Draw(t, "request")
			requests = append(requests, result.Request)
			switch rapid.IntRange(0, 9).Draw(t, "sort") {
			case 0:
				shareOut(c.Name, result, rapid.SampledFrom([]string{"1M", "10G", "100G"}).Draw(t, "share"))
			case 1:
				result.AdminAccess = new(true)
			case 2:
				result.Driver = "other.example.com"
			}
		}
		for range rapid.IntRange(0, 3).Draw(t, "configs") {
			body := rapid.SampledFrom([]string{
				`GPUConfig {}`, vfioGPU, `NICConfig {}`, vfioNIC, vfSettings, vfForMachines, nicSettings, `NICConfig {"mode": "macvlan"}`, `NICConfig {"mode": "ipvlan"}`,
				`NICConfig {"attach": "Multus"}`, `NICConfig {"rdma": "None"}`, `EgressConfig {}`, `EgressConfig {"kernelBypass": "Allow"}`,
			}).Draw(t, "config")
			source := rapid.SampledFrom([]resourceapi.AllocationConfigSource{class, claim}).Draw(t, "source")
			var of []string
			if rapid.Bool().Draw(t, "named") {
				of = []string{rapid.SampledFrom(requests).Draw(t, "of")}
			}
			with(c, source, body, of...)
		}
		if planPurely(t, c) {
			done++
		}
	})
	if t.Logf("%d were planned", done); done == 0 {
		t.Error("none of the claims can be planned")
	}
}

// What a class and a claim say together is what a class would say alone that says
// the fields of both, and the claim's where both have one.
func TestClaimsFieldsWinOverThoseOfTheClass(t *testing.T) {
	both := 0
	rapid.Check(t, func(t *rapid.T) {
		for range 5 { // of which few are valid
			if mergedAsOne(t, anyNICConfig(t), anyNICConfig(t)) {
				both++
			}
		}
	})
	if t.Logf("%d were planned", both); both == 0 {
		t.Error("none of the configs is valid")
	}
}

// mergedAsOne reports whether the configs were planned.
func mergedAsOne(t *rapid.T, ofClass, own map[string]any) bool {
	together := maps.Clone(ofClass)
	for field, value := range own {
		under, isObject := ofClass[field].(map[string]any)
		over, stillIs := value.(map[string]any)
		if isObject && stillIs { // none of these configs has an object in an object that both set
			inner := maps.Clone(under)
			maps.Copy(inner, over)
			value = inner
		}
		together[field] = value
	}
	body := func(fields map[string]any) string {
		raw, err := json.Marshal(fields)
		if err != nil {
			t.Fatal(err)
		}
		return "NICConfig " + string(raw)
	}
	want, refused := planOn(ableMachine(), with(allocated("c", onNIC(nicVF0)), class, body(together)))
	got, err := planOn(ableMachine(), with(with(allocated("c", onNIC(nicVF0)), class, body(ofClass)), claim, body(own)))
	switch {
	case err != nil && refused == nil && !strings.Contains(err.Error(), "DeviceClass"):
		t.Fatal("refused is what one class may say: ", err)
	case err == nil && refused != nil:
		t.Fatal("planned is what a class may not say: ", refused)
	case err != nil:
		return false
	}
	if diff := gocmp.Diff(want, got, planned()...); diff != "" {
		t.Fatal("(-one class +class and claim):\n" + diff)
	}
	return true
}
