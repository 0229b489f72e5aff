// What goes into a pod for a NIC, put from the words of a valid NICConfig into
// values. All of it is written down, so that attaching has nothing to decide.

package claim

import (
	"cmp"
	"fmt"
	"net/netip"
	"strings"

	"github.com/hostler-dev/hostler/api/v1alpha1"
	"github.com/hostler-dev/hostler/netattach"
	"github.com/hostler-dev/hostler/topology"
)

func networkIntent(device *Device, nic *topology.NIC, config *v1alpha1.NICConfig, namespace string) (*netattach.DeviceIntent, error) {
	intent := &netattach.DeviceIntent{
		Request: device.Request, Pool: device.Pool, Device: device.Name, ShareID: device.ShareID, PCI: nic.Placement.PCI,
		HostName: nic.Link.Name, HostMAC: nic.Link.MAC, HardwareAddress: strings.ToLower(config.HardwareAddress),
	}
	if intent.External = config.Attach == v1alpha1.AttachMultus; !intent.External {
		intent.PodName = cmp.Or(config.InterfaceName, defaultName(nic))
	}
	switch config.Mode {
	case v1alpha1.NICModeMacvlan:
		intent.Child = &netattach.ChildIntent{Kind: string(config.Mode), Mode: string(config.Macvlan.Mode)}
	case v1alpha1.NICModeIPVLAN:
		intent.Child = &netattach.ChildIntent{Kind: string(config.Mode), Mode: string(config.IPVLAN.Mode)}
	}
	if config.MTU != nil {
		intent.MTU = int(*config.MTU)
	}
	for name, value := range config.Sysctls {
		if intent.Sysctls == nil {
			intent.Sysctls = map[string]string{}
		}
		intent.Sysctls[strings.ReplaceAll(name, ".", "/")] = value
	}
	if config.Ethtool != nil {
		intent.Features, intent.PrivateFlags = config.Ethtool.Features, config.Ethtool.PrivateFlags
	}
	return intent, addressing(intent, config, namespace)
}

// defaultName is the host's, or, where that is no name for a pod's interface, one by
// where the NIC sits.
func defaultName(nic *topology.NIC) string {
	if v1alpha1.InterfaceNameFault(nic.Link.Name) == "" {
		return nic.Link.Name
	}
	name := "nic" + strings.NewReplacer(":", "", ".", "").Replace(nic.Placement.PCI)
	return name[max(0, len(name)-15):]
}

// addressing fills in all that is about addresses of the network.
func addressing(intent *netattach.DeviceIntent, config *v1alpha1.NICConfig, namespace string) error {
	var read reading
	for _, address := range config.Addresses {
		intent.Addresses = append(intent.Addresses, read.prefix(address))
	}
	for _, route := range config.Routes {
		intent.Routes = append(intent.Routes, read.route(route, config.VRF))
	}
	for _, rule := range config.Rules {
		intent.Rules = append(intent.Rules, netattach.Rule{Priority: rule.Priority, Source: read.prefix(rule.Source), Destination: read.prefix(rule.Destination), Table: rule.Table})
	}
	for _, neighbour := range config.Neighbours {
		intent.Neighbours = append(intent.Neighbours, netattach.Neighbour{Address: read.address(neighbour.Address), HardwareAddress: strings.ToLower(neighbour.HardwareAddress)})
	}
	if vrf := config.VRF; vrf != nil {
		intent.VRF = &netattach.VRF{Name: vrf.Name, Table: vrf.Table}
	}
	for _, network := range config.Networks {
		planned := netattach.NetworkIntent{Namespace: cmp.Or(network.Namespace, namespace), Name: network.Name, MAC: strings.ToLower(network.MAC)}
		if network.InterfaceName != intent.PodName {
			planned.Interface = network.InterfaceName
		}
		for _, ip := range network.IPs {
			planned.IPs = append(planned.IPs, read.prefix(ip))
		}
		for _, gateway := range network.DefaultRoute {
			planned.DefaultRoute = append(planned.DefaultRoute, read.address(gateway))
		}
		intent.Networks = append(intent.Networks, planned)
	}
	return read.fault
}

// reading takes texts that were validated for what they say. Its fault is the first
// that is wrong all the same. Nothing is said by "".
type reading struct{ fault error }

func read[T any](r *reading, text string, parse func(string) (T, error)) T {
	var none T
	if text == "" {
		return none
	}
	value, err := parse(text)
	if err != nil && r.fault == nil {
		r.fault = fmt.Errorf("the NICConfig says %q where an address is needed: %w", text, err)
	}
	return value
}

func (r *reading) prefix(text string) netip.Prefix { return read(r, text, netip.ParsePrefix) }

func (r *reading) address(text string) netip.Addr { return read(r, text, netip.ParseAddr) }

func (r *reading) route(route v1alpha1.Route, vrf *v1alpha1.VRFConfig) netattach.Route {
	planned := netattach.Route{
		Destination: r.prefix(route.Destination), Gateway: r.address(route.Gateway), OnLink: route.OnLink, Source: r.address(route.Source),
		// A route without a gateway has the link's scope, one with a gateway the global one.
		Global: route.Gateway == "" && route.Scope == v1alpha1.RouteScopeGlobal,
		Table:  route.Table, Metric: route.Metric,
	}
	if planned.Table == 0 && vrf != nil {
		planned.Table = vrf.Table
	}
	return planned
}
