package nettest

// All that an administrator can see of a namespace, as lines of text that two
// moments can be compared by. What the kernel does by itself and in its own time is
// left out: link-local addresses, what it learnt of neighbours, and counters.

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/safchain/ethtool"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Snapshot is a namespace at one moment, sorted.
type Snapshot []string

// Same fails the test if the namespace is not as it was in the snapshot.
func (n *Namespace) Same(t testing.TB, when string, before Snapshot) {
	t.Helper()
	if diff := cmp.Diff(before, n.Snapshot(t)); diff != "" {
		t.Errorf("%s the machine is not as it was (-before +after):\n%s", when, diff)
	}
}

// AsBefore has the test end with undo and fail if the namespace is then not as it is
// now, unless undo says that it cannot be. It keeps quiet about a test that has failed anyway.
func (n *Namespace) AsBefore(t testing.TB, undo func() (possible bool)) {
	t.Helper()
	before := n.Snapshot(t)
	t.Cleanup(func() {
		if t.Failed() || t.Skipped() {
			return
		}
		if undo() {
			n.Same(t, "after the test", before)
		}
	})
}

// Snapshot reads links with addresses, neighbours, sysctls and features, routes of
// all tables, and rules.
func (n *Namespace) Snapshot(t testing.TB) Snapshot {
	t.Helper()
	links, err := n.Handle.LinkList()
	if err != nil {
		t.Fatal(err)
	}
	names := map[int]string{}
	for _, link := range links {
		names[link.Attrs().Index] = link.Attrs().Name
	}
	var lines Snapshot
	for _, link := range links {
		for _, line := range slices.Concat(n.linkLines(t, link, names), n.sysctlLines(t, link.Attrs().Name)) {
			lines = append(lines, link.Attrs().Name+" "+line)
		}
	}
	for _, kind := range []string{"all", "default"} {
		for _, line := range n.sysctlLines(t, kind) {
			lines = append(lines, kind+" "+line)
		}
	}
	lines = append(lines, n.routeLines(t, names)...)
	slices.Sort(lines)
	return lines
}

func (n *Namespace) linkLines(t testing.TB, link netlink.Link, names map[int]string) (lines []string) {
	t.Helper()
	const set = unix.IFF_UP | unix.IFF_PROMISC | unix.IFF_ALLMULTI | unix.IFF_NOARP | unix.IFF_MULTICAST
	a := link.Attrs()
	lines = append(lines, fmt.Sprintf("%s mac %s mtu %d flags %#x qlen %d alias %q also %q group %d master %q xdp %v", link.Type(), a.HardwareAddr, a.MTU,
		a.RawFlags&set, a.TxQLen, a.Alias, a.AltNames, a.Group, names[a.MasterIndex], a.Xdp != nil && a.Xdp.Attached))
	addresses, err := n.Handle.AddrList(link, netlink.FAMILY_ALL)
	if err != nil {
		t.Fatal(err)
	}
	for _, address := range addresses {
		const detection = unix.IFA_F_TENTATIVE | unix.IFA_F_OPTIMISTIC
		if address.IP.To4() == nil && address.IP.IsLinkLocalUnicast() && n.ReadSysctl(t, "net/ipv6/conf/"+a.Name+"/addr_gen_mode") != "1" {
			continue // with mode 1 there are only those that somebody has given
		}
		lines = append(lines, fmt.Sprintf("address %s peer %v broadcast %v label %q scope %d flags %#x valid %d preferred %d", address.IPNet, address.Peer, address.Broadcast,
			address.Label, address.Scope, address.Flags&^detection, thousands(address.ValidLft), thousands(address.PreferedLft)))
	}
	neighbours, err := n.Handle.NeighList(a.Index, netlink.FAMILY_ALL)
	if err != nil {
		t.Fatal(err)
	}
	for _, neighbour := range neighbours {
		if neighbour.State == netlink.NUD_PERMANENT {
			lines = append(lines, fmt.Sprintf("neighbour %s at %s", neighbour.IP, neighbour.HardwareAddr))
		}
	}
	qdiscs, err := n.Handle.QdiscList(link)
	if err != nil {
		t.Fatal(err)
	}
	for _, qdisc := range qdiscs {
		if qdisc.Attrs().Handle == 0 { // the kernel's choice
			continue
		}
		lines = append(lines, fmt.Sprintf("qdisc %s parent %#x", qdisc.Type(), qdisc.Attrs().Parent))
	}
	n.Do(t, func() {
		tool, err := ethtool.NewEthtool()
		if err != nil {
			t.Fatal(err)
		}
		defer tool.Close()
		states, err := tool.FeaturesWithState(a.Name)
		if err != nil {
			t.Fatal(err)
		}
		for feature, state := range states {
			if state.Available {
				lines = append(lines, fmt.Sprintf("feature %s %v", feature, state.Requested))
			}
		}
	})
	return lines
}

