// What lies on what: VLANs, macvlans and bonds over netdevs, bridges over their
// ports, tunnels over what carries their packets. Netlink tells most of it in one pass
// (IFLA_LINK, IFLA_MASTER, a tunnel's own attributes); sysfs is asked only about the
// few kinds that lie over several netdevs without being their master.

package nic

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"

	"github.com/hostler-dev/hostler/topology"
)

// stack joins links by what is directly below them.
type stack struct {
	n     *network
	below map[int][]int
	// netdevs lists those of a PCI function, functionOf is the other way round.
	netdevs    func(pci string) []string
	functionOf func(netdev string) string
}

// toldByNetlink are kinds whose lower netdevs IFLA_LINK and IFLA_MASTER show, or
// that have none; there may be thousands of veths. Sysfs is asked about others, such as hsr.
var toldByNetlink = map[string]bool{
	"device": true, "veth": true, "netkit": true, "dummy": true, "tun": true, "ifb": true, "wireguard": true,
	"vlan": true, "macvlan": true, "macvtap": true, "ipvlan": true, "ipvtap": true, "macsec": true, "ipoib": true, "dsa": true, "xfrm": true,
	"bond": true, "team": true, "bridge": true, "vrf": true, "openvswitch": true,
}

func (r *Reader) stackOf(n *network) *stack {
	s := &stack{n: n, below: map[int][]int{}, netdevs: func(pci string) []string { return Netdevs(r.sys, pci) }, functionOf: r.functionOf}
	var switches, switchPorts []int
	for i := range n.links {
		link := &n.links[i]
		s.put(link.Index, link.Lower)
		s.put(link.Master, link.Index)
		if link.Kind == "openvswitch" {
			switches = append(switches, link.Index)
		}
		if n.byIndex[link.Master].Kind == "openvswitch" {
			switchPorts = append(switchPorts, link.Index)
		}
		if _, ok := tunnels[link.Kind]; ok {
			for _, underlay := range s.underlays(link) {
				s.put(link.Index, underlay)
			}
		} else if !toldByNetlink[link.Kind] {
			for _, name := range r.lowerInSysfs(link.Name) {
				s.put(link.Index, n.byName[name].Index)
			}
		}
	}
	// All of Open vSwitch hangs together below the kernel's view: which port a
	// bridge's internal netdev leaves by is decided by flows.
	for _, internal := range switches {
		for _, port := range switchPorts {
			s.put(internal, port)
		}
	}
	return s
}

func (s *stack) put(upper, lower int) {
	if upper != 0 && lower != 0 && upper != lower && !slices.Contains(s.below[upper], lower) {
		s.below[upper] = append(s.below[upper], lower)
	}
}

func (r *Reader) lowerInSysfs(name string) []string {
	entries, err := r.sys.Names("class", "net", name)
	if err != nil {
		return nil // netlink has told what it knows
	}
	var lower []string
	for _, entry := range entries {
		if name, ok := strings.CutPrefix(entry, "lower_"); ok {
			lower = append(lower, name)
		}
	}
	return lower
}

// underlays are the links that carry a tunnel: the one that it is bound to, that
// of its own outer address, or those that lead to the other end.
func (s *stack) underlays(tunnel *LinkState) []int {
	if tunnel.Underlay != 0 {
		return []int{tunnel.Underlay}
	}
	if owner := s.n.owner[tunnel.Local]; owner != 0 && owner != s.n.loopback {
		return []int{owner}
	}
	if tunnel.Remote.IsValid() && !tunnel.Remote.IsMulticast() {
		return s.leading(tunnel.Remote, tunnel.Index)
	}
	return nil
}

// leading are the links that lead to an address, other than one of them.
func (s *stack) leading(to netip.Addr, other int) []int {
	var links []int
	for _, route := range s.n.towards(to) {
		for _, link := range route.Links {
			if link != other && link != s.n.loopback && !slices.Contains(links, link) {
				links = append(links, link)
			}
		}
	}
	return links
}

// stacked are the links that lie, directly or through others, over the given netdevs.
func (v *verdicts) stacked(over map[int]bool) []topology.StackedLink {
	above := map[int][]int{}
	for upper, lower := range v.stack.below {
		for _, link := range lower {
			above[link] = append(above[link], upper)
		}
	}
	reached := map[int]bool{}
	var queue []int
	for link := range over {
		queue = append(queue, above[link]...)
	}
	for len(queue) > 0 {
		link := queue[0]
		queue = queue[1:]
		if !reached[link] && !over[link] {
			reached[link] = true
			queue = append(queue, above[link]...)
		}
	}
	var links []topology.StackedLink
	for index := range reached {
		state := v.n.byIndex[index]
		if state.Name == "" {
			continue // its master is in no list: it went while we looked
		}
		link := topology.StackedLink{
			Name: state.Name, Kind: state.Kind, MTU: state.MTU, Up: state.Up,
			Addresses: v.n.addresses[index], Uplink: v.reasons[index],
		}
		for _, lower := range v.stack.below[index] {
			if over[lower] || reached[lower] {
				link.Lower = append(link.Lower, v.name(lower))
			}
		}
		slices.Sort(link.Lower)
		links = append(links, link)
	}
	slices.SortFunc(links, func(a, b topology.StackedLink) int { return cmp.Compare(a.Name, b.Name) })
	return links
}
