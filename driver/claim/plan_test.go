package claim

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/hostler-dev/hostler/netattach"
	"github.com/hostler-dev/hostler/topology"
)

func plan(c *resourceapi.ResourceClaim) (*Entry, error) {
	return Plan(PlanInput{Claim: c, NodeName: node, Snapshot: machine(), Resolvers: []netip.Addr{netip.MustParseAddr("10.96.0.10")}})
}

func TestPlanRefuses(t *testing.T) {
	const gpuA, ethRDMA, eth2 = "gpu-0000-17-00-0", "nic-0000-18-00-0", "nic-0000-19-00-0"
	unallocated := allocated("c")
	unallocated.Status.Allocation = nil
	foreign := allocated("c", onGPU(gpuA))
	foreign.Status.Allocation.Devices.Results[0].Driver = "gpu.example.com"
	elsewhere := allocated("c", onGPU(gpuA))
	elsewhere.Status.Allocation.Devices.Results[0].Pool = "node-b/gpu"
	watching := allocated("c", onNIC(eth2))
	watching.Status.Allocation.Devices.Results[0].AdminAccess = ptr.To(true)
	for _, test := range []struct {
		name  string
		claim *resourceapi.ResourceClaim
		want  string
	}{
		{"a claim that is not allocated", unallocated, "is not allocated"},
		{"a claim without devices of ours", foreign, "no device of driver hostler.dev"},
		{"another node's device", elsewhere, `pool "node-b/gpu"`},
		{"a GPU that is gone", allocated("c", onGPU("gpu-0000-99-00-0")), "GPU gpu-0000-99-00-0: the node no longer has the device"},
		{"a GPU that is lost", allocated("c", onGPU("gpu-0000-37-00-0")), "gpu-0000-37-00-0 has fallen off the bus"},
		{"a NIC that is gone", allocated("c", onNIC("nic-0000-99-00-0")), "NIC nic-0000-99-00-0: the node no longer has the device"},
		{"the node's uplink", allocated("c", onNIC("nic-0000-1c-00-0")), "is the node's own: it carries the default route"},
		{"a NIC that somebody else took", allocated("c", onNIC("nic-0000-1b-00-0")), "some other program on the node took it"},
		{"admin access to a NIC", watching, "admin access"},
		{"an unknown device of the egress pool", allocated("c", [2]string{"egress", "ingress"}), `"egress"`},
		{"two scopes", allocated("c", onEgress(), onEgress()), "two egress devices"},
		{"one NIC twice", allocated("c", onNIC(eth2), onNIC(eth2)), `requests "r0" and "r1"`},
		{"an unknown kind", with(allocated("c", onGPU(gpuA)), claim, `GPUSettings {}`), `GPUSettings`},
		{"an unknown field", with(allocated("c", onNIC(eth2)), claim, `NICConfig {"mttu": 1500}`), `mttu`},
		{"an invalid value", with(allocated("c", onNIC(eth2)), claim, `NICConfig {"mtu": 1}`), `mtu`},
		{"an unknown field in the class", with(allocated("c", onGPU(gpuA)), class, `GPUConfig {"speed": "fast"}`), "its DeviceClass"},
		{"a config for the wrong kind of device", with(allocated("c", onGPU(gpuA)), claim, `NICConfig {"mtu": 1500}`), "a NICConfig, but no device of that kind: it got gpu-0000-17-00-0"},
		{"a config that names a request of another kind", with(allocated("c", onGPU(gpuA), onNIC(eth2)), claim, `NICConfig {"mtu": 1500}`, "r0", "r1"), `request "r0" got device gpu-0000-17-00-0`},
		{"two NICs by one name", with(allocated("c", onNIC(ethRDMA), onNIC(eth2)), claim, `NICConfig {"interfaceName": "net1", "rdma": "None"}`), "would both be called net1"},
		{"a netdev's settings for a NIC without one", with(allocated("c", onNIC("nic-0000-1a-00-0")), claim, `NICConfig {"mtu": 1500}`), "no netdev"},
		{"RDMA around a scope", allocated("c", onNIC(ethRDMA), onEgress()), "RDMA verbs bypass"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := plan(test.claim)
			if err == nil || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), "team/c") {
				t.Errorf("%v; want it to name the claim and say %q", err, test.want)
			}
		})
	}
	if _, err := plan(allocated("c", onGPU("gpu-0000-99-00-0"))); !errors.Is(err, ErrDeviceGone) {
		t.Errorf("%v is not ErrDeviceGone", err)
	}
}