// thousands of seconds, of which one more has begun: a test takes less.
func thousands(seconds int) int { return (seconds + 999) / 1000 }

func (n *Namespace) routeLines(t testing.TB, names map[int]string) (lines []string) {
	t.Helper()
	routes, err := n.Handle.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_TABLE)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range routes {
		// The kernel makes its own IPv6 routes when the carrier is there and an address is checked.
		if r.Table == unix.RT_TABLE_LOCAL || r.Family == unix.AF_INET6 && r.Protocol == unix.RTPROT_KERNEL && !r.Dst.IP.IsGlobalUnicast() {
			continue
		}
		lines = append(lines, fmt.Sprintf("route %v via %v %v dev %q src %v table %d metric %d scope %s protocol %d onlink %v mtu %d", r.Dst, r.Gw, r.Via, names[r.LinkIndex],
			r.Src, r.Table, r.Priority, r.Scope, r.Protocol, r.Flags&unix.RTNH_F_ONLINK != 0, r.MTU))
	}
	rules, err := n.Handle.RuleList(netlink.FAMILY_ALL)
	if err != nil {
		t.Fatal(err)
	}
	for _, rule := range rules {
		lines = append(lines, fmt.Sprintf("rule of family %d protocol %d: %s", rule.Family, rule.Protocol, rule))
	}
	return lines
}

func (n *Namespace) sysctlLines(t testing.TB, name string) (lines []string) {
	t.Helper()
	n.Do(t, func() {
		for _, directory := range []string{"net/ipv4/conf", "net/ipv6/conf", "net/ipv4/neigh", "net/ipv6/neigh"} {
			files, err := filepath.Glob(filepath.Join("/proc/sys", directory, name, "*"))
			if err != nil {
				t.Fatal(err)
			}
			for _, file := range files {
				if value, err := os.ReadFile(file); err == nil { // a secret that was never set cannot be read
					lines = append(lines, fmt.Sprintf("sysctl %s/%s %s", directory, filepath.Base(file), strings.TrimSpace(string(value))))
				}
			}
		}
	})
	return lines
}

// Sysctl sets one in the namespace, by its path below /proc/sys.
func (n *Namespace) Sysctl(t testing.TB, path, value string) {
	t.Helper()
	n.Do(t, func() {
		if err := os.WriteFile(filepath.Join("/proc/sys", path), []byte(value), 0); err != nil {
			t.Fatal(err)
		}
	})
}

// ReadSysctl returns one.
func (n *Namespace) ReadSysctl(t testing.TB, path string) (value string) {
	t.Helper()
	n.Do(t, func() {
		raw, err := os.ReadFile(filepath.Join("/proc/sys", path))
		if err != nil {
			t.Fatal(err)
		}
		value = strings.TrimSpace(string(raw))
	})
	return value
}

// Ethtool runs f with a socket in the namespace.
func (n *Namespace) Ethtool(t testing.TB, f func(*ethtool.Ethtool) error) {
	t.Helper()
	n.Do(t, func() {
		tool, err := ethtool.NewEthtool()
		if err == nil {
			defer tool.Close()
			err = f(tool)
		}
		if err != nil {
			t.Fatal(err)
		}
	})
}
