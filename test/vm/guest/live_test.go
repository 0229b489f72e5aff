package guest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/hostler-dev/hostler/topology"
	"github.com/hostler-dev/hostler/topology/host"
	"github.com/hostler-dev/hostler/topology/nic"
	"github.com/hostler-dev/hostler/topology/uevent"
)

// The observer polls once an hour in this test: what it announces in time, it was told by the kernel.
func TestTheObserverAnnouncesWhatChanges(t *testing.T) {
	needMachine(t)
	snapshots := observe(t, nic.Watch, uevent.Watch)
	await := func(what string, is func(*topology.Snapshot) bool) *topology.Snapshot {
		t.Helper()
		timeout := time.After(30 * time.Second)
		for {
			select {
			case s := <-snapshots:
				if is(s) {
					return s
				}
			case <-timeout:
				t.Fatalf("in 30 s the observer announced no snapshot with %s", what)
			}
		}
	}
	vfs := func(n int) func(*topology.Snapshot) bool {
		return func(s *topology.Snapshot) bool {
			pf, last := s.NIC(topology.NICName(pf1)), s.NIC(topology.NICName(fmt.Sprintf("0000:41:10.%d", 2*(n-1))))
			return pf != nil && pf.NumVFs == n && last != nil && last.Link != nil && last.VFID == n-1 && len(s.NICs) == 4+n
		}
	}
	uplink := func(is bool) func(*topology.Snapshot) bool {
		return func(s *topology.Snapshot) bool { return (s.NIC(topology.NICName(pf1)).Uplink != "") == is }
	}
	first := await("the machine as it booted", vfs(2))

	// The kernel refuses to change one count into another.
	numVFs := "/sys/bus/pci/devices/" + pf1 + "/sriov_numvfs"
	write(t, numVFs, "0")
	write(t, numVFs, "3")
	await("three VFs", vfs(3))
	write(t, numVFs, "0")
	write(t, numVFs, "2")
	last := await("two VFs again", vfs(2))
	if !cmp.Equal(addresses(first), addresses(last)) {
		t.Errorf("afterwards the NICs are %v, before they were %v", addresses(last), addresses(first))
	}

	name := netdev(t, pf1)
	ip(t, "addr add 192.0.2.1/24 dev "+name)
	ip(t, "route add default via 192.0.2.254 dev "+name)
	await("an uplink", uplink(true))
	ip(t, "addr del 192.0.2.1/24 dev "+name)
	await("no uplink", uplink(false))
}

// observe runs the agent's observer with these watchers until the test ends.
func observe(t *testing.T, watchers ...topology.Watcher) <-chan *topology.Snapshot {
	observer := topology.NewObserver(topology.ObserverConfig{
		Hardware: host.New(host.Config{}),
		GPUs:     noGPUs{},
		Watchers: watchers,
		Interval: time.Hour,
	})
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		if err := observer.Run(ctx); err != nil {
			t.Errorf("the observer ended: %v", err)
		}
	})
	snapshots, stop := observer.Subscribe()
	t.Cleanup(func() {
		stop()
		cancel()
		running.Wait()
	})
	return snapshots
}

// noGPUs is the driver's view of a machine without GPUs.
type noGPUs struct{}

func (noGPUs) ReadGPUs(context.Context) (topology.Driver, []topology.GPU, []topology.Problem) {
	return topology.Driver{State: topology.DriverMissing}, nil, nil
}

func TestANetdevInAPodLeavesItsFunctionBehind(t *testing.T) {
	needMachine(t)
	const vf = "0000:21:10.2"
	name := netdev(t, vf)
	ip(t, "netns add pod")
	ip(t, "link set "+name+" netns pod")
	away := find(t, discover(t, noUplink), vf)
	// A namespace that goes away sends its hardware netdevs home.
	ip(t, "netns delete pod")
	if away.Link != nil || away.Driver != "igbvf" || away.VFID != 1 {
		t.Errorf("while its netdev is in a pod %s is %+v, want it without a link and otherwise as it was", vf, away)
	}
	eventually(t, func() string {
		if home := find(t, discover(t, noUplink), vf); home.Link == nil || home.Link.Name != name {
			return fmt.Sprintf("%s came home with the link %+v, want %s", vf, home.Link, name)
		}
		return ""
	})
}

// A function that was handed to a virtual machine is not there to be offered.
func TestAVFBoundToVFIOIsNoNICUntilItIsGivenBack(t *testing.T) {
	needMachine(t)
	const vf = "0000:21:10.2"
	device := "/sys/bus/pci/devices/" + vf
	bind := func(driver string) {
		write(t, device+"/driver/unbind", vf)
		write(t, device+"/driver_override", driver+"\n")
		write(t, "/sys/bus/pci/drivers_probe", vf)
	}
	bind("vfio-pci")
	bound := discover(t, noUplink)
	bind("")
	if slices.ContainsFunc(bound.NICs, func(n topology.NIC) bool { return n.Placement.PCI == vf }) {
		t.Errorf("bound to vfio-pci %s is still among the NICs", vf)
	}
	eventually(t, func() string {
		if back := find(t, discover(t, noUplink), vf); back.Driver != "igbvf" || back.Link == nil {
			return fmt.Sprintf("given back %s has driver %q and link %+v, want igbvf and a link", vf, back.Driver, back.Link)
		}
		return ""
	})
}