func TestPlanQuotesADriverThatDoesNotWork(t *testing.T) {
	// What a dead driver leaves: its GPUs, of which nobody can say anything but Lost.
	dead := machine()
	dead.Driver = topology.Driver{State: topology.DriverFailed, Message: "NVML answers Driver Not Loaded"}
	for i := range dead.GPUs {
		dead.GPUs[i].Lost = true
	}
	for name, test := range map[string]struct {
		snapshot *topology.Snapshot
		want     string
	}{
		"a dead driver":            {dead, "driver does not work (Failed): NVML answers Driver Not Loaded"},
		"before the first reading": {&topology.Snapshot{Driver: topology.Driver{State: topology.DriverMissing}}, "the agent has not read the machine yet"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Plan(PlanInput{Claim: allocated("c", onGPU("gpu-0000-17-00-0")), NodeName: node, Snapshot: test.snapshot})
			if err == nil || !strings.Contains(err.Error(), "GPU gpu-0000-17-00-0") || !strings.Contains(err.Error(), test.want) || errors.Is(err, ErrDeviceGone) {
				t.Errorf("%v; want it to name the GPU and say %q", err, test.want)
			}
		})
	}
	if _, err := Plan(PlanInput{Claim: allocated("c", onNIC("nic-0000-19-00-0")), NodeName: node, Snapshot: dead}); err != nil {
		t.Errorf("a NIC needs no accelerator driver: %v", err)
	}
}

func TestPlanWaitsForTheClustersResolver(t *testing.T) {
	scope := func(dns string) *resourceapi.ResourceClaim {
		return with(allocated("c", onEgress()), claim, `EgressConfig {"dns": "`+dns+`"}`)
	}
	in := PlanInput{Claim: scope("ClusterResolver"), NodeName: node, Snapshot: machine()}
	if _, err := Plan(in); err == nil || !strings.Contains(err.Error(), "kube-system/kube-dns") || !strings.Contains(err.Error(), "the kubelet tries again") {
		t.Errorf("%v; want a refusal while the resolver is not known", err)
	}
	in.Resolvers = []netip.Addr{}
	if entry, err := Plan(in); err != nil || len(entry.Egress.Resolvers) != 0 {
		t.Errorf("%v; want a scope without a resolver where the cluster has none", err)
	}
	in.Claim, in.Resolvers = scope("None"), nil
	if _, err := Plan(in); err != nil {
		t.Errorf("%v; want a scope that needs no resolver not to wait for one", err)
	}
}

func TestEntryKeepsNothingOfAGPUThatNoStepNeeds(t *testing.T) {
	snapshot := machine()
	linked := &snapshot.GPUs[0]
	for link := range 18 {
		linked.NVLinks = append(linked.NVLinks, topology.NVLink{Link: link, Active: true, Peer: topology.NVLinkPeerSwitch, PeerPCI: "0000:07:00.0"})
	}
	for _, test := range []struct {
		name  string
		claim *resourceapi.ResourceClaim
		links int
	}{
		{"with the driver", allocated("c", onGPU(linked.Name)), 0},
		{"in user space, where nobody else knows its links", with(allocated("c", onGPU(linked.Name)), claim, vfioGPU), 18},
	} {
		entry, err := Plan(PlanInput{Claim: test.claim, NodeName: node, Snapshot: snapshot})
		if err != nil {
			t.Fatal(err)
		}
		if got := entry.Devices[0].GPU; len(got.NVLinks) != test.links || got.UUID != linked.UUID || got.Placement.PCI != linked.Placement.PCI {
			t.Errorf("%s: the entry has %+v", test.name, got)
		}
	}
	if len(linked.NVLinks) != 18 {
		t.Error("the machine lost its NVLinks")
	}
}

