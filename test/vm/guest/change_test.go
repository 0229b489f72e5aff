package guest

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// vfs of the second PF; the first PF's are left alone, since one carries an RDMA device.
func TestAChangedVFCountIsSeen(t *testing.T) {
	needMachine(t)
	numVFs := "/sys/bus/pci/devices/" + pf1 + "/sriov_numvfs"
	set := func(n string) {
		write(t, numVFs, "0") // the kernel refuses to change one count into another
		write(t, numVFs, n)
	}
	before := addresses(discover(t, noUplink))
	t.Cleanup(func() {
		set("2")
		eventually(t, func() string { return cmp.Diff(before, addresses(discover(t, noUplink))) })
	})

	set("0")
	s := discover(t, noUplink)
	if n := find(t, s, pf1).NumVFs; n != 0 || len(s.NICs) != 4 {
		t.Errorf("without VFs the PF says %d and there are %v", n, addresses(s))
	}
	set("3")
	eventually(t, func() string {
		s := discover(t, noUplink)
		third := s.NIC("nic-0000-41-10-4")
		if n := find(t, s, pf1).NumVFs; n != 3 || third == nil || third.VFID != 2 || third.Link == nil {
			return fmt.Sprintf("with three VFs the PF says %d and the third is %+v", n, third)
		}
		return ""
	})
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

func TestAVFBoundToVFIOStaysANICWithoutNetdev(t *testing.T) {
	needMachine(t)
	const vf = "0000:21:10.2"
	device := "/sys/bus/pci/devices/" + vf
	bind := func(driver string) {
		write(t, device+"/driver/unbind", vf)
		write(t, device+"/driver_override", driver+"\n")
		write(t, "/sys/bus/pci/drivers_probe", vf)
	}
	bind("vfio-pci")
	bound := find(t, discover(t, noUplink), vf)
	bind("")
	if bound.Driver != "vfio-pci" || bound.Link != nil || bound.VFID != 1 {
		t.Errorf("bound to vfio-pci %s is %+v, want that driver and no link", vf, bound)
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
			if reason := find(t, s, tc.uplinks[0]).Uplink; !strings.Contains(reason, tc.reason) {
				t.Errorf("the reason is %q, want one that says %q", reason, tc.reason)
			}
		})
	}
}
