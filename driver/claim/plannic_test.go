package claim

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/types"

	"github.com/hostler-dev/hostler/driver/publish"
	"github.com/hostler-dev/hostler/netattach"
	"github.com/hostler-dev/hostler/topology"
)

const (
	nicRDMA, nicPlain, nicIB = "nic-0000-18-00-0", "nic-0000-19-00-0", "nic-0000-1a-00-0"
	nicPF                    = "nic-0000-1d-00-0"
)

// fastMachine is the machine with links of 100 Gbit/s.
func fastMachine() *topology.Snapshot {
	m := machine()
	for i := range m.NICs {
		if m.NICs[i].Link != nil {
			m.NICs[i].Link.SpeedMbps = 100_000
		}
	}
	return m
}

func planOn(m *topology.Snapshot, c *resourceapi.ResourceClaim) (*Entry, error) {
	return Plan(PlanInput{Claim: c, NodeName: node, Snapshot: m, Resolvers: []netip.Addr{}})
}

// nicClaim is a claim for a NIC, with what class and claim say; "" says nothing.
func nicClaim(nic, ofClass, ofClaim string) *resourceapi.ResourceClaim {
	c := allocated("c", onNIC(nic))
	if ofClass != "" {
		with(c, class, "NICConfig "+ofClass)
	}
	if ofClaim != "" {
		with(c, claim, "NICConfig "+ofClaim)
	}
	return c
}

// sharing says what share of each of its devices the claim was allocated.
func sharing(c *resourceapi.ResourceClaim, bandwidth string) *resourceapi.ResourceClaim {
	for i := range c.Status.Allocation.Devices.Results {
		shareOut(c.Name, &c.Status.Allocation.Devices.Results[i], bandwidth)
	}
	return c
}

// shareOut makes the result a share for the claim of that name.
func shareOut(name string, result *resourceapi.DeviceRequestAllocationResult, bandwidth string) {
	result.ShareID = new(types.UID("share-" + name + "-" + result.Request))
	result.ConsumedCapacity = map[resourceapi.QualifiedName]resource.Quantity{publish.BandwidthCapacity: resource.MustParse(bandwidth)}
}

func prefix(text string) netip.Prefix { return netip.MustParsePrefix(text) }
func addr(text string) netip.Addr     { return netip.MustParseAddr(text) }

// bare leaves out what all devices of the test have.
func bare(d *netattach.DeviceIntent) *netattach.DeviceIntent {
	if d == nil {
		return nil
	}
	copied := *d
	copied.Request, copied.Pool, copied.Device, copied.PCI, copied.HostName, copied.HostMAC = "", "", "", "", "", ""
	return &copied
}

