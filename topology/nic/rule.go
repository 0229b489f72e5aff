// Which routing tables does the node's own traffic use? The main, default and
// local tables always count. Another table counts as far as a rule sends the
// node's traffic, or that of its pods, there:
//
//   - A rule that matches everything, or everything but a mark ("not fwmark 0xca6c
//     lookup 51820", as wg-quick makes it), sends all of it.
//   - A rule with a mark does not: nothing carries a mark that nobody set.
//     Neither does one for sockets bound to a netdev (oif) or for other users than root.
//   - A rule "from" some addresses sends traffic of whoever has them. If one of them is an
//     address of the node, that is the node. If one is the address of the very netdev that
//     the table's route leaves by, the rule merely gives a NIC a way out of its own,
//     as every multi-rail set-up does, and says nothing about the node (but Amazon's
//     CNI does the same for NICs whose further addresses pods get, see podnetwork.go). Else the traffic
//     is a pod's, and the netdev is what the pod network runs over.
//   - A rule "iif" is for forwarded traffic, read in the same way.
//   - A rule "to" narrows the table's routes to that destination.
//
// A table that no rule names waits for one: cloud CNIs (Amazon's, Alibaba's Terway)
// give an interface its table when they attach it to the machine, and the rules one by
// one with the pods that get its addresses. Its routes count.

package nic

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Routing tables with a fixed number, from linux/rtnetlink.h.
const (
	tableDefault = 253
	tableMain    = 254
	tableLocal   = 255
)

// Rule is a policy routing rule that names a table.
type Rule struct {
	Table int
	// IPv6 tells the family, which a rule without addresses does not show.
	IPv6     bool
	From, To netip.Prefix // invalid: any
	// In and Out are the netdevs iif and oif, "" any. iif lo is traffic of the node itself.
	In, Out string
	// Mark with its mask; a mark of 0 matches unmarked traffic.
	Mark, Mask uint32
	// NotRoot: the rule's user range leaves root out.
	NotRoot bool
	// Invert: the rule matches what its selectors do not.
	Invert bool
}

// String words the rule as ip(8) does.
func (r Rule) String() string {
	words := []string{"from all"}
	if r.From.IsValid() {
		words[0] = "from " + r.From.String()
	}
	if r.Invert {
		words = append([]string{"not"}, words...)
	}
	for _, selector := range []struct {
		is   bool
		word string
	}{
		{r.To.IsValid(), "to " + r.To.String()},
		{r.Mark != 0, fmt.Sprintf("fwmark %#x", r.Mark)},
		{r.In != "", "iif " + r.In},
		{r.Out != "", "oif " + r.Out},
	} {
		if selector.is {
			words = append(words, selector.word)
		}
	}
	return strings.Join(words, " ")
}

// chosenRoute is a route that the node's or its pods' traffic may take.
type chosenRoute struct {
	Route
	// rule is what sends traffic to the route's table, "" for main, default and
	// local, and for a table that waits for its rules.
	rule string
}

// isInFixedTable: in one of the tables that the kernel's own rules ask.
func (r *Route) isInFixedTable() bool {
	return r.table() >= tableDefault && r.table() <= tableLocal
}

// ownWay is a default route in a table of the netdev's own.
type ownWay struct{ link, table int }

// choose keeps the routes that count, with the destinations and links that do.
func (n *network) choose(routes []Route, rules []Rule, nodeAddresses []netip.Addr) []chosenRoute {
	byTable, named := map[int][]Rule{}, map[int]bool{}
	for _, rule := range rules {
		named[rule.Table] = true
		if rule.Table > 0 && rule.concernsTheNode() && !slices.Contains(byTable[rule.Table], rule) {
			byTable[rule.Table] = append(byTable[rule.Table], rule)
		}
	}
	chosen := make([]chosenRoute, 0, len(routes))
	for _, route := range routes {
		waits := !named[route.table()]
		if waits {
			route.Links = slices.DeleteFunc(slices.Clone(route.Links), n.isPortOfVRF)
		}
		if waits || route.isInFixedTable() {
			chosen = append(chosen, chosenRoute{Route: route})
			continue
		}
		for _, rule := range byTable[route.Table] {
			if rule.IPv6 != route.Destination.Addr().Is6() {
				continue
			}
			narrowed, whole := n.narrow(route, rule, nodeAddresses)
			if len(narrowed.Links) > 0 {
				chosen = append(chosen, chosenRoute{Route: narrowed, rule: rule.String()})
			}
			if whole {
				break // what further rules send there too adds nothing
			}
		}
	}
	return chosen
}

// isPortOfVRF: the kernel finds a VRF's table by the netdev, with one rule for all VRFs
// that names no table. Its ports are the node's as such.
func (n *network) isPortOfVRF(link int) bool {
	return n.byIndex[n.byIndex[link].Master].Kind == "vrf"
}

func (r Rule) concernsTheNode() bool {
	return r.Invert || r.Mark&r.Mask == 0 && r.Out == "" && !r.NotRoot
}

// narrow leaves of a route what the rule lets through; whole says that this is all of it.
func (n *network) narrow(route Route, rule Rule, nodeAddresses []netip.Addr) (narrowed Route, whole bool) {
	if rule.Invert {
		return route, true
	}
	narrowed = route
	if rule.To.IsValid() {
		if !rule.To.Overlaps(route.Destination) {
			return Route{}, false
		}
		if rule.To.Bits() > route.Destination.Bits() {
			narrowed.Destination = rule.To
		}
	}
	ofTheNode := slices.ContainsFunc(nodeAddresses, func(a netip.Addr) bool { return rule.From.IsValid() && rule.From.Contains(a.Unmap()) })
	narrowed.Links = slices.DeleteFunc(slices.Clone(route.Links), func(link int) bool {
		if rule.In != "" && rule.In == n.byIndex[link].Name {
			return true
		}
		isOwn := rule.From.IsValid() && rule.From.Bits() > 0 && !ofTheNode &&
			slices.ContainsFunc(n.addresses[link], func(own netip.Prefix) bool { return rule.From.Contains(own.Addr()) })
		if isOwn && isDefault(route.Destination) {
			n.ownWays = append(n.ownWays, ownWay{link, route.table()})
		}
		return isOwn
	})
	return narrowed, len(narrowed.Links) == len(route.Links) && narrowed.Destination == route.Destination
}
