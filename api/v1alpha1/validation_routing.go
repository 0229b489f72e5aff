package v1alpha1

// Validation of where a pod's packets go: routes, rules, neighbours, VRF.

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Routing tables of the kernel (rtnetlink(7), RT_TABLE_*).
const (
	tableDefault = 253
	tableMain    = 254
	tableLocal   = 255
)

// maxRulePriority leaves out the kernel's own rules, for main (32766) and default (32767).
const maxRulePriority = 32765

func validateRoutes(config *NICConfig, addresses []netip.Prefix) field.ErrorList {
	path := field.NewPath("routes")
	faults := tooMany(path, len(config.Routes), maxInterfaceSettings)
	// By all that the kernel tells routes apart by.
	type key struct {
		destination   netip.Prefix
		table, metric uint32
	}
	seen := sets.New[key]()
	for i, route := range config.Routes {
		destination, wrong := validateRoute(config, route, addresses, path.Index(i))
		faults = append(faults, wrong...)
		id := key{destination, cmp.Or(route.Table, config.table()), route.Metric}
		if destination.IsValid() && seen.Has(id) {
			faults = append(faults, again(path.Index(i), fmt.Sprintf("%s in table %d with metric %d", id.destination, id.table, id.metric), "leave one of them out, or give it another metric"))
		}
		seen.Insert(id)
	}
	return faults
}

// table is that of routes that name none.
func (c *NICConfig) table() uint32 {
	if c.VRF != nil && c.VRF.Table != 0 {
		return c.VRF.Table
	}
	return tableMain
}

// validateRoute returns the destination, if that is valid.
func validateRoute(config *NICConfig, route Route, addresses []netip.Prefix, at *field.Path) (netip.Prefix, field.ErrorList) {
	destination, faults := parseCIDR(route.Destination, at.Child("destination"))
	ofFamily := func(a netip.Addr) bool { return !destination.IsValid() || destination.Addr().Is4() == a.Is4() }
	if route.Gateway != "" {
		gateway, wrong := parseHost(route.Gateway, at.Child("gateway"))
		switch faults = append(faults, wrong...); {
		case len(wrong) > 0:
		case !ofFamily(gateway):
			faults = append(faults, field.Invalid(at.Child("gateway"), route.Gateway, "is of another address family than the destination, "+route.Destination+"; correct one of them"))
		case !route.OnLink && !config.reaches(gateway, addresses):
			faults = append(faults, field.Invalid(at.Child("gateway"), route.Gateway, "is in the prefix of none of the addresses, and no route without a gateway leads there; correct it, or set onLink"))
		}
	} else if route.OnLink {
		faults = append(faults, field.Invalid(at.Child("onLink"), route.OnLink, "says how a gateway is reached; set gateway, too, or leave this out"))
	}
	faults = append(faults, validateSource(config, route, addresses, ofFamily, at.Child("source"))...)
	switch scopes := []RouteScope{RouteScopeGlobal, RouteScopeLink}; {
	case route.Scope != "" && !slices.Contains(scopes, route.Scope):
		faults = append(faults, field.NotSupported(at.Child("scope"), route.Scope, scopes))
	case route.Scope == RouteScopeLink && route.Gateway != "":
		faults = append(faults, field.Invalid(at.Child("scope"), route.Scope, "is for destinations on the link itself; leave it out, or the gateway"))
	}
	if route.Table == tableDefault || route.Table == tableLocal {
		faults = append(faults, field.Invalid(at.Child("table"), route.Table, "is the kernel's; choose 254, the main table, or one that only you use"))
	}
	return destination, faults
}

func validateSource(config *NICConfig, route Route, addresses []netip.Prefix, ofFamily func(netip.Addr) bool, at *field.Path) field.ErrorList {
	if route.Source == "" {
		return nil
	}
	source, faults := parseHost(route.Source, at)
	switch {
	case len(faults) > 0:
	case !ofFamily(source):
		faults = append(faults, field.Invalid(at, route.Source, "is of another address family than the destination, "+route.Destination+"; correct one of them"))
	case len(config.Networks) == 0 && !slices.ContainsFunc(addresses, func(p netip.Prefix) bool { return p.Addr() == source }):
		faults = append(faults, field.Invalid(at, route.Source, "must be one of the addresses; add it there, or leave it out"))
	}
	return faults
}

// reaches reports whether the interface has the gateway on its link, as far as is
// known: a CNI chain may assign addresses.
func (c *NICConfig) reaches(gateway netip.Addr, addresses []netip.Prefix) bool {
	if len(c.Networks) > 0 || gateway.Is6() && gateway.IsLinkLocalUnicast() {
		return true
	}
	if slices.ContainsFunc(addresses, func(p netip.Prefix) bool { return p.Contains(gateway) }) {
		return true
	}
	return slices.ContainsFunc(c.Routes, func(r Route) bool {
		prefix, err := netip.ParsePrefix(r.Destination)
		return err == nil && r.Gateway == "" && prefix.Contains(gateway)
	})
}

