package publish

import (
	"testing"

	resourceapi "k8s.io/api/resource/v1"

	"github.com/hostler-dev/hostler/api/v1alpha1"
	"github.com/hostler-dev/hostler/topology"
)

func TestResourceNames(t *testing.T) {
	snapshot := &topology.Snapshot{NICs: []topology.NIC{
		{Name: "pf", Kind: topology.PF, VFID: -1, Placement: topology.Placement{PCI: "0000:18:00.0"}, Link: &topology.Link{Name: "eth1"}},
		{Name: "vf", Kind: topology.VF, Parent: "pf", Placement: topology.Placement{PCI: "0000:18:00.2"}, Link: &topology.Link{Name: "eth1v0"}},
		{Name: "other", Kind: topology.PF, VFID: -1, Placement: topology.Placement{PCI: "0000:2a:00.0"}},
	}}
	for name, test := range map[string]struct {
		names []v1alpha1.MultusResourceName
		want  map[string]string
	}{
		"none":                         {nil, nil},
		"one for all":                  {[]v1alpha1.MultusResourceName{{ResourceName: "all"}}, map[string]string{"pf": "all", "vf": "all", "other": "all"}},
		"one for a PF, with its VFs":   {[]v1alpha1.MultusResourceName{{ResourceName: "rail", Interfaces: []string{"eth1"}}}, map[string]string{"pf": "rail", "vf": "rail"}},
		"the first that a NIC is in":   {[]v1alpha1.MultusResourceName{{ResourceName: "first", PCIAddresses: []string{"0000:18:00.2"}}, {ResourceName: "rest"}}, map[string]string{"pf": "rest", "vf": "first", "other": "rest"}},
		"one for an interface of a VF": {[]v1alpha1.MultusResourceName{{ResourceName: "vf", Interfaces: []string{"eth1v0"}}}, map[string]string{"vf": "vf"}},
	} {
		t.Run(name, func(t *testing.T) {
			published := map[string]string{}
			in := Input{NodeName: "node", Features: everything, Snapshot: snapshot, Publish: v1alpha1.PublishConfig{MultusResourceNames: test.names}}
			for _, slice := range Resources(in).Pools[NICPool("node")].Slices {
				for _, device := range slice.Devices {
					published[device.Name] = valueOf(device, ResourceNameAttribute)
				}
			}
			for _, nic := range snapshot.NICs {
				if got := published[nic.Name]; got != test.want[nic.Name] {
					t.Errorf("%s is published with resource name %q, want %q", nic.Name, got, test.want[nic.Name])
				}
			}
		})
	}
}

func valueOf(device resourceapi.Device, name resourceapi.QualifiedName) string {
	if value := device.Attributes[name].StringValue; value != nil {
		return *value
	}
	return ""
}
