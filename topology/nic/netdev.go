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
	"github.com/hostler-dev/hostler/topology/sysfs"
)

// representor matches the port names of representors of PFs, VFs and SFs, "pf0vf3",
// "c1pf0sf88" or "pf0hpf" (__devlink_port_phys_port_name_get in the kernel's net/devlink).
var representor = regexp.MustCompile(`^(c\d+)?pf\d+(vf\d+|sf\d+|hpf)?$`)

// Netdevs lists the netdevs of the function at a PCI address by name, its own
// first; those that the namespace of this sysfs has. They are in net/ below the
// function, or below the virtio device that it carries.
func Netdevs(sys sysfs.Root, address string) []string {
	device := []string{"bus", "pci", "devices", address}
	below := func(elements ...string) []string { return append(device[:len(device):len(device)], elements...) }
	names, err := sys.Names(below("net")...)
	if err != nil {
		return nil
	}
	if len(names) == 0 {
		names = virtioNetdevs(sys, device)
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
		all[i] = netdev{name: name, port: sys.OptionalInt(0, at("dev_port")...)}
		switch {
		case representor.MatchString(sys.OptionalText(at("phys_port_name")...)):
			all[i].rank = 2
		case sys.OptionalText(at("iflink")...) != sys.OptionalText(at("ifindex")...):
			all[i].rank = 1 // an IPoIB child, which names its parent
		}
	}
	slices.SortStableFunc(all, func(a, b netdev) int { return cmp.Or(cmp.Compare(a.rank, b.rank), cmp.Compare(a.port, b.port)) })
	for i := range all {
		names[i] = all[i].name
	}
	return names
}

func virtioNetdevs(sys sysfs.Root, device []string) []string {
	children, err := sys.Names(device...)
	if err != nil {
		return nil
	}
	for _, child := range children {
		if !strings.HasPrefix(child, "virtio") {
			continue
		}
		if names, err := sys.Names(append(device[:len(device):len(device)], child, "net")...); err == nil && len(names) > 0 {
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