func TestPlanOfWhatThePodGetsOfANIC(t *testing.T) {
	auto := &netattach.RDMAIntent{Device: "mlx5_0", Mode: "Auto"}
	for _, test := range []struct {
		name, nic, class, claim string
		want                    netattach.DeviceIntent
		rdma                    bool
	}{
		{"nothing said", nicRDMA, "", "", netattach.DeviceIntent{PodName: "eth1", RDMA: auto}, true},
		{"a NIC without RDMA", nicPlain, "", "", netattach.DeviceIntent{PodName: "eth2"}, false},
		{"RDMA that must be there", nicRDMA, "", `{"rdma": "Exclusive"}`, netattach.DeviceIntent{PodName: "eth1", RDMA: &netattach.RDMAIntent{Device: "mlx5_0", Mode: "Exclusive"}}, true},
		{"no RDMA", nicRDMA, "", `{"rdma": "None"}`, netattach.DeviceIntent{PodName: "eth1"}, false},
		{"InfiniBand without a netdev", nicIB, "", `{"rdma": "Shared"}`, netattach.DeviceIntent{RDMA: &netattach.RDMAIntent{Device: "mlx5_0", Mode: "Shared"}}, true},
		{"brought by Multus", nicRDMA, "", `{"attach": "Multus"}`, netattach.DeviceIntent{External: true, ResourceName: "c", RDMA: auto}, true},
		{"a macvlan child", nicRDMA, `{"mode": "macvlan"}`, `{"hardwareAddress": "02:00:5E:10:00:01", "mtu": 9000}`,
			netattach.DeviceIntent{PodName: "eth1", Child: &netattach.ChildIntent{Kind: "macvlan", Mode: "bridge"}, HardwareAddress: "02:00:5e:10:00:01", MTU: 9000}, false},
		{"an ipvlan child", nicPlain, "", `{"mode": "ipvlan", "ipvlan": {"mode": "l3s"}, "interfaceName": "net1"}`,
			netattach.DeviceIntent{PodName: "net1", Child: &netattach.ChildIntent{Kind: "ipvlan", Mode: "l3s"}}, false},
		{"RDMA beside a child, by the class", nicRDMA, `{"mode": "macvlan", "rdma": "Shared"}`, "",
			netattach.DeviceIntent{PodName: "eth1", Child: &netattach.ChildIntent{Kind: "macvlan", Mode: "bridge"}, RDMA: &netattach.RDMAIntent{Device: "mlx5_0", Mode: "Shared"}}, true},
		{"where packets go", nicPlain, "", `{"addresses": ["10.1.0.5/24"], "vrf": {"name": "blue", "table": 100},
			"routes": [{"destination": "10.2.0.0/16"}, {"destination": "10.3.0.0/16", "scope": "Global", "table": 7, "metric": 9}, {"destination": "0.0.0.0/0", "gateway": "10.9.0.1", "onLink": true, "source": "10.1.0.5"}],
			"rules": [{"priority": 10, "source": "10.1.0.0/24", "table": 100}, {"priority": 11, "destination": "::/0", "table": 7}],
			"neighbours": [{"address": "10.1.0.9", "hardwareAddress": "02:00:5E:10:00:09"}]}`,
			netattach.DeviceIntent{
				PodName: "eth2", Addresses: []netip.Prefix{prefix("10.1.0.5/24")}, VRF: &netattach.VRF{Name: "blue", Table: 100},
				Routes: []netattach.Route{
					{Destination: prefix("10.2.0.0/16"), Table: 100}, {Destination: prefix("10.3.0.0/16"), Global: true, Table: 7, Metric: 9},
					{Destination: prefix("0.0.0.0/0"), Gateway: addr("10.9.0.1"), OnLink: true, Source: addr("10.1.0.5"), Table: 100},
				},
				Rules:      []netattach.Rule{{Priority: 10, Source: prefix("10.1.0.0/24"), Table: 100}, {Priority: 11, Destination: prefix("::/0"), Table: 7}},
				Neighbours: []netattach.Neighbour{{Address: addr("10.1.0.9"), HardwareAddress: "02:00:5e:10:00:09"}},
			}, false},
		{"what the kernel keeps by name, merged key by key", nicPlain,
			`{"sysctls": {"net.ipv4.conf.IFNAME.arp_ignore": "1", "net.ipv4.conf.IFNAME.forwarding": "1"}, "ethtool": {"features": {"rx-gro": true, "tx-nocache-copy": true}, "privateFlags": {"legacy-rx": true}}}`,
			`{"sysctls": {"net.ipv4.conf.IFNAME.arp_ignore": "2", "net.ipv6.neigh.IFNAME.gc_stale_time": "60"}, "ethtool": {"features": {"rx-gro": false}}}`,
			netattach.DeviceIntent{
				PodName: "eth2", Sysctls: map[string]string{"net/ipv4/conf/IFNAME/arp_ignore": "2", "net/ipv4/conf/IFNAME/forwarding": "1", "net/ipv6/neigh/IFNAME/gc_stale_time": "60"},
				Features: map[string]bool{"rx-gro": false, "tx-nocache-copy": true}, PrivateFlags: map[string]bool{"legacy-rx": true},
			}, false},
		{"networks, each with its wishes", nicPlain, `{"interfaceName": "net1", "networks": [{"name": "a", "interfaceName": "net1"}, {"name": "b", "namespace": "fabric", "interfaceName": "b0", "ips": ["10.5.0.5/24"], "mac": "02:00:5E:10:00:0B", "defaultRoute": ["10.5.0.1"]}]}`, "",
			netattach.DeviceIntent{PodName: "net1", Networks: []netattach.NetworkIntent{
				{Namespace: "team", Name: "a"},
				{Namespace: "fabric", Name: "b", Interface: "b0", IPs: []netip.Prefix{prefix("10.5.0.5/24")}, MAC: "02:00:5e:10:00:0b", DefaultRoute: []netip.Addr{addr("10.5.0.1")}},
			}}, false},
		{"lists of a claim in the place of its class's", nicPlain, `{"addresses": ["10.1.0.5/24"], "mtu": 1500}`, `{"addresses": ["10.2.0.5/24"]}`,
			netattach.DeviceIntent{PodName: "eth2", Addresses: []netip.Prefix{prefix("10.2.0.5/24")}, MTU: 1500}, false},
		{"a VRF in the place of its class's", nicPlain, `{"vrf": {"name": "red", "table": 9}}`, `{"vrf": {"name": "blue", "table": 10}}`,
			netattach.DeviceIntent{PodName: "eth2", VRF: &netattach.VRF{Name: "blue", Table: 10}}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			entry, err := planOn(machine(), nicClaim(test.nic, test.class, test.claim))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(&test.want, bare(entry.Devices[0].Network), cmpopts.EquateComparable(netip.Prefix{}, netip.Addr{})); diff != "" {
				t.Errorf("the intent (-want +got):\n%s", diff)
			}
			if entry.Devices[0].RDMA != test.rdma || entry.Intent().RDMA != test.rdma {
				t.Errorf("RDMA device nodes: %t, want %t", entry.Devices[0].RDMA, test.rdma)
			}
		})
	}
}