func validateRules(rules []RoutingRule) field.ErrorList {
	path := field.NewPath("rules")
	faults := tooMany(path, len(rules), maxInterfaceSettings)
	seen := sets.New[uint32]()
	for i, rule := range rules {
		at := path.Index(i)
		switch {
		case rule.Priority < 1 || rule.Priority > maxRulePriority:
			faults = append(faults, field.Invalid(at.Child("priority"), rule.Priority, fmt.Sprintf("must be 1 to %d, so that it is asked after the local table and before the main one", maxRulePriority)))
		case seen.Has(rule.Priority):
			faults = append(faults, again(at.Child("priority"), rule.Priority, "give each rule a priority of its own; the lowest is asked first"))
		}
		seen.Insert(rule.Priority)
		faults = append(faults, validateSelector(rule, at)...)
		if rule.Table == 0 {
			faults = append(faults, field.Required(at.Child("table"), "name the table that is asked, 1 to 4294967295"))
		}
	}
	return faults
}

// validateSelector judges which packets a rule is for.
func validateSelector(rule RoutingRule, at *field.Path) field.ErrorList {
	var faults field.ErrorList
	var prefixes []netip.Prefix
	for _, s := range []struct{ name, value string }{{"source", rule.Source}, {"destination", rule.Destination}} {
		if s.value == "" {
			continue
		}
		prefix, wrong := parseCIDR(s.value, at.Child(s.name))
		faults = append(faults, wrong...)
		if len(wrong) == 0 {
			prefixes = append(prefixes, prefix)
		}
	}
	if rule.Source == "" && rule.Destination == "" {
		faults = append(faults, field.Required(at.Child("source"), `set source, destination or both; "0.0.0.0/0" or "::/0" is all of a family`))
	}
	if len(prefixes) == 2 && prefixes[0].Addr().Is4() != prefixes[1].Addr().Is4() {
		faults = append(faults, field.Invalid(at.Child("destination"), rule.Destination, "is of another address family than the source, "+rule.Source+"; make two rules of it"))
	}
	return faults
}

func validateNeighbours(neighbours []Neighbour) field.ErrorList {
	path := field.NewPath("neighbours")
	faults := tooMany(path, len(neighbours), maxInterfaceSettings)
	seen := sets.New[netip.Addr]()
	for i, neighbour := range neighbours {
		address, wrong := parseHost(neighbour.Address, path.Index(i).Child("address"))
		switch faults = append(faults, wrong...); {
		case len(wrong) > 0:
		case seen.Has(address):
			faults = append(faults, again(path.Index(i).Child("address"), neighbour.Address, "an address has one hardware address; leave one of them out"))
		default:
			seen.Insert(address)
		}
		faults = append(faults, validateMAC(neighbour.HardwareAddress, path.Index(i).Child("hardwareAddress"))...)
	}
	return faults
}

func validateVRF(config *NICConfig) field.ErrorList {
	vrf, at := config.VRF, field.NewPath("vrf")
	if vrf == nil {
		return nil
	}
	var faults field.ErrorList
	switch names := config.interfaceNames(); {
	case vrf.Name == "":
		faults = append(faults, field.Required(at.Child("name"), "name the VRF's interface"))
	case slices.Contains(names, vrf.Name):
		faults = append(faults, field.Invalid(at.Child("name"), vrf.Name, "is the name of an interface in it ("+strings.Join(names, ", ")+"); choose another one"))
	default:
		faults = append(faults, validateInterfaceName(vrf.Name, at.Child("name"))...)
	}
	switch {
	case vrf.Table == 0:
		faults = append(faults, field.Required(at.Child("table"), "name the table of the VRF's routes, 1 to 4294967295"))
	case vrf.Table >= tableDefault && vrf.Table <= tableLocal:
		faults = append(faults, field.Invalid(at.Child("table"), vrf.Table, "is the kernel's, from 253 to 255; choose one that only you use"))
	}
	return faults
}

// interfaceNames are those that the config gives.
func (c *NICConfig) interfaceNames() []string {
	var names []string
	for _, name := range append([]string{c.InterfaceName}, networkNames(c.Networks)...) {
		if name != "" {
			names = append(names, name)
		}
	}
	return names
}

func networkNames(networks []NetworkReference) []string {
	var names []string
	for _, network := range networks {
		names = append(names, network.InterfaceName)
	}
	return names
}
