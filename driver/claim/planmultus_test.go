package claim

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	resourceapi "k8s.io/api/resource/v1"

	"github.com/hostler-dev/hostler/api/v1alpha1"
	"github.com/hostler-dev/hostler/netattach"
)

// fromTemplate makes the claim one that was made from a template.
func fromTemplate(c *resourceapi.ResourceClaim) *resourceapi.ResourceClaim {
	c.Annotations = map[string]string{resourceapi.PodResourceClaimAnnotation: "mine"}
	return c
}

// multusClaim has Multus attach its NICs.
func multusClaim(name string, devices ...[2]string) *resourceapi.ResourceClaim {
	c := allocated(name, devices...)
	for i, device := range devices {
		if device[0] == "nic" {
			with(c, claim, `NICConfig {"attach": "Multus", "rdma": "None"}`, fmt.Sprintf("r%d", i))
		}
	}
	return c
}

func TestNamesByWhichMultusFindsADevice(t *testing.T) {
	rail := []v1alpha1.MultusResourceName{{ResourceName: "example.com/rail", Interfaces: []string{"eth1"}}}
	for name, test := range map[string]struct {
		claim   *resourceapi.ResourceClaim
		names   []v1alpha1.MultusResourceName
		want    string
		refused string
	}{
		"of a claim that is used by its name, that name":        {multusClaim("c", onNIC(nicPlain)), nil, "c", ""},
		"of such a claim, whatever name the device has":         {multusClaim("c", onNIC(nicRDMA)), rail, "c", ""},
		"of a claim from a template, the device's":              {fromTemplate(multusClaim("c", onNIC(nicRDMA))), rail, "example.com/rail", ""},
		"of a claim from a template, a device without a name":   {fromTemplate(multusClaim("c", onNIC(nicPlain))), rail, "", "publish.multusResourceNames"},
		"of a claim by its name, with another device in it":     {multusClaim("c", onNIC(nicPlain), onEgress()), nil, "", "a claim of its own"},
		"of a claim from a template, two devices of one name":   {fromTemplate(multusClaim("c", onNIC(nicPlain), onNIC(nicRDMA))), []v1alpha1.MultusResourceName{{ResourceName: "all"}}, "", "under the resource name all"},
		"of a claim from a template, with another device in it": {fromTemplate(multusClaim("c", onNIC(nicRDMA), onEgress())), rail, "example.com/rail", ""},
	} {
		t.Run(name, func(t *testing.T) {
			entry, err := Plan(PlanInput{Claim: test.claim, NodeName: node, Snapshot: machine(), Resolvers: []netip.Addr{}, MultusResourceNames: test.names})
			if test.refused != "" {
				if err == nil || !strings.Contains(err.Error(), test.refused) {
					t.Errorf("got %v, want a refusal that says %q", err, test.refused)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			network := entry.Devices[0].Network
			if !network.External || network.ResourceName != test.want || network.PodName != "" {
				t.Errorf("planned %+v, want an external device of resource name %q whose name in the pod is not known", network, test.want)
			}
		})
	}
}

// Multus hands devices of one resource name out by order, whatever claim they are of.
func TestTwoClaimsOfAPodForMultusByOneNameAreRefused(t *testing.T) {
	plan := func(name, nic string) *Entry {
		c := fromTemplate(multusClaim(name, onNIC(nic)))
		c.Status.ReservedFor[0].UID = "one-pod"
		entry, err := Plan(PlanInput{Claim: c, NodeName: node, Snapshot: machine(), Resolvers: []netip.Addr{}, MultusResourceNames: []v1alpha1.MultusResourceName{{ResourceName: "all"}}})
		if err != nil {
			t.Fatal(err)
		}
		return entry
	}
	first, second := plan("a", nicRDMA), plan("b", nicPlain)
	if err := checkTogether(first, second); err == nil || !strings.Contains(err.Error(), nicRDMA) || !strings.Contains(err.Error(), nicPlain) {
		t.Errorf("got %v, want a refusal that names both", err)
	}
}

func TestDeviceForMultusIsToldAndNotedBeforeItGoes(t *testing.T) {
	r := newRoom(t, t.TempDir(), boot)
	asItIs := []netip.Prefix{netip.MustParsePrefix("192.0.2.7/24")}
	r.admission.HostState = func(device netattach.DeviceIntent) (netattach.DeviceIntent, error) {
		device.HostAddresses, device.HostMTU, device.HostUp = asItIs, 9000, true
		return device, nil
	}
	c := with(allocated("storage", onNIC(nicRDMA)), claim, `NICConfig {"attach": "Multus"}`)
	entry, err := r.prepare(c)
	if err != nil {
		t.Fatal(err)
	}
	network := entry.Devices[0].Network
	if diff := cmp.Diff(asItIs, network.HostAddresses, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" || network.HostMTU != 9000 || !network.HostUp {
		t.Errorf("noted of the device on the host: %+v", network)
	}
	if ids := entry.CDIDeviceIDs(&entry.Devices[0]); len(ids) != 1 || !strings.HasSuffix(ids[0], "=0000:18:00.0") {
		t.Errorf("the kubelet is told of %v, want one name in which Multus finds the address", ids)
	}
	file := filepath.Join(r.steps.DeviceInfo.Path, "dp", "storage-0000:18:00.0-device.json")
	raw, err := os.ReadFile(file)
	if err != nil || !strings.Contains(string(raw), `"rdma-device":"mlx5_0"`) {
		t.Errorf("device info: %s, %v", raw, err)
	}
	// A repeated prepare puts back what somebody removed.
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if _, err := r.prepare(c); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(file); err != nil {
		t.Error(err)
	}
	if err := r.Unprepare(t.Context(), c.UID); err != nil {
		t.Fatal(err)
	}
	if left, err := filepath.Glob(filepath.Join(filepath.Dir(file), "*")); err != nil || len(left) > 0 {
		t.Errorf("left after the claim: %v, %v", left, err)
	}
}