func TestPlanNamesANICWhoseOwnNameNoPodCanHave(t *testing.T) {
	m := machine()
	for own, want := range map[string]string{"eth2": "eth2", "eth0": "nic000019000", "dummy3": "nic000019000", "ens1f0np0": "ens1f0np0"} {
		m.NIC(nicPlain).Link.Name = own
		entry, err := planOn(m, nicClaim(nicPlain, "", ""))
		if err != nil || entry.Devices[0].Network.PodName != want || entry.Devices[0].Network.HostName != own {
			t.Errorf("%s: %v, %+v; want it called %s", own, err, entry, want)
		}
	}
	// The domain of some buses (VMD, Hyper-V) has more than four digits.
	m.NIC(nicPlain).Link.Name, m.NIC(nicPlain).Placement.PCI = "bond0", "12345678:19:00.0"
	if entry, err := planOn(m, nicClaim(nicPlain, "", "")); err != nil || entry.Devices[0].Network.PodName != "ic1234567819000" {
		t.Errorf("a long PCI address: %v, %+v", err, entry)
	}
}

func TestPlanOfShares(t *testing.T) {
	macvlan := `{"mode": "macvlan"}`
	for _, test := range []struct {
		name      string
		claim     *resourceapi.ResourceClaim
		bandwidth uint64
		refused   string // "" is planned
	}{
		{"a child held to its share", sharing(nicClaim(nicPlain, "", macvlan), "10G"), 10_000_000_000, ""},
		{"a child that has all of the NIC", sharing(nicClaim(nicPlain, "", macvlan), "100G"), 0, ""},
		{"a child of a NIC that nobody shares", nicClaim(nicPlain, "", macvlan), 0, ""},
		{"a child whose share is more than the link has by now", sharing(nicClaim(nicPlain, "", macvlan), "200G"), 200_000_000_000, ""},
		{"the netdev of a NIC of which the claim got more than it has by now", sharing(nicClaim(nicPlain, "", ""), "200G"), 0, ""},
		{"settings of a VF whose share is more than it has by now", sharing(nicClaim(nicVF1, `{"mode": "macvlan", "vf": {"vlan": 7}}`, ""), "200G"), 0, "would be set for all who share it"},
		{"the netdev of a NIC of which the claim got all", sharing(nicClaim(nicPlain, "", ""), "100G"), 0, ""},
		{"the netdev of a NIC that others share", sharing(nicClaim(nicPlain, "", ""), "10G"), 0, "NIC " + nicPlain + ": the claim has a share of it, 10000 Mbit/s (its speed is 100000 Mbit/s), and mode netdev takes the whole NIC; set mode macvlan or ipvlan"},
		{"user space for a NIC that others share", sharing(nicClaim(nicPlain, "", `{"mode": "vfio"}`), "10G"), 0, "mode vfio takes the whole NIC"},
		{"Multus for a NIC that others share", sharing(nicClaim(nicPlain, "", `{"attach": "Multus"}`), "10G"), 0, "mode netdev takes the whole NIC"},
		{"settings of a VF that others share", sharing(nicClaim(nicVF1, `{"mode": "macvlan", "vf": {"vlan": 7}}`, ""), "10G"), 0, "would be set for all who share it"},
		{"settings of a VF of which the claim got all", sharing(nicClaim(nicVF1, `{"mode": "macvlan", "vf": {"vlan": 7}}`, ""), "100G"), 0, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			entry, err := planOn(fastMachine(), test.claim)
			switch {
			case test.refused != "":
				if err == nil || !strings.Contains(err.Error(), test.refused) {
					t.Errorf("%v; want %q", err, test.refused)
				}
			case err != nil:
				t.Fatal(err)
			case entry.Devices[0].Network.Bandwidth != test.bandwidth:
				t.Errorf("held to %d bit/s, want %d", entry.Devices[0].Network.Bandwidth, test.bandwidth)
			case cmp.Diff(entry.Devices[0].ShareID, entry.Devices[0].Network.ShareID) != "":
				t.Error("the intent is not of the share")
			}
		})
	}
}

