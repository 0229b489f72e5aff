package claim

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	resourceapi "k8s.io/api/resource/v1"
	metadataapi "k8s.io/dynamic-resource-allocation/api/metadata"

	"github.com/hostler-dev/hostler/driver/metadata"
	"github.com/hostler-dev/hostler/driver/publish"
	"github.com/hostler-dev/hostler/netattach"
)

func TestContainersAreToldWhatChainsMade(t *testing.T) {
	entry := &Entry{Devices: []Device{{Request: "r", Pool: "p", Name: "nic-0"}}}
	content := &metadata.Content{Requests: []metadataapi.DeviceMetadataRequest{{Name: "r", Devices: []metadataapi.Device{{Name: "nic-0", Attributes: publish.Attributes{"hostler.dev/type": {}}}}}}}
	texts := func(values ...string) resourceapi.DeviceAttribute {
		return resourceapi.DeviceAttribute{StringValues: values}
	}
	network := func(name string, server string, made ...netattach.InterfaceState) netattach.NetworkState {
		return netattach.NetworkState{Namespace: "ns", Name: name, Interfaces: made, DNS: &netattach.NetworkDNS{NameServers: []string{server}}}
	}
	at := func(name string, addresses ...string) netattach.InterfaceState {
		made := netattach.InterfaceState{Name: name}
		for _, address := range addresses {
			made.Addresses = append(made.Addresses, netip.MustParsePrefix(address))
		}
		return made
	}
	attached := []netattach.DeviceState{{Pool: "p", Device: "nic-0", Interface: "net1", Networks: []netattach.NetworkState{
		network("tuned", "192.0.2.53", at("net1", "10.1.0.5/24")), network("storage", "192.0.2.53", at("mv0", "10.3.0.5/24", "2001:db8::5/64"), at("mv1")), network("again", "192.0.2.54", at("mv1")),
	}}}
	bare := map[resourceapi.QualifiedName]resourceapi.DeviceAttribute{"hostler.dev/type": {}}
	told := map[resourceapi.QualifiedName]resourceapi.DeviceAttribute{"hostler.dev/type": {}, "hostler.dev/networkInterfaces": texts("mv0", "mv1"),
		"hostler.dev/networkAddresses": texts("mv0=10.3.0.5/24", "mv0=2001:db8::5/64"), "hostler.dev/networkNameServers": texts("192.0.2.53", "192.0.2.54")}
	for _, moment := range []struct {
		name   string
		states []netattach.DeviceState
		want   map[resourceapi.QualifiedName]resourceapi.DeviceAttribute
	}{
		{"before the pod is attached", nil, bare}, {"in its pod", attached, told}, {"once more", attached, told},
		{"in two pods", append(attached, attached...), bare}, {"after its end", nil, bare},
	} {
		connect(content, entry, moment.states)
		if diff := cmp.Diff(moment.want, content.Requests[0].Devices[0].Attributes); diff != "" {
			t.Errorf("%s (-want +got):\n%s", moment.name, diff)
		}
	}
}

func TestDataThatIsTooLongSaysSo(t *testing.T) {
	network := netattach.NetworkState{Namespace: "ns", Name: "n", DNS: &netattach.NetworkDNS{Domain: strings.Repeat("d", 4000)}}
	for count, truncated := range map[int]bool{2: false, 3: true} {
		state := netattach.DeviceState{}
		for range count {
			state.Networks = append(state.Networks, network)
		}
		data := ChainData(state)
		if data == nil || strings.Contains(string(data.Raw), `"truncated":true`) != truncated || strings.Count(string(data.Raw), `"name":"n"`) != 2 {
			t.Errorf("of %d networks: %.200v", count, data)
		}
	}
	network.DNS.Domain = strings.Repeat("d", 20000)
	if data := ChainData(netattach.DeviceState{Networks: []netattach.NetworkState{network}}); data != nil {
		t.Errorf("of one that does not fit at all: %d bytes", len(data.Raw))
	}
}