func TestPlanOfNIC(t *testing.T) {
	c := allocated("c", onNIC("nic-0000-18-00-0"))
	with(c, class, `NICConfig {"mtu": 1500, "rdma": "None"}`)
	with(c, claim, `NICConfig {"interfaceName": "net1", "addresses": ["10.1.0.5/24"], "routes": [{"destination": "10.2.0.0/16", "gateway": "10.1.0.1"}, {"destination": "10.3.0.0/16"}], "networks": [{"name": "storage"}]}`, "r0")
	with(c, claim, `NICConfig {"rdma": "Auto"}`)
	entry, err := plan(c)
	if err != nil {
		t.Fatal(err)
	}
	want := netattach.Intent{
		ClaimUID: "uid-c", ClaimNamespace: "team", ClaimName: "c",
		Pods: []netattach.PodReference{{UID: "pod-c", Namespace: "team", Name: "pod-c"}},
		RDMA: true,
		Devices: []netattach.DeviceIntent{{
			Request: "r0", Pool: "node-a/nic", Device: "nic-0000-18-00-0", PCI: "0000:18:00.0",
			HostName: "eth1", PodName: "net1", HostMAC: "02:00:00:00:00:01",
			RDMA: &netattach.RDMAIntent{Device: "mlx5_0", Mode: "Auto"},
			MTU:  1500, Addresses: []netip.Prefix{netip.MustParsePrefix("10.1.0.5/24")},
			Routes: []netattach.Route{
				{Destination: netip.MustParsePrefix("10.2.0.0/16"), Gateway: netip.MustParseAddr("10.1.0.1")},
				{Destination: netip.MustParsePrefix("10.3.0.0/16")},
			},
			Networks: []netattach.NetworkIntent{{Namespace: "team", Name: "storage"}},
		}},
	}
	if diff := cmp.Diff(want, entry.Intent(), cmpopts.EquateComparable(netip.Prefix{}, netip.Addr{})); diff != "" {
		t.Errorf("the intent (-want +got):\n%s", diff)
	}
	if !entry.Devices[0].RDMA || entry.Devices[0].NIC.Link.Name != "eth1" {
		t.Errorf("the claim's field does not win over the class's, or the NIC is not recorded: %+v", entry.Devices[0])
	}
}

func TestIntentSaysThatAClaimBringsRDMA(t *testing.T) {
	for mode, want := range map[string]bool{"Auto": true, "None": false} {
		entry, err := plan(with(allocated("c", onNIC("nic-0000-18-00-0")), claim, `NICConfig {"rdma": "`+mode+`"}`))
		if err != nil || entry.Intent().RDMA != want {
			t.Errorf("rdma: %s: %+v, %v", mode, entry, err)
		}
	}
}

