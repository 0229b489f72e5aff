// What netlink would say of the machine: its netdevs with their indexes and how
// they are stacked, and its default routes. Plain values, so that a test can hand
// them to whatever asks the kernel; the rendered sysfs has the same names and indexes.

package machine

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
)

// StackedLink is a netdev over others: a bond or bridge over its ports, a VLAN
// or macvlan over one link.
type StackedLink struct {
	Name string `json:"name"`
	// Kind is the rtnl link kind: bond, bridge, team (over ports); vlan, macvlan, ipvlan (over one link).
	Kind string `json:"kind"`
	// Lower are the links that it lies over: interfaces of NICs or VFs, or stacked links listed before.
	Lower []string `json:"lower"`
	// Uplink: the node lives on it.
	Uplink bool `json:"uplink,omitempty"`
}

// overPorts tells kinds whose lower links name them as IFLA_MASTER from those
// that name their one lower link as IFLA_LINK.
var overPorts = map[string]bool{"bond": true, "bridge": true, "team": true, "vlan": false, "macvlan": false, "ipvlan": false}

// Link is one netdev of the node's network namespace.
type Link struct {
	Index int
	Name  string
	// Kind is the rtnl link kind, "device" for hardware.
	Kind string
	// Type is "ethernet", "infiniband" or "loopback".
	Type string
	MAC  net.HardwareAddr
	// MTU in bytes.
	MTU int
	// Up: administratively up, with carrier.
	Up bool
	// Master is the index of the bond or bridge whose port it is (IFLA_MASTER), 0 without one.
	Master int
	// Lower is the index of the one link that it lies over (IFLA_LINK), 0 without one.
	Lower int
	// LowerNames are all links that it lies over, as sysfs lists them.
	LowerNames []string
	// PCI is the function's address, "" of links without hardware.
	PCI string
}

// Route is a default route.
type Route struct {
	Destination netip.Prefix
	// Link is the index of the link that it leaves by.
	Link   int
	Metric int
}

// Links are the netdevs of the node in the order of their indexes: lo, the NICs'
// each followed by its VFs', the stacked ones.
func (p *Profile) Links(nodeIndex int) []Link {
	links := []Link{{Index: 1, Name: "lo", Kind: "device", Type: "loopback", MAC: make(net.HardwareAddr, 6), MTU: 65536, Up: true}}
	index := map[string]int{}
	add := func(link Link) {
		link.Index, link.Up = len(links)+1, true
		index[link.Name] = link.Index
		links = append(links, link)
	}
	hardware := func(name, pci string, mtu int, rdma *RDMA) {
		if name == "" {
			return
		}
		link := Link{Name: name, Kind: "device", Type: "ethernet", MAC: p.MAC(nodeIndex, pci), MTU: mtu, PCI: pci}
		if rdma.infiniBand() {
			link.Type, link.MAC = "infiniband", ipoibAddress(link.MAC)
		}
		add(link)
	}
	for _, n := range p.NICs {
		hardware(n.Interface, n.PCI, n.MTU, n.RDMA)
		for _, f := range n.VFs {
			hardware(f.Interface, f.PCI, n.MTU, f.RDMA)
		}
	}
	for _, s := range p.Stacked {
		first := links[index[s.Lower[0]]-1]
		link := Link{Name: s.Name, Kind: s.Kind, Type: first.Type, MAC: first.MAC, MTU: first.MTU, LowerNames: s.Lower}
		if !overPorts[s.Kind] {
			link.Lower = first.Index
		}
		add(link)
		if overPorts[s.Kind] {
			for _, lower := range s.Lower {
				links[index[lower]-1].Master = index[s.Name]
			}
		}
	}
	return links
}

// DefaultRoutes leave by the uplinks, one of each family; the first uplink has the lowest metrics.
func (p *Profile) DefaultRoutes() []Route {
	var routes []Route
	uplinks := p.uplinks()
	for _, link := range p.Links(0) {
		if i := slices.Index(uplinks, link.Name); i >= 0 {
			routes = append(routes,
				Route{Destination: netip.PrefixFrom(netip.IPv4Unspecified(), 0), Link: link.Index, Metric: 100 * i},
				Route{Destination: netip.PrefixFrom(netip.IPv6Unspecified(), 0), Link: link.Index, Metric: 1024 + 100*i})
		}
	}
	return routes
}

// uplinks are the names of the netdevs that the node lives on, the first first.
func (p *Profile) uplinks() []string {
	var names []string
	for _, n := range p.NICs {
		if n.Uplink {
			names = append(names, n.Interface)
		}
	}
	for _, s := range p.Stacked {
		if s.Uplink {
			names = append(names, s.Name)
		}
	}
	return names
}

// UplinkName is the first netdev that the node lives on, "" if the profile names none.
func (p *Profile) UplinkName() string {
	if uplinks := p.uplinks(); len(uplinks) > 0 {
		return uplinks[0]
	}
	return ""
}

// UplinkMAC is the address of that netdev, nil if the profile has no uplink.
func (p *Profile) UplinkMAC(nodeIndex int) net.HardwareAddr {
	name := p.UplinkName()
	for _, link := range p.Links(nodeIndex) {
		if link.Name == name {
			return link.MAC
		}
	}
	return nil
}

func (v *validation) stacked(p *Profile) {
	netdevs := map[string]bool{}
	for _, n := range p.NICs {
		netdevs[n.Interface] = true
		for _, f := range n.VFs {
			netdevs[f.Interface] = true
		}
	}
	port := map[string]bool{}
	for i, s := range p.Stacked {
		owner := fmt.Sprintf("stacked[%d]", i)
		if !stackedPattern.MatchString(s.Name) {
			v.add("%s: %q is not a netdev name", owner, s.Name)
		}
		v.once("interface ", s.Name, owner)
		ports, known := overPorts[s.Kind]
		switch {
		case !known:
			v.add("%s: kind %q is not one of bond, bridge, team, vlan, macvlan, ipvlan", owner, s.Kind)
		case len(s.Lower) == 0:
			v.add("%s: lies over nothing", owner)
		case !ports && len(s.Lower) != 1:
			v.add("%s: a %s lies over one link, not %d", owner, s.Kind, len(s.Lower))
		}
		for _, lower := range s.Lower {
			if lower == "" || !netdevs[lower] {
				v.add("%s: there is no link %q before it", owner, lower)
			}
			if ports && port[lower] {
				v.add("%s: %s is a port of another link", owner, lower)
			}
			port[lower] = port[lower] || ports
		}
		netdevs[s.Name] = true
	}
}