// Without carrier nobody knows how much the whole is.
func TestPlanGivesNoWholeNICForAShareOfUnknownSize(t *testing.T) {
	if _, err := planOn(machine(), sharing(nicClaim(nicPlain, "", ""), "10G")); err == nil || !strings.Contains(err.Error(), "its speed is not known at present") {
		t.Error(err)
	}
	if entry, err := planOn(machine(), sharing(nicClaim(nicPlain, "", `{"mode": "ipvlan"}`), "10G")); err != nil || entry.Devices[0].Network.Bandwidth != 10_000_000_000 {
		t.Errorf("%v: %+v", err, entry)
	}
}

func TestPlanRefusesWhatTheNICCannot(t *testing.T) {
	for _, test := range []struct {
		name, nic, config, want string
	}{
		{"exclusive RDMA of a NIC without", nicPlain, `{"rdma": "Exclusive"}`, `NIC nic-0000-19-00-0 has no RDMA device, and its NICConfig asks for "rdma: Exclusive"`},
		{"shared RDMA of a NIC without", nicPlain, `{"rdma": "Shared"}`, "has no RDMA device"},
		{"a child with more than its parent's MTU", nicPlain, `{"mode": "macvlan", "mtu": 9001}`, "has an MTU of 9000, which no child of it can exceed, and its NICConfig asks for 9001"},
		{"a VF with more than its PF's MTU", nicVF1, `{"mtu": 9001}`, "is a VF of nic-0000-1d-00-0, which has an MTU of 9000"},
		{"a child of a NIC without a netdev", nicIB, `{"mode": "macvlan"}`, "no netdev of which there could be a child"},
		{"Multus for a NIC without a netdev", nicIB, `{"attach": "Multus"}`, "no netdev that Multus could attach"},
		{"all settings of a netdev for a NIC without", nicIB, `{"mtu": 1500, "sysctls": {"net.ipv4.conf.IFNAME.arp_ignore": "1"}, "vrf": {"name": "blue", "table": 9}}`, "leave out mtu, vrf, sysctls"},
		{"a child of IPoIB", nicRDMA, `{"mode": "ipvlan"}`, "mode ipvlan is for Ethernet"},
		{"a hardware address of IPoIB", nicRDMA, `{"hardwareAddress": "02:00:5e:10:00:01"}`, "hardwareAddress is for Ethernet"},
		{"half a VRF over the class's", nicPlain, `{"vrf": {"name": "blue"}}`, "vrf.table: Required"},
		{"several faults at once", nicPlain, `{"interfaceName": "docker0", "mtu": 1}`, "interfaceName: Invalid value"},
		{"several faults, the last one", nicPlain, `{"interfaceName": "docker0", "mtu": 1}`, "mtu: Invalid value"},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := machine()
			m.NIC(nicRDMA).Link.Type = "infiniband"
			if _, err := planOn(m, nicClaim(test.nic, test.config, "")); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%v; want %q", err, test.want)
			}
		})
	}
	// What of a VRF the claim leaves to its class, that says; what neither says is refused.
	entry, err := planOn(machine(), nicClaim(nicPlain, `{"vrf": {"name": "red", "table": 9}}`, `{"vrf": {"name": "blue"}}`))
	if err != nil || *entry.Devices[0].Network.VRF != (netattach.VRF{Name: "blue", Table: 9}) {
		t.Errorf("%v; want the claim's name and the class's table", err)
	}
	if _, err := planOn(machine(), nicClaim(nicPlain, `{"vrf": {"name": "red"}}`, `{"vrf": {"name": "blue"}}`)); err == nil || !strings.Contains(err.Error(), "vrf.table: Required") {
		t.Errorf("%v; want a VRF without a table refused", err)
	}
}

