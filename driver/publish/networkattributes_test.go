package publish

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	resourceapi "k8s.io/api/resource/v1"
)

func TestAttributesOfNetworks(t *testing.T) {
	texts := func(values ...string) resourceapi.DeviceAttribute {
		return resourceapi.DeviceAttribute{StringValues: values}
	}
	kind := texts("nic")
	full := Attributes{}
	for i := range resourceapi.ResourceSliceMaxAttributesAndCapacitiesPerDevice - 1 {
		full[own(fmt.Sprintf("a%d", i))] = kind
	}
	for name, test := range map[string]struct {
		before                             Attributes
		interfaces, addresses, nameServers []string
		want                               Attributes
	}{
		"nothing of nothing":   {nil, nil, nil, nil, nil},
		"an interface":         {Attributes{"type": kind}, []string{"mv0"}, []string{"mv0=10.3.0.5/24"}, nil, Attributes{"type": kind, own(networkInterfaces): texts("mv0"), own(networkAddresses): texts("mv0=10.3.0.5/24")}},
		"of a device unknown":  {nil, nil, nil, []string{"192.0.2.53"}, Attributes{own(networkNameServers): texts("192.0.2.53")}},
		"none any more":        {Attributes{"type": kind, own(networkInterfaces): texts("mv0")}, nil, nil, nil, Attributes{"type": kind}},
		"too long for the API": {Attributes{}, []string{"mv0"}, nil, []string{strings.Repeat("x", 65)}, Attributes{own(networkInterfaces): texts("mv0")}},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, test.before.WithNetworks(test.interfaces, test.addresses, test.nameServers)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
	if got := full.WithNetworks([]string{"mv0"}, []string{"mv0=10.3.0.5/24"}, []string{"192.0.2.53"}); len(got) != resourceapi.ResourceSliceMaxAttributesAndCapacitiesPerDevice || len(full) != len(got)-1 {
		t.Errorf("%d attributes of a device that had %d, want the API's limit", len(got), len(full))
	}
}
