// The sysfs of netdevs without hardware: lo, and bonds, bridges and VLANs with
// the links that join them to what they lie over (netdev_adjacent_sysfs_add in
// net/core/dev.c; drivers/net/bonding/bond_sysfs.c; net/bridge/br_sysfs_br.c).

package machine

import (
	"fmt"
	"strings"
)

func (s *sysfs) loopback() {
	folder := "devices/virtual/net/lo"
	for file, value := range map[string]any{
		"address": "00:00:00:00:00:00", "mtu": 65536, "type": 772, "operstate": "unknown", "carrier": 1, "ifindex": 1, "iflink": 1, "flags": "0x9",
	} {
		s.file(folder+"/"+file, value)
	}
	s.statistics(folder)
	s.link("class/net/lo", folder)
}

// stack makes the stacked links. The folders of what they lie over are there already.
func (s *sysfs) stack() {
	folders := map[string]string{}
	var bonds []string
	for _, link := range s.p.Links(s.node) {
		if link.PCI != "" {
			folders[link.Name] = s.paths[link.PCI] + "/net/" + link.Name
			continue
		}
		if link.Name == "lo" {
			continue
		}
		folder := "devices/virtual/net/" + link.Name
		folders[link.Name] = folder
		if link.Kind == "bond" {
			bonds = append(bonds, link.Name)
		}
		s.stackedLink(link, folder, folders)
	}
	if len(bonds) > 0 {
		s.file("class/net/bonding_masters", strings.Join(bonds, " "))
	}
}

func (s *sysfs) stackedLink(link Link, folder string, folders map[string]string) {
	iflink := link.Lower
	if iflink == 0 {
		iflink = link.Index
	}
	for file, value := range map[string]any{
		"address": link.MAC, "addr_len": len(link.MAC), "broadcast": "ff:ff:ff:ff:ff:ff", "mtu": link.MTU, "type": 1, "duplex": "full",
		"operstate": "up", "carrier": 1, "flags": "0x1003", "tx_queue_len": 1000, "name_assign_type": 3,
		"ifindex": link.Index, "iflink": iflink, "ifalias": "", "dev_id": "0x0", "dev_port": 0,
		"uevent": fmt.Sprintf("DEVTYPE=%s\nINTERFACE=%s\nIFINDEX=%d", link.Kind, link.Name, link.Index),
	} {
		s.file(folder+"/"+file, value)
	}
	s.statistics(folder)
	s.link(folder+"/subsystem", "class/net")
	s.link("class/net/"+link.Name, folder)
	for _, lower := range link.LowerNames {
		s.link(folder+"/lower_"+lower, folders[lower])
		s.link(folders[lower]+"/upper_"+link.Name, folder)
		if overPorts[link.Kind] {
			s.link(folders[lower]+"/master", folder)
		}
	}
	switch link.Kind {
	case "bond":
		s.file(folder+"/bonding/slaves", strings.Join(link.LowerNames, " "))
		s.file(folder+"/bonding/mode", "802.3ad 4")
	case "bridge":
		s.folder(folder + "/bridge")
		for _, lower := range link.LowerNames {
			s.link(folder+"/brif/"+lower, folders[lower])
		}
	}
}