func TestPlanOfScope(t *testing.T) {
	const wide, narrow = `EgressConfig {"allow": [{"name": "all", "to": [{"cidr": {"cidr": "10.0.0.0/8"}}], "ports": [{"port": 443}]}]}`,
		`EgressConfig {"allow": [{"name": "one", "to": [{"cidr": {"cidr": "10.1.0.0/16"}}], "ports": [{"port": 443}]}, {"name": "out", "to": [{"cidr": {"cidr": "0.0.0.0/0"}}], "ports": [{"port": 25}]}], "dns": "None"}`
	for _, test := range []struct {
		name, class, claim string
		want               []string
		resolvers          int
	}{
		{"no config allows nothing but the resolver", "", "", nil, 1},
		{"a class alone", wide, "", []string{"10.0.0.0/8"}, 1},
		{"a claim alone", "", narrow, []string{"10.1.0.0/16", "0.0.0.0/0"}, 0},
		{"a claim stays under the class's ceiling", wide, narrow, []string{"10.1.0.0/16"}, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := allocated("c", onEgress())
			if test.class != "" {
				with(c, class, test.class)
			}
			if test.claim != "" {
				with(c, claim, test.claim)
			}
			entry, err := plan(c)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, rule := range entry.Egress.Config.Allow {
				for _, to := range rule.To {
					got = append(got, to.CIDR.CIDR)
				}
			}
			if diff := cmp.Diff(test.want, got); diff != "" || len(entry.Egress.Resolvers) != test.resolvers {
				t.Errorf("%d resolvers, prefixes (-want +got):\n%s", len(entry.Egress.Resolvers), diff)
			}
		})
	}
}

func TestPlanAppliesAConfigForAllRequestsToThoseOfItsKind(t *testing.T) {
	c := with(allocated("c", onGPU("gpu-0000-17-00-0"), onNIC("nic-0000-19-00-0")), claim, `NICConfig {"mtu": 1500}`)
	entry, err := plan(c)
	if err != nil || entry.Devices[1].Network.MTU != 1500 {
		t.Errorf("%+v, %v; want the NIC with MTU 1500 and the GPU without a complaint", entry, err)
	}
}

func TestPlanIgnoresWhatIsNotItsOwn(t *testing.T) {
	c := allocated("c", onGPU("gpu-0000-17-00-0"), onNIC("nic-0000-19-00-0"))
	c.Status.Allocation.Devices.Results[1].Driver, c.Status.Allocation.Devices.Results[1].Device = "nic.example.com", "whatever"
	other := with(allocated("d"), claim, `Nonsense {}`).Status.Allocation.Devices.Config[0]
	other.Opaque.Driver = "nic.example.com"
	c.Status.Allocation.Devices.Config = append(c.Status.Allocation.Devices.Config, other)
	c.Status.Allocation.Devices.Results[0].ShareID = ptr.To(types.UID("share"))
	c.Status.Allocation.Devices.Results[0].Request = "any/h100"
	entry, err := plan(c)
	if err != nil {
		t.Fatal(err)
	}
	if len(entry.Devices) != 1 || entry.Devices[0].Request != "any/h100" || *entry.Devices[0].ShareID != "share" {
		t.Errorf("devices: %+v", entry.Devices)
	}
}

func TestPlanOfNICOnItsWayHome(t *testing.T) {
	// A NIC whose last pod has just gone, before discovery has seen it back.
	back := *machine().NIC("nic-0000-18-00-0")
	away := machine()
	away.NIC(back.Name).Link = nil
	entry, err := Plan(PlanInput{Claim: allocated("c", onNIC(back.Name)), NodeName: node, Snapshot: away, Held: map[string]topology.NIC{back.Name: back}})
	if err != nil || entry.Devices[0].Network == nil || entry.Devices[0].Network.HostName != "eth1" {
		t.Errorf("%v: %+v", err, entry)
	}
}

// Shared RDMA leaves the device in sight of the host while the netdev is elsewhere
// (dranet took such a NIC for an InfiniBand device and gave it away without a netdev).
func TestPlanRefusesARoCENICWhoseNetdevIsElsewhere(t *testing.T) {
	m := machine()
	roce := m.NIC("nic-0000-18-00-0")
	roce.Link, roce.RDMA = nil, &topology.RDMADevice{Name: "mlx5_0", Ports: []topology.RDMAPort{{Port: 1, LinkLayer: "Ethernet"}}}
	if _, err := Plan(PlanInput{Claim: allocated("c", onNIC(roce.Name)), NodeName: node, Snapshot: m}); err == nil || !strings.Contains(err.Error(), "not in the host's network namespace") {
		t.Errorf("%v", err)
	}
}
