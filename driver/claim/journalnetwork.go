// The network intent in version 1 of the journal, from when pods got netdevs with
// addresses, routes and CNI chains, and no more. An agent of that time would move a
// child's parent, leave an RDMA device in a pod, and restore less than there was: an intent
// that says anything else is for version 2, which has it as it is.

package claim

import (
	"net/netip"
	"reflect"

	"github.com/hostler-dev/hostler/netattach"
)

type networkV1 struct {
	Request       string         `json:"request"`
	Pool          string         `json:"pool"`
	Device        string         `json:"device"`
	PCI           string         `json:"pci"`
	HostName      string         `json:"hostName"`
	PodName       string         `json:"podName"`
	HostMAC       string         `json:"hostMAC"`
	PodIndex      int            `json:"podIndex,omitempty"`
	HostMTU       int            `json:"hostMTU,omitempty"`
	HostUp        bool           `json:"hostUp,omitempty"`
	HostAddresses []netip.Prefix `json:"hostAddresses,omitempty"`
	MTU           int            `json:"mtu,omitempty"`
	Addresses     []netip.Prefix `json:"addresses,omitempty"`
	Routes        []routeV1      `json:"routes,omitempty"`
	Networks      []chainV1      `json:"networks,omitempty"`
}

type routeV1 struct {
	Destination netip.Prefix `json:"destination"`
	Gateway     netip.Addr   `json:"gateway,omitzero"`
}

type chainV1 struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	Config    []byte `json:"config"`
}

// isInV1 reports whether version 1 can say the intent: what comes back from it is all
// that there was, whatever fields intents have by now.
func isInV1(intent *netattach.DeviceIntent) bool {
	return reflect.DeepEqual(networkFromV1(networkToV1(intent)), intent)
}

func networkToV1(in *netattach.DeviceIntent) *networkV1 {
	if in == nil {
		return nil
	}
	out := &networkV1{
		Request: in.Request, Pool: in.Pool, Device: in.Device, PCI: in.PCI, HostName: in.HostName, PodName: in.PodName, HostMAC: in.HostMAC,
		PodIndex: in.PodIndex, HostMTU: in.HostMTU, HostUp: in.HostUp, HostAddresses: in.HostAddresses, MTU: in.MTU, Addresses: in.Addresses,
	}
	for _, route := range in.Routes {
		out.Routes = append(out.Routes, routeV1{Destination: route.Destination, Gateway: route.Gateway})
	}
	for _, chain := range in.Networks {
		out.Networks = append(out.Networks, chainV1{Namespace: chain.Namespace, Name: chain.Name, Config: chain.Config})
	}
	return out
}

func networkFromV1(in *networkV1) *netattach.DeviceIntent {
	if in == nil {
		return nil
	}
	out := &netattach.DeviceIntent{
		Request: in.Request, Pool: in.Pool, Device: in.Device, PCI: in.PCI, HostName: in.HostName, PodName: in.PodName, HostMAC: in.HostMAC,
		PodIndex: in.PodIndex, HostMTU: in.HostMTU, HostUp: in.HostUp, HostAddresses: in.HostAddresses, MTU: in.MTU, Addresses: in.Addresses,
	}
	for _, route := range in.Routes {
		out.Routes = append(out.Routes, netattach.Route{Destination: route.Destination, Gateway: route.Gateway})
	}
	for _, chain := range in.Networks {
		out.Networks = append(out.Networks, netattach.NetworkIntent{Namespace: chain.Namespace, Name: chain.Name, Config: chain.Config})
	}
	return out
}
