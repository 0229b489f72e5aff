// Which NICs does the node itself live on? Giving one of them to a pod cuts the
// node off, so the answer is drawn wide: every default route of either family and
// any metric, every address that the cluster knows the node by, and from the links
// that these name, everything stacked on or under them - VLANs, bonds, bridges, macvlans,
// Open vSwitch - down to the PCI function, its PF and its VFs.
// Where the kernel's answer is incomplete, every NIC is an uplink, and says why.

package nic

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/hostler-dev/hostler/topology"
	"github.com/hostler-dev/hostler/topology/sysfs"
)

// markUplinks sets NIC.Uplink. unread is why the network could not be read, nil if it could.
func markUplinks(functions []*function, n *network, sys sysfs.Root, nodeAddresses []netip.Addr, unread error) []topology.Problem {
	if unread != nil {
		for _, f := range functions {
			f.nic.Uplink = fmt.Sprintf("cannot be told apart from the node's uplink: %v", unread)
		}
		return nil
	}
	reasons := uplinkReasons(n, sys, nodeAddresses)
	for _, f := range functions {
		for _, netdev := range f.netdevs {
			if reason := reasons[n.byName[netdev].Index]; reason != "" && f.nic.Uplink == "" {
				f.nic.Uplink = reason
			}
		}
	}
	spreadOverSRIOV(functions)
	if len(reasons) == 0 && len(functions) > 0 {
		return []topology.Problem{{
			Subject: "uplink",
			Message: "the node has no default route and none of its links carries the node's address: no NIC is marked as the node's uplink; give the agent the node's address",
		}}
	}
	return nil
}

// spreadOverSRIOV: a VF lives on its PF's port, so an uplink VF makes its PF an
// uplink and an uplink PF its VFs. Siblings of an uplink VF stay free.
func spreadOverSRIOV(functions []*function) {
	own := map[string]string{} // reasons before spreading
	for _, f := range functions {
		own[f.nic.Name] = f.nic.Uplink
	}
	for _, f := range functions {
		if f.nic.Kind != topology.VF {
			continue
		}
		if reason := own[f.nic.Parent]; reason != "" && f.nic.Uplink == "" {
			f.nic.Uplink = fmt.Sprintf("is a VF of %s, which %s", f.nic.Parent, reason)
		}
		if own[f.nic.Name] == "" {
			continue
		}
		for _, pf := range functions {
			if pf.nic.Name == f.nic.Parent && pf.nic.Uplink == "" {
				pf.nic.Uplink = fmt.Sprintf("is the PF of %s, which %s", f.nic.Name, own[f.nic.Name])
			}
		}
	}
}

// uplinkReasons maps link indexes to the reason why the node lives on them.
func uplinkReasons(n *network, sys sysfs.Root, nodeAddresses []netip.Addr) map[int]string {
	names := map[int]string{}
	loopback := 0
	for _, link := range n.links {
		names[link.Index] = link.Name
		if link.Name == "lo" {
			loopback = link.Index
		}
	}
	reasons := map[int]string{}
	var queue []int
	add := func(link int, reason string) {
		if link == 0 || link == loopback || names[link] == "" || reasons[link] != "" {
			return
		}
		reasons[link] = reason
		queue = append(queue, link)
	}
	for _, route := range n.routes {
		if !isDefault(route.Destination) {
			continue
		}
		for _, link := range route.Links {
			add(link, fmt.Sprintf("carries the default route %s via %s", route.Destination, names[link]))
		}
	}
	for _, address := range n.all {
		if slices.Contains(nodeAddresses, address.Prefix.Addr()) {
			add(address.Link, fmt.Sprintf("carries the node's address %s on %s", address.Prefix.Addr(), names[address.Link]))
		}
	}
	joined := neighbours(n, sys)
	for len(queue) > 0 {
		link := queue[0]
		queue = queue[1:]
		for _, next := range joined[link] {
			reason := reasons[link]
			if !strings.Contains(reason, "through") {
				reason = fmt.Sprintf("is stacked with %s and through it %s", names[link], reason)
			}
			add(next, reason)
		}
	}
	return reasons
}

// isDefault also takes the halves 0.0.0.0/1 and 128.0.0.0/1, by which VPN
// software overrides a default route without replacing it.
func isDefault(destination netip.Prefix) bool {
	return destination.IsValid() && destination.Bits() <= 1
}

// neighbours joins links that are stacked on each other, in both directions:
// what is below an uplink carries it, and what is above it is cut off with it.
func neighbours(n *network, sys sysfs.Root) map[int][]int {
	joined := map[int][]int{}
	join := func(a, b int) {
		if a != 0 && b != 0 && a != b {
			joined[a] = append(joined[a], b)
			joined[b] = append(joined[b], a)
		}
	}
	var switchPorts []int
	for _, link := range n.links {
		join(link.Index, link.Master)
		join(link.Index, link.Lower)
		if link.Kind == "openvswitch" {
			// All of Open vSwitch hangs together below the kernel's view: which port
			// a bridge's internal netdev leaves by is decided by flows.
			switchPorts = append(switchPorts, link.Index)
		}
		if link.Kind == "device" || link.Kind == "veth" {
			continue // nothing is below hardware, and there may be thousands of it
		}
		// Kinds with several links below (hsr, team) name only one by netlink.
		names, err := sys.Names("class", "net", link.Name)
		if err != nil {
			continue // netlink has named master and lower already
		}
		for _, name := range names {
			if lower, ok := strings.CutPrefix(name, "lower_"); ok {
				join(link.Index, n.byName[lower].Index)
			}
		}
	}
	for _, port := range switchPorts {
		join(switchPorts[0], port)
	}
	return joined
}
