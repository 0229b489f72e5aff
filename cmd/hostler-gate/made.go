package main

// What CNI chains made in the pod for a claim, beside the claimed devices themselves: the
// agent has each interface on record with its index, which tells it from a later one of
// the same name, and with the addresses that the chain promised (netattach/attach,
// promises.go).

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
)

// deviceState is the part of netattach.DeviceState that the hook needs.
type deviceState struct {
	Networks []struct {
		Namespace  string `json:"namespace"`
		Name       string `json:"name"`
		Interfaces []made `json:"interfaces"`
	} `json:"networks"`
}

// made is the part of netattach.InterfaceState that the hook needs.
type made struct {
	Name string `json:"name"`
	// Index is 0 for the claimed device itself.
	Index     int            `json:"index"`
	Addresses []netip.Prefix `json:"addresses"`
}

// proveMade runs in the container's network namespace.
func (d *deviceState) proveMade(interfaces []net.Interface) error {
	for _, network := range d.Networks {
		for _, promised := range network.Interfaces {
			if promised.Index == 0 {
				continue
			}
			at := slices.IndexFunc(interfaces, func(i net.Interface) bool { return i.Index == promised.Index && i.Name == promised.Name })
			if at < 0 {
				return fmt.Errorf("interface %s of network %s/%s is no longer in the pod as its CNI chain made it", promised.Name, network.Namespace, network.Name)
			}
			if err := promised.proveAddresses(&interfaces[at]); err != nil {
				return fmt.Errorf("network %s/%s: %w", network.Namespace, network.Name, err)
			}
		}
	}
	return nil
}

// proveAddresses leaves their prefixes' lengths aside, as the agent does.
func (m *made) proveAddresses(there *net.Interface) error {
	if len(m.Addresses) == 0 {
		return nil
	}
	addresses, err := there.Addrs()
	if err != nil {
		return fmt.Errorf("cannot list the addresses of the pod's interface %s: %w", m.Name, err)
	}
	for _, promised := range m.Addresses {
		if !slices.ContainsFunc(addresses, func(a net.Addr) bool {
			known, ok := a.(*net.IPNet)
			return ok && known.IP.Equal(promised.Addr().AsSlice())
		}) {
			return fmt.Errorf("interface %s no longer has the address %s that its CNI chain gave it", m.Name, promised.Addr())
		}
	}
	return nil
}