func TestPlanKeepsForClassesWhatConcernsOthers(t *testing.T) {
	const only = "but only a DeviceClass can set it, because it concerns others on the network"
	for _, test := range []struct {
		name, class, claim, want string // "" is planned
	}{
		{"a NIC's hardware address", "", `{"hardwareAddress": "02:00:5e:10:00:01"}`, `the config for request "r0": hardwareAddress is 02:00:5e:10:00:01 in the claim, ` + only},
		{"a NIC's hardware address, by the class", `{"hardwareAddress": "02:00:5e:10:00:01"}`, "", ""},
		{"another than its class's", `{"hardwareAddress": "02:00:5e:10:00:01"}`, `{"hardwareAddress": "02:00:5e:10:00:02"}`, "hardwareAddress is 02:00:5e:10:00:02 in the claim and 02:00:5e:10:00:01 in its DeviceClass"},
		{"the same as its class's", `{"hardwareAddress": "02:00:5e:10:00:0a"}`, `{"hardwareAddress": "02:00:5E:10:00:0A"}`, ""},
		{"a child's hardware address", `{"mode": "macvlan"}`, `{"hardwareAddress": "02:00:5e:10:00:01"}`, ""},
		{"a child's hardware address that is a vendor's", `{"mode": "macvlan"}`, `{"hardwareAddress": "00:00:5e:10:00:01"}`, "hardwareAddress is 00:00:5e:10:00:01 in the claim, " + only},
		{"another child's hardware address than its class's", `{"mode": "macvlan", "hardwareAddress": "02:00:5e:10:00:01"}`, `{"hardwareAddress": "02:00:5e:10:00:02"}`, "hardwareAddress is 02:00:5e:10:00:02 in the claim and 02:00:5e:10:00:01 in its DeviceClass"},
		{"the same child's hardware address as its class's", `{"mode": "macvlan", "hardwareAddress": "02:00:5e:10:00:0a"}`, `{"hardwareAddress": "02:00:5E:10:00:0A"}`, ""},
		{"a network's hardware address", "", `{"networks": [{"name": "a", "mac": "02:00:5e:10:00:01"}]}`, "networks[team/a].mac is 02:00:5e:10:00:01 in the claim, " + only},
		{"a network's hardware address, by the class", `{"networks": [{"name": "a", "mac": "00:00:5e:10:00:01"}]}`, "", ""},
		{"a network's hardware address, as its class's", `{"networks": [{"name": "a", "mac": "00:00:5e:10:00:0a"}]}`, `{"networks": [{"name": "a", "namespace": "team", "mac": "00:00:5E:10:00:0A"}]}`, ""},
		{"another network's hardware address than its class's", `{"mode": "macvlan", "networks": [{"name": "a", "mac": "02:00:5e:10:00:01"}]}`, `{"networks": [{"name": "a", "mac": "02:00:5e:10:00:02"}]}`, "networks[team/a].mac is 02:00:5e:10:00:02 in the claim and 02:00:5e:10:00:01 in its DeviceClass"},
		{"a second network's beside its class's", `{"networks": [{"name": "a", "mac": "02:00:5e:10:00:01"}]}`, `{"networks": [{"name": "a", "mac": "02:00:5e:10:00:01"}, {"name": "a", "interfaceName": "a1", "mac": "02:00:5e:10:00:02"}]}`, "networks[team/a for a1].mac is 02:00:5e:10:00:02 in the claim, " + only},
		{"a network's hardware address on a macvlan child", `{"mode": "macvlan"}`, `{"networks": [{"name": "a", "mac": "02:00:5e:10:00:01"}]}`, ""},
		{"a network's hardware address on a macvlan child that is a vendor's", `{"mode": "macvlan"}`, `{"networks": [{"name": "a", "mac": "00:00:5e:10:00:01"}]}`, "networks[team/a].mac is 00:00:5e:10:00:01 in the claim, " + only},
		{"a network's hardware address on an ipvlan child", `{"mode": "ipvlan"}`, `{"networks": [{"name": "a", "mac": "02:00:5e:10:00:01"}]}`, only},
		{"a network of the claim's namespace by name", "", `{"networks": [{"name": "a", "namespace": "team"}]}`, ""},
		{"a network of another namespace", "", `{"networks": [{"name": "a"}, {"name": "b", "namespace": "fabric"}]}`, "networks[1].namespace is fabric in a claim of namespace team, but only a DeviceClass can name a network of another namespace; ask the administrator for a DeviceClass that has network fabric/b"},
		{"a network of another namespace, by the class", `{"networks": [{"name": "b", "namespace": "fabric"}]}`, "", ""},
		{"a network of its class's beside one of its own", `{"networks": [{"name": "b", "namespace": "fabric"}]}`, `{"networks": [{"name": "b", "namespace": "fabric"}, {"name": "a", "interfaceName": "a0"}]}`, ""},
		{"another network of the namespace of its class's", `{"networks": [{"name": "b", "namespace": "fabric"}]}`, `{"networks": [{"name": "c", "namespace": "fabric"}]}`, "networks[0].namespace is fabric"},
		{"forwarding", "", `{"sysctls": {"net.ipv4.conf.IFNAME.forwarding": "1"}}`, "sysctls[net.ipv4.conf.IFNAME.forwarding] is 1 in the claim, " + only},
		{"answers for others", `{"sysctls": {"net.ipv4.conf.IFNAME.forwarding": "1"}}`, `{"sysctls": {"net.ipv4.conf.IFNAME.proxy_arp": "1"}}`, "proxy_arp"},
		{"forwarding, off again", `{"sysctls": {"net.ipv4.conf.IFNAME.forwarding": "1"}}`, `{"sysctls": {"net.ipv4.conf.IFNAME.forwarding": "0"}}`, "is 0 in the claim and 1 in its DeviceClass"},
		{"a private flag", "", `{"ethtool": {"privateFlags": {"legacy-rx": true}}}`, "ethtool.privateFlags[legacy-rx] is true in the claim, " + only},
		{"a feature", "", `{"ethtool": {"features": {"rx-gro": true}}}`, ""},
		{"verbs beside a child", `{"mode": "macvlan"}`, `{"rdma": "Shared"}`, "rdma is Shared in the claim, " + only},
		{"no verbs beside a child", `{"mode": "macvlan", "rdma": "Shared"}`, `{"rdma": "None"}`, ""},
		{"verbs of a NIC of one's own", "", `{"rdma": "Shared"}`, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := planOn(machine(), nicClaim(nicRDMA, test.class, test.claim))
			if (err != nil) != (test.want != "") || err != nil && !strings.Contains(err.Error(), test.want) {
				t.Errorf("%v; want %q", err, test.want)
			}
		})
	}
}

// Of two requests each has its own networks (sriov's driver mixed those of one pod).
func TestNetworksOfTwoRequestsNeverMix(t *testing.T) {
	c := allocated("c", onNIC(nicRDMA), onNIC(nicPlain))
	with(with(c, claim, `NICConfig {"networks": [{"name": "left"}]}`, "r0"), claim, `NICConfig {"networks": [{"name": "right", "interfaceName": "right0"}]}`, "r1")
	entry, err := planOn(machine(), c)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []netattach.NetworkIntent{{Namespace: "team", Name: "left"}, {Namespace: "team", Name: "right", Interface: "right0"}} {
		if diff := cmp.Diff([]netattach.NetworkIntent{want}, entry.Devices[i].Network.Networks, cmpopts.EquateComparable(netip.Prefix{}, netip.Addr{})); diff != "" {
			t.Errorf("request r%d (-want +got):\n%s", i, diff)
		}
	}
}
