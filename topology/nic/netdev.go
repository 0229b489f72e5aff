// Which netdevs belong to a PCI function. Mostly one; a NIC in switchdev mode
// lists the representors of its VFs beside its own, an old dual-port card one per port, an
// InfiniBand function the IPoIB children of its partitions.

package nic

import (
	"cmp"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/hostler-dev/hostler/topology"
)

// representor matches the port names of representors of PFs, VFs and SFs, "pf0vf3",
// "c1pf0sf88" or "pf0hpf" (__devlink_port_phys_port_name_get in the kernel's net/devlink).
var representor = regexp.MustCompile(`^(c\d+)?pf\d+(vf\d+|sf\d+|hpf)?$`)

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
		name       string
		rank, port int
	}
	all := make([]netdev, len(names))
	for i, name := range names {
		at := func(attribute string) []string { return []string{"class", "net", name, attribute} }
		all[i] = netdev{name: name, port: r.sys.OptionalInt(0, at("dev_port")...)}
		switch {
		case representor.MatchString(r.sys.OptionalText(at("phys_port_name")...)):
			all[i].rank = 2
		case r.sys.OptionalText(at("iflink")...) != r.sys.OptionalText(at("ifindex")...):
			all[i].rank = 1 // an IPoIB child, which names its parent
		}
	}
	slices.SortStableFunc(all, func(a, b netdev) int { return cmp.Or(cmp.Compare(a.rank, b.rank), cmp.Compare(a.port, b.port)) })
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

// functionOf is the address of the PCI function that a netdev belongs to, "" if
// to none: the last one on the way to it, .../0000:10:00.0/virtio0/net/eth0.
func (r *Reader) functionOf(netdev string) string {
	target, err := os.Readlink(r.sys.Path("class", "net", netdev))
	if err != nil || netdev == "" {
		return ""
	}
	for target != "." && target != "/" {
		if pci, err := topology.CanonicalPCI(path.Base(target)); err == nil && strings.Contains(target, "/pci") {
			return pci
		}
		target = path.Dir(target)
	}
	return ""
}