func TestTheNodesUplinkIsFoundThroughWhateverCarriesIt(t *testing.T) {
	needMachine(t)
	first, second := netdev(t, pf0), netdev(t, pf1)
	for _, tc := range []struct {
		name            string
		setUp, tearDown []string
		uplinks         []string // addresses of the NICs that are uplinks
		reason          string   // part of the PF's reason
		stacked         []string // links over the NICs, as "kind name over lower, …"
	}{
		{
			name:     "an IPv4 default route on a PF makes it and its VFs uplinks",
			setUp:    []string{"addr add 192.0.2.1/24 dev " + first, "route add default via 192.0.2.254 dev " + first},
			tearDown: []string{"addr del 192.0.2.1/24 dev " + first},
			uplinks:  []string{pf0, "0000:21:10.0", "0000:21:10.2"},
			reason:   "carries the default route 0.0.0.0/0 via " + first,
		},
		{
			name:     "an IPv6 default route on a PF does too",
			setUp:    []string{"addr add 2001:db8::1/64 dev " + second + " nodad", "-6 route add default via 2001:db8::2 dev " + second},
			tearDown: []string{"addr del 2001:db8::1/64 dev " + second, "-6 route flush default"},
			uplinks:  []string{pf1, "0000:41:10.0", "0000:41:10.2"},
			reason:   "carries the default route ::/0 via " + second,
		},
		{
			name: "a default route on a VLAN over a bond over both PFs",
			setUp: []string{
				"link add bond0 type bond mode active-backup miimon 100",
				"link set " + first + " down", "link set " + second + " down",
				"link set " + first + " master bond0", "link set " + second + " master bond0", "link set bond0 up",
				"link add link bond0 name bond0.100 type vlan id 100", "link set bond0.100 up",
				"addr add 192.0.2.1/24 dev bond0.100", "route add default via 192.0.2.254 dev bond0.100",
			},
			tearDown: []string{"link delete bond0.100", "link delete bond0", "link set " + first + " up", "link set " + second + " up"},
			uplinks:  []string{pf0, "0000:21:10.0", "0000:21:10.2", pf1, "0000:41:10.0", "0000:41:10.2"},
			reason:   "bond0.100",
			stacked:  []string{"bond bond0 over " + strings.Join(sorted(first, second), ", "), "vlan bond0.100 over bond0"},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Cleanup(func() {
				for _, args := range tc.tearDown {
					ip(t, args)
				}
				discover(t, noUplink)
			})
			for _, args := range tc.setUp {
				ip(t, args)
			}
			s := discover(t)
			var got []string
			for _, n := range s.NICs {
				if n.Uplink != "" {
					got = append(got, n.Placement.PCI)
				}
			}
			if !cmp.Equal(tc.uplinks, got) {
				t.Errorf("the uplinks are %v, want %v", got, tc.uplinks)
			}
			if diff := cmp.Diff(tc.stacked, stacked(s)); diff != "" {
				t.Errorf("the links over the NICs are other ones (-want +got):\n%s", diff)
			}
			if reason := find(t, s, tc.uplinks[0]).Uplink; !strings.Contains(reason, tc.reason) {
				t.Errorf("the reason is %q, want one that says %q", reason, tc.reason)
			}
		})
	}
}

func sorted(names ...string) []string {
	slices.Sort(names)
	return names
}

func stacked(s *topology.Snapshot) []string {
	var links []string
	for _, l := range s.StackedLinks {
		links = append(links, fmt.Sprintf("%s %s over %s", l.Kind, l.Name, strings.Join(l.Lower, ", ")))
		if l.Uplink == "" {
			links[len(links)-1] += ", not an uplink"
		}
	}
	return links
}

// A VF that changes hands between drivers says so by device events alone: vfio-pci has no netdev.
func TestADriverThatIsExchangedIsAnnouncedByTheKernel(t *testing.T) {
	needMachine(t)
	const vf = "0000:41:10.2"
	snapshots := observe(t, uevent.Watch)
	await := func(what string, is func(*topology.Snapshot) bool) {
		t.Helper()
		timeout := time.After(20 * time.Second)
		for {
			select {
			case s := <-snapshots:
				if is(s) {
					return
				}
			case <-timeout:
				t.Fatalf("in 20 s the observer announced no snapshot %s", what)
			}
		}
	}
	device := "/sys/bus/pci/devices/" + vf
	bind := func(driver string) {
		write(t, device+"/driver/unbind", vf)
		write(t, device+"/driver_override", driver+"\n")
		write(t, "/sys/bus/pci/drivers_probe", vf)
	}
	has := func(s *topology.Snapshot) bool { n := s.NIC(topology.NICName(vf)); return n != nil && n.Link != nil }
	await("with the VF", has)
	bind("vfio-pci")
	await("without the VF", func(s *topology.Snapshot) bool { return s.NIC(topology.NICName(vf)) == nil })
	bind("")
	await("with the VF again", has)
}
