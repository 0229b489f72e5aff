package link

// What lies on a netdev. A VLAN or macvlan of the host would stay on the host when
// its netdev moves and carry the host's traffic through the pod (vlan_device_event
// and macvlan_device_event let a move pass); a bond or bridge would lose its port
// and not get it back.

import (
	"fmt"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
)

// unencumbered refuses a netdev that others on the host depend on.
func unencumbered(links []netlink.Link, link netlink.Link) error {
	attrs := link.Attrs()
	var uses []string
	for _, other := range links {
		o := other.Attrs()
		switch {
		case o.Index == attrs.MasterIndex:
			uses = append(uses, fmt.Sprintf("it is a port of the %s %s", other.Type(), o.Name))
		case o.MasterIndex == attrs.Index:
			uses = append(uses, fmt.Sprintf("%s is a port of it", o.Name))
		// A peer is named like a device below, too. One in another namespace has a number.
		case o.ParentIndex == attrs.Index && o.NetNsID < 0 && !slices.Contains([]string{"veth", "netkit"}, other.Type()):
			uses = append(uses, fmt.Sprintf("the %s %s lies on it", other.Type(), o.Name))
		}
	}
	if len(uses) == 0 {
		return nil
	}
	return fmt.Errorf("the node itself uses %s: %s; take it out of the node's network configuration (or leave it to the node, by a device selector in the claim's or class's request)", attrs.Name, strings.Join(uses, ", "))
}
