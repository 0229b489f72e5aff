package v1alpha1

import (
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/util/validation/field"
)

func TestMultusResourceNames(t *testing.T) {
	for name, test := range map[string]struct {
		names  []MultusResourceName
		faults []string
	}{
		"none":                              {nil, nil},
		"for all NICs":                      {[]MultusResourceName{{ResourceName: "example.com/rail"}}, nil},
		"some, and one for the others":      {[]MultusResourceName{{ResourceName: "a", PCIAddresses: []string{"0000:18:00.0"}, Interfaces: []string{"eth1"}}, {ResourceName: "b"}}, nil},
		"others before some":                {[]MultusResourceName{{ResourceName: "b"}, {ResourceName: "a", Interfaces: []string{"eth1"}}}, []string{"[0]: Required"}},
		"no name":                           {[]MultusResourceName{{}}, []string{"[0].resourceName: Required"}},
		"a name that is none":               {[]MultusResourceName{{ResourceName: "a b"}}, []string{`[0].resourceName: Invalid value: "a b"`}},
		"a name that no attribute can have": {[]MultusResourceName{{ResourceName: "example.com/" + strings.Repeat("a", 53)}}, []string{"[0].resourceName: Too long"}},
		"an address without domain":         {[]MultusResourceName{{ResourceName: "a", PCIAddresses: []string{"18:00.0"}}}, []string{"[0].pciAddresses[0]: Invalid"}},
		"an interface that none is called":  {[]MultusResourceName{{ResourceName: "a", Interfaces: []string{"", "sixteencharacter"}}}, []string{"[0].interfaces[0]: Invalid", "[0].interfaces[1]: Invalid"}},
		"a NIC by two names": {[]MultusResourceName{{ResourceName: "a", PCIAddresses: []string{"0000:18:00.0"}, Interfaces: []string{"eth1"}}, {ResourceName: "b", PCIAddresses: []string{"0000:18:00.0"}, Interfaces: []string{"eth1"}}},
			[]string{"[1].pciAddresses[0]: Duplicate", "[1].interfaces[0]: Duplicate"}},
	} {
		t.Run(name, func(t *testing.T) {
			faults := validateMultusResourceNames(test.names, field.NewPath("publish", "multusResourceNames"))
			if len(faults) != len(test.faults) {
				t.Fatalf("got %v, want %d faults", faults, len(test.faults))
			}
			for i, fault := range faults {
				if !strings.HasPrefix(fault.Error(), "publish.multusResourceNames"+test.faults[i]) {
					t.Errorf("got %v, want %s", fault, test.faults[i])
				}
			}
		})
	}
}
