package claim

// What CNI chains did for a device, told on: networkData has a place for one interface,
// that of the device itself, so the others are in the device's data in the claim's
// status, and in attributes in the files that containers read. The DNS of a network is
// told there, too, since nobody can give it to a pod that is being started.

import (
	"encoding/json"
	"slices"

	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/hostler-dev/hostler/driver/publish"
	"github.com/hostler-dev/hostler/netattach"
)

// chainData is the form of status.devices[].data, see docs/networking.md.
type chainData struct {
	Networks []chainNetwork `json:"networks"`
	// Truncated says that some are left out, because the API has no room for them.
	Truncated bool `json:"truncated,omitempty"`
}

type chainNetwork struct {
	Namespace  string                          `json:"namespace"`
	Name       string                          `json:"name"`
	Interfaces []resourceapi.NetworkDeviceData `json:"interfaces,omitempty"`
	DNS        *chainDNS                       `json:"dns,omitempty"`
}

// chainDNS has the names of CNI's results.
type chainDNS struct {
	NameServers []string `json:"nameservers,omitempty"`
	Domain      string   `json:"domain,omitempty"`
	Search      []string `json:"search,omitempty"`
	Options     []string `json:"options,omitempty"`
}

// ChainData says what the chains of a device made and said, nil if it has none.
func ChainData(state netattach.DeviceState) *runtime.RawExtension {
	var told chainData
	for _, network := range state.Networks {
		one := chainNetwork{Namespace: network.Namespace, Name: network.Name}
		for _, made := range network.Interfaces {
			one.Interfaces = append(one.Interfaces, *NetworkData(netattach.DeviceState{Interface: made.Name, MAC: made.MAC, Addresses: made.Addresses}))
		}
		if dns := network.DNS; dns != nil {
			one.DNS = &chainDNS{NameServers: dns.NameServers, Domain: dns.Domain, Search: dns.Search, Options: dns.Options}
		}
		told.Networks = append(told.Networks, one)
	}
	for len(told.Networks) > 0 {
		raw, err := json.Marshal(told)
		if err == nil && len(raw) <= resourceapi.AllocatedDeviceStatusDataMaxLength { // text alone is always JSON
			return &runtime.RawExtension{Raw: raw}
		}
		told.Networks, told.Truncated = told.Networks[:len(told.Networks)-1], true
	}
	return nil
}

// withChains is what is said of the device with what its chains made.
func withChains(attributes publish.Attributes, state netattach.DeviceState) publish.Attributes {
	var interfaces, addresses, nameServers []string
	add := func(list *[]string, value string) {
		if !slices.Contains(*list, value) {
			*list = append(*list, value)
		}
	}
	for _, network := range state.Networks {
		for _, made := range network.Interfaces {
			if made.Name == state.Interface {
				continue
			}
			add(&interfaces, made.Name)
			for _, address := range made.Addresses {
				add(&addresses, made.Name+"="+address.String())
			}
		}
		if network.DNS != nil {
			for _, server := range network.DNS.NameServers {
				add(&nameServers, server)
			}
		}
	}
	return attributes.WithNetworks(interfaces, addresses, nameServers)
}
