package multus

// What a chain answers, in our words: the interfaces in the pod that it has to do
// with, each with its addresses, and how the network's names are resolved. What it
// did on the node (a bridge, the node's end of a veth) is nobody's to know.

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"

	"github.com/hostler-dev/hostler/netattach"
)

// state reads the chain's answer. An address belongs to the interface that it points
// to, or to the one for which the chain was run (CNI specification, "ips": interface
// is optional). That one is told of even if only its addresses are: results before
// version 0.3.0 name no interfaces.
func (a Attachment) state(answer types.Result) (netattach.NetworkState, error) {
	state := netattach.NetworkState{Namespace: a.Network.Namespace, Name: a.Network.Name}
	if answer == nil {
		return state, nil
	}
	result, err := current.NewResultFromResult(answer)
	if err != nil {
		return state, fmt.Errorf("result of the CNI chain of %s: %w", a, err)
	}
	own := netattach.InterfaceState{Name: a.InterfaceName()}
	listed := false
	others := map[int]*netattach.InterfaceState{}
	var order []int
	for i, one := range result.Interfaces {
		switch {
		case one == nil || one.Sandbox == "":
		case one.Name == own.Name:
			own.MAC, listed = strings.ToLower(one.Mac), true
			others[i] = &own
		default:
			others[i] = &netattach.InterfaceState{Name: one.Name, MAC: strings.ToLower(one.Mac)}
			order = append(order, i)
		}
	}
	for _, ip := range result.IPs {
		if ip == nil {
			continue
		}
		of := &own
		if ip.Interface != nil {
			of = others[*ip.Interface]
		}
		if prefix, ok := prefixOf(ip); ok && of != nil && !slices.Contains(of.Addresses, prefix) {
			of.Addresses = append(of.Addresses, prefix)
		}
	}
	if listed || len(own.Addresses) > 0 {
		state.Interfaces = append(state.Interfaces, own)
	}
	for _, i := range order {
		state.Interfaces = append(state.Interfaces, *others[i])
	}
	state.DNS = dnsOf(result.DNS)
	return state, nil
}

func prefixOf(ip *current.IPConfig) (netip.Prefix, bool) {
	address, ok := netip.AddrFromSlice(ip.Address.IP)
	bits, _ := ip.Address.Mask.Size()
	prefix := netip.PrefixFrom(address.Unmap(), bits)
	return prefix, ok && prefix.IsValid()
}

func dnsOf(dns types.DNS) *netattach.NetworkDNS {
	if len(dns.Nameservers) == 0 && dns.Domain == "" && len(dns.Search) == 0 && len(dns.Options) == 0 {
		return nil
	}
	return &netattach.NetworkDNS{NameServers: dns.Nameservers, Domain: dns.Domain, Search: dns.Search, Options: dns.Options}
}
