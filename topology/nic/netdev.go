// Which netdevs belong to a PCI function. Mostly one; a NIC in switchdev mode
// lists the representors of its VFs beside its own, an old dual-port card one per port.

package nic

import (
	"cmp"
	"regexp"
	"slices"
	"strings"
)

// representor matches the port names of VF and SF representors, "pf0vf3" or
// "c1pf0sf88" (devlink_port_phys_port_name_get in the kernel's net/devlink).
var representor = regexp.MustCompile(`^(c\d+)?pf\d+(vf|sf)\d+$`)

// netdevs lists the function's netdevs, its own first. They are in net/ below
// the function, or below the virtio device that it carries.
func (r *Reader) netdevs(address string) []string {
	device := []string{"bus", "pci", "devices", address}
	below := func(elements ...string) []string { return append(device[:len(device):len(device)], elements...) }
	names, err := r.sys.Names(below("net")...)
	if err != nil {
		return nil
	}
	if len(names) == 0 {
		names = r.virtioNetdevs(device)
	}
	if len(names) < 2 {
		return names
	}
	type netdev struct {
		name           string
		representative bool
		port           int
	}
	all := make([]netdev, len(names))
	for i, name := range names {
		all[i] = netdev{
			name:           name,
			representative: representor.MatchString(r.sys.OptionalText("class", "net", name, "phys_port_name")),
			port:           r.sys.OptionalInt(0, "class", "net", name, "dev_port"),
		}
	}
	slices.SortStableFunc(all, func(a, b netdev) int {
		if a.representative != b.representative {
			if a.representative {
				return 1
			}
			return -1
		}
		return cmp.Compare(a.port, b.port)
	})
	for i := range all {
		names[i] = all[i].name
	}
	return names
}

func (r *Reader) virtioNetdevs(device []string) []string {
	children, err := r.sys.Names(device...)
	if err != nil {
		return nil
	}
	for _, child := range children {
		if !strings.HasPrefix(child, "virtio") {
			continue
		}
		if names, err := r.sys.Names(append(device[:len(device):len(device)], child, "net")...); err == nil && len(names) > 0 {
			return names
		}
	}
	return nil
}
