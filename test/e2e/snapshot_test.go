package e2e

// A picture of the node, taken before a scenario and compared after it: every netdev
// with what an administrator can have configured on it, how GPUs are cut, and the
// files by which CNI plugins and Multus remember what they gave away. What networks of
// pods need of the node's own (the runtime's bridge and its leases) is left out: it comes
// and goes with pods that are none of the scenario's.

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/hostler-dev/hostler/test/machine"
)

// snapshot is what a node must have again, in words by name.
type snapshot struct {
	// links are the simulated NICs' netdevs, others all else that is neither a pod's nor the runtime's.
	links, others map[string]string
	// sysctls of the NICs' netdevs by path below /proc/sys/net.
	sysctls map[string]string
	// partitions are how GPUs are cut.
	partitions map[string]string
	// leases are the files that CNI plugins, libcni and Multus keep.
	leases map[string]string
}

// diff names the first thing that is not as it was.
func (before snapshot) diff(after snapshot) error {
	for _, part := range []struct {
		what          string
		before, after map[string]string
	}{
		{"netdev", before.links, after.links}, {"netdev", before.others, after.others}, {"sysctl", before.sysctls, after.sysctls},
		{"GPU", before.partitions, after.partitions}, {"file", before.leases, after.leases},
	} {
		for _, name := range slices.Sorted(maps.Keys(part.before)) {
			if part.after[name] != part.before[name] {
				return fmt.Errorf("%s %s is %q, was %q", part.what, name, part.after[name], part.before[name])
			}
		}
		for _, name := range slices.Sorted(maps.Keys(part.after)) {
			if _, was := part.before[name]; !was {
				return fmt.Errorf("%s %s is left: %q", part.what, name, part.after[name])
			}
		}
	}
	return nil
}

func (b *bed) look() (s snapshot, err error) {
	var faults [4]error
	s.links, s.others, faults[0] = b.netdevs()
	s.sysctls, faults[1] = b.sysctls(s.links)
	s.partitions, faults[2] = b.partitions()
	s.leases, faults[3] = b.leases()
	return s, errors.Join(faults[:]...)
}

// asBefore is nil once the node shows what it showed before.
func (b *bed) asBefore(before snapshot) error {
	after, err := b.look()
	if err != nil {
		return err
	}
	return before.diff(after)
}

// netdevs tells the simulated NICs' from others.
func (b *bed) netdevs() (links, others map[string]string, err error) {
	ns, err := netns.GetFromPath(b.NetNS)
	if err != nil {
		return nil, nil, fmt.Errorf("opening the node's network namespace %s: %w", b.NetNS, err)
	}
	defer ns.Close()
	handle, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, nil, err
	}
	defer handle.Close()
	list, err := handle.LinkList()
	if err != nil {
		return nil, nil, err
	}
	profile, err := machine.Load(b.machine)
	if err != nil {
		return nil, nil, err
	}
	bridge := 0
	if link, err := handle.LinkByName("cni0"); err == nil {
		bridge = link.Attrs().Index
	}
	links, others = map[string]string{}, map[string]string{}
	for _, link := range list {
		name := link.Attrs().Name
		into := others
		switch {
		case slices.Contains(profile.NetdevNames(), name):
			into = links
		case bridge != 0 && (link.Attrs().Index == bridge || link.Attrs().MasterIndex == bridge):
			continue
		}
		if into[name], err = describe(handle, link); err != nil {
			return nil, nil, fmt.Errorf("looking at netdev %s: %w", name, err)
		}
	}
	return links, others, nil
}

// describe leaves out what the kernel makes by itself: link-local addresses, the
// routes that follow from addresses, neighbours that it has learnt.
func describe(handle *netlink.Handle, link netlink.Link) (string, error) {
	a := link.Attrs()
	var addresses, routes, neighbours, disciplines []string
	list, err := handle.AddrList(link, netlink.FAMILY_ALL)
	for _, address := range list {
		if !address.IP.IsLinkLocalUnicast() {
			addresses = append(addresses, address.IPNet.String())
		}
	}
	all, routesErr := handle.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{LinkIndex: a.Index, Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_OIF|netlink.RT_FILTER_TABLE)
	for _, route := range all {
		if route.Protocol != unix.RTPROT_KERNEL && route.Protocol != unix.RTPROT_RA {
			route.ILinkIndex, route.LinkIndex = 0, 0 // where it was moved, it has another
			routes = append(routes, route.String())
		}
	}
	known, neighboursErr := handle.NeighList(a.Index, netlink.FAMILY_ALL)
	for _, neighbour := range known {
		if neighbour.State == netlink.NUD_PERMANENT {
			neighbours = append(neighbours, neighbour.IP.String()+" "+neighbour.HardwareAddr.String())
		}
	}
	queues, queuesErr := handle.QdiscList(link)
	for _, queue := range queues {
		disciplines = append(disciplines, queue.Type())
	}
	for _, list := range [][]string{addresses, routes, neighbours, disciplines} {
		slices.Sort(list)
	}
	flags := a.RawFlags & (unix.IFF_UP | unix.IFF_PROMISC | unix.IFF_ALLMULTI | unix.IFF_NOARP | unix.IFF_MULTICAST)
	return fmt.Sprintf("%s %s flags=%#x mtu=%d txqueuelen=%d alias=%q also=%s group=%d addresses=%s routes=%s neighbours=%s qdiscs=%s",
		link.Type(), a.HardwareAddr, flags, a.MTU, a.TxQLen, a.Alias, a.AltNames, a.Group, addresses, routes, neighbours, disciplines), errors.Join(err, routesErr, neighboursErr, queuesErr)
}

func (b *bed) sysctls(of map[string]string) (map[string]string, error) {
	// /proc/sys/net shows the namespace of whoever reads it; stable_secret answers EIO while it is not set.
	out, err := exec.Command("nsenter", "--net="+b.NetNS, "sh", "-c", "cd /proc/sys/net && grep -rs '' ipv4/conf ipv4/neigh ipv6/conf ipv6/neigh; true").Output()
	if err != nil {
		return nil, fmt.Errorf("reading the node's sysctls: %w", err)
	}
	values := map[string]string{}
	for line := range strings.Lines(string(out)) {
		path, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		if _, wanted := of[filepath.Base(filepath.Dir(path))]; wanted {
			values[path] = value
		}
	}
	return values, nil
}

// leases are the files of IPAM plugins but for the pods' own network, libcni's
// cache as the agent has it, and the device files that Multus reads.
func (b *bed) leases() (map[string]string, error) {
	files := map[string]string{}
	for _, root := range []string{filepath.Join(b.Root, "lib/cni/networks"), filepath.Join(b.Root, "lib/hostler/cni"), filepath.Join(b.Root, "run/k8s.cni.cncf.io")} {
		err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
			switch {
			case errors.Is(err, fs.ErrNotExist):
				return nil // it was never used, or is being removed
			case err != nil:
				return err
			case entry.IsDir() && path == filepath.Join(b.Root, "lib/cni/networks/pods"):
				return filepath.SkipDir
			// Where host-local goes on counting, and what it locks (plugins/ipam/host-local/backend/disk).
			case entry.IsDir(), entry.Name() == "lock", strings.HasPrefix(entry.Name(), "last_reserved_ip."):
				return nil
			}
			files[path] = "a file"
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("looking for leases in %s: %w", root, err)
		}
	}
	return files, nil
}
