package claim

// What users write wrong, and what they read then: in the events of the pod and in the
// claim's status. The texts are in testdata/refusals.txt, to be read as they are
// read there; each names the field, what was written and what helps.

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/hostler-dev/hostler/driver/publish"
	"github.com/hostler-dev/hostler/topology"
)

// badInput is a claim for a device with what its class and the claim itself say, as
// YAML without the first two lines of a config; "" says nothing.
type badInput struct {
	name, device string
	class, claim string
	// share is the bandwidth that was allocated, "" for the whole NIC.
	share string
	// machine and change are done before.
	machine func(*topology.Snapshot)
	change  func(*resourceapi.ResourceClaim)
}

// written is an opaque config as it stands.
func written(c *resourceapi.ResourceClaim, source resourceapi.AllocationConfigSource, text string, requests ...string) {
	c.Status.Allocation.Devices.Config = append(c.Status.Allocation.Devices.Config, resourceapi.DeviceAllocationConfiguration{
		Source: source, Requests: requests,
		DeviceConfiguration: resourceapi.DeviceConfiguration{Opaque: &resourceapi.OpaqueDeviceConfiguration{Driver: publish.DriverName, Parameters: runtime.RawExtension{Raw: []byte(text)}}},
	})
}

const ofVersion = "apiVersion: hostler.dev/v1alpha1\n"

// refusal is what the user of the claim reads, "" if it can be prepared.
func (b badInput) refusal() string {
	pool := map[string]string{"gpu": "gpu", "nic": "nic", "egress": "egress", "pair": "device"}[strings.SplitN(b.device, "-", 2)[0]]
	c := allocated("c", [2]string{pool, b.device})
	if b.class != "" {
		written(c, class, ofVersion+b.class)
	}
	if b.claim != "" {
		written(c, claim, ofVersion+b.claim, "r0")
	}
	if b.share != "" {
		sharing(c, b.share)
	}
	if b.change != nil {
		b.change(c)
	}
	m := fastMachine()
	m.GPUs = append(m.GPUs, migDevice().Snapshot())
	if b.machine != nil {
		b.machine(m)
	}
	entry, err := planOn(m, c)
	if err == nil {
		err = checkNetworks(entry)
	}
	if err == nil {
		return ""
	}
	return err.Error()
}

func badInputs() []badInput {
	const gpu, mig, lost, uplink, ib, plain, rdma, pf, vf = "gpu-0000-17-00-0", migGPU, "gpu-0000-37-00-0", "nic-0000-1c-00-0", nicIB, nicPlain, nicRDMA, nicPF, nicVF1
	admin := func(c *resourceapi.ResourceClaim) { c.Status.Allocation.Devices.Results[0].AdminAccess = new(true) }
	ipoib := func(m *topology.Snapshot) {
		for i := range m.NICs {
			if m.NICs[i].Name == nicIB {
				m.NICs[i].Link = &topology.Link{Name: "ib0", Type: "infiniband", MTU: 2044}
			}
		}
	}
	and := func(device [2]string, configs ...string) func(*resourceapi.ResourceClaim) {
		return func(c *resourceapi.ResourceClaim) {
			c.Status.Allocation.Devices.Results = append(c.Status.Allocation.Devices.Results, resourceapi.DeviceRequestAllocationResult{
				Request: "r1", Driver: publish.DriverName, Pool: node + "/" + device[0], Device: device[1],
			})
			for _, text := range configs {
				written(c, claim, ofVersion+text, "r1")
			}
		}
	}
	return []badInput{
		// What is no config.
		{name: "no version", device: plain, change: func(c *resourceapi.ResourceClaim) { written(c, claim, "kind: NICConfig\nmtu: 9000") }},
		{name: "no YAML", device: plain, claim: "kind: NICConfig\n  mtu: 9000"},
		{name: "a kind that there is not", device: plain, claim: "kind: NicConfig"},
		{name: "a field that there is not", device: plain, claim: "kind: NICConfig\nmttu: 9000"},
		{name: "two fields that there are not, one inside", device: plain, claim: "kind: NICConfig\nmttu: 9000\nroutes: [{destination: 10.0.0.0/8, via: 10.0.0.1}]"},
		{name: "a text for a number", device: plain, claim: "kind: NICConfig\nmtu: jumbo"},
		{name: "a number beyond what fits", device: plain, claim: "kind: NICConfig\nmtu: 99999999999"},
		{name: "a text for a list", device: plain, claim: "kind: NICConfig\naddresses: 10.0.0.1/24"},
		{name: "one field twice", device: plain, claim: "kind: NICConfig\nmtu: 9000\nmtu: 1500"},
		{name: "the class's config is wrong", device: plain, class: "kind: NICConfig\nmttu: 9000"},
		{name: "a word that YAML takes for false", device: plain, claim: "kind: NICConfig\nrdma: no"},
		{name: "a number for a text", device: plain, claim: "kind: NICConfig\nsysctls: {net.ipv4.conf.IFNAME.arp_ignore: 1}"},
		// What is a config of nothing that the claim got.
		{name: "a NICConfig for a GPU", device: gpu, claim: "kind: NICConfig\nmtu: 9000"},
		{name: "a GPUConfig for all requests of a claim for a NIC", device: plain, change: func(c *resourceapi.ResourceClaim) { written(c, claim, ofVersion+"kind: GPUConfig") }},
		{name: "an EgressConfig for a NIC", device: plain, claim: "kind: EgressConfig"},
		// One fault of a NICConfig, and several.
		{name: "several faults", device: plain, claim: "kind: NICConfig\ninterfaceName: docker0\nmtu: 12\naddresses: [10.1.0.5, 10.1.0.5/24, 10.1.0.5/16]\nrdma: Perhaps\nroutes: [{destination: 10.1.2.3/8, gateway: 10.9.0.1}]"},
		{name: "a name that is too long", device: plain, claim: "kind: NICConfig\ninterfaceName: much-too-long-a-name"},
		{name: "the pod's own interface", device: plain, claim: "kind: NICConfig\ninterfaceName: eth0"},
		{name: "a name with a slash", device: plain, claim: "kind: NICConfig\ninterfaceName: net/1"},
		{name: "an address without length", device: plain, claim: "kind: NICConfig\naddresses: [10.1.0.5]"},
		{name: "a multicast address", device: plain, claim: "kind: NICConfig\naddresses: [224.0.0.5/24]"},
		{name: "an address twice", device: plain, claim: "kind: NICConfig\naddresses: [10.1.0.5/24, 10.1.0.5/16]"},
		{name: "an MTU that no interface has", device: plain, claim: "kind: NICConfig\nmtu: 12"},
		{name: "an MTU that IPv6 cannot work with", device: plain, claim: "kind: NICConfig\nmtu: 1000\naddresses: [\"2001:db8::5/64\"]"},
		{name: "a gateway out of reach", device: plain, claim: "kind: NICConfig\naddresses: [10.1.0.5/24]\nroutes: [{destination: 0.0.0.0/0, gateway: 10.9.0.1}]"},
		{name: "a gateway with a zone", device: plain, claim: "kind: NICConfig\nroutes: [{destination: \"::/0\", gateway: \"fe80::1%eth0\"}]"},
		{name: "a gateway of another family", device: plain, claim: "kind: NICConfig\naddresses: [10.1.0.5/24]\nroutes: [{destination: \"::/0\", gateway: 10.1.0.1}]"},
		{name: "a source that is not there", device: plain, claim: "kind: NICConfig\naddresses: [10.1.0.5/24]\nroutes: [{destination: 10.2.0.0/16, source: 10.1.0.6}]"},
		{name: "a route twice", device: plain, claim: "kind: NICConfig\nroutes: [{destination: 10.2.0.0/16}, {destination: 10.2.0.0/16}]"},
		{name: "a rule without a table", device: plain, claim: "kind: NICConfig\nrules: [{priority: 100, source: 10.1.0.0/16}]"},
		{name: "rules of one priority", device: plain, claim: "kind: NICConfig\nrules: [{priority: 100, source: 10.1.0.0/16, table: 7}, {priority: 100, source: 10.2.0.0/16, table: 7}]"},
		{name: "a rule of two families", device: plain, claim: "kind: NICConfig\nrules: [{priority: 100, source: 10.1.0.0/16, destination: \"::/0\", table: 7}]"},
		{name: "a neighbour twice, and a bad address", device: plain, claim: "kind: NICConfig\nneighbours: [{address: 10.1.0.1, hardwareAddress: 02-00}, {address: 10.1.0.1, hardwareAddress: \"02:00:5e:10:00:01\"}]"},
		{name: "a VRF with the kernel's table", device: plain, claim: "kind: NICConfig\nvrf: {name: blue, table: 254}"},
		{name: "a VRF without anything", device: plain, claim: "kind: NICConfig\nvrf: {}"},
		{name: "a sysctl of the node", device: plain, claim: "kind: NICConfig\nsysctls: {kernel.panic: \"1\"}"},
		{name: "a sysctl with a real name", device: plain, claim: "kind: NICConfig\nsysctls: {net.ipv4.conf.eth1.arp_ignore: \"1\"}"},
		{name: "a sysctl that takes IPv6 away", device: plain, claim: "kind: NICConfig\naddresses: [\"2001:db8::5/64\"]\nsysctls: {net.ipv6.conf.IFNAME.disable_ipv6: \"1\"}"},
		{name: "a feature with a note", device: plain, claim: "kind: NICConfig\nethtool: {features: {\"rx-gro [fixed]\": true}}"},
		{name: "settings of no netdev", device: plain, claim: "kind: NICConfig\nmode: vfio\naddresses: [10.1.0.5/24]\nmtu: 9000"},
		{name: "settings that are Multus'", device: plain, claim: "kind: NICConfig\nattach: Multus\ninterfaceName: net1\nrdma: Exclusive"},
		{name: "a child and what it cannot have", device: plain, claim: "kind: NICConfig\nmode: ipvlan\nipvlan: {mode: l4}\nrdma: Exclusive"},
		{name: "an unknown mode", device: plain, claim: "kind: NICConfig\nmode: dpdk"},
		{name: "RDMA in the wrong case", device: plain, claim: "kind: NICConfig\nrdma: shared"},
		{name: "a network with a bad name", device: plain, claim: "kind: NICConfig\nnetworks: [{name: Rail_1}]"},
		{name: "two networks by one name", device: plain, claim: "kind: NICConfig\nnetworks: [{name: a, interfaceName: n0}, {name: b, interfaceName: n0}]"},
		{name: "two default routes", device: plain, claim: "kind: NICConfig\nnetworks: [{name: a, defaultRoute: [10.0.0.1, 10.0.0.2]}]"},
		{name: "a VF's VLAN that there is not", device: vf, class: "kind: NICConfig\nvf: {vlan: 4095, vlanQoS: 8, mac: \"01:00:5e:00:00:01\"}"},
		{name: "a GPU's capabilities that there are not", device: gpu, claim: "kind: GPUConfig\ndriverCapabilities: [cuda, compute, compute]"},
		{name: "capabilities in user space", device: gpu, claim: "kind: GPUConfig\nmode: vfio\ndriverCapabilities: [compute]"},
		{name: "a scope with several faults", device: "egress", claim: "kind: EgressConfig\ndns: Proxy\nallow: [{name: Web, to: [{cidr: {cidr: 10.0.0.1/8}}], ports: [{port: 0}, {port: 9, endPort: 8}]}, {name: Web}]"},
		// What is a valid config and not for this claim, or this device.
		{name: "what only a class may say", device: vf, claim: "kind: NICConfig\nhardwareAddress: \"02:00:5e:10:00:01\"\nsysctls: {net.ipv4.conf.IFNAME.forwarding: \"1\", net.ipv4.conf.IFNAME.arp_ignore: \"1\"}\nnetworks: [{namespace: kube-system, name: host}]\nvf: {vlan: 7, trust: true, maxTxRate: 100}"},
		{name: "another than the class says", device: vf, class: "kind: NICConfig\nvf: {vlan: 7}\nhardwareAddress: \"02:00:5e:10:00:01\"", claim: "kind: NICConfig\nhardwareAddress: \"02:00:5e:10:00:02\"\nvf: {vlan: 8}"},
		{name: "a VF's settings on a PF", device: plain, class: "kind: NICConfig\nvf: {vlan: 7}"},
		{name: "the node's own NIC", device: uplink},
		{name: "a NIC that is only to be looked at", device: plain, change: admin},
		{name: "RDMA that is not there", device: plain, claim: "kind: NICConfig\nrdma: Shared"},
		{name: "an interface that is not there", device: ib, claim: "kind: NICConfig\naddresses: [10.1.0.5/24]\nmtu: 9000"},
		{name: "a child of no interface", device: ib, claim: "kind: NICConfig\nmode: macvlan"},
		{name: "what InfiniBand has not", device: ib, machine: ipoib, claim: "kind: NICConfig\nmode: ipvlan\nmtu: 4000\nneighbours: [{address: 10.1.0.1, hardwareAddress: \"02:00:5e:10:00:01\"}]"},
		{name: "an MTU above the PF's", device: vf, claim: "kind: NICConfig\nmtu: 9216"},
		{name: "an MTU above the parent's", device: plain, claim: "kind: NICConfig\nmode: macvlan\nmtu: 9216"},
		{name: "a share, and the whole NIC", device: plain, share: "10G"},
		{name: "a share, and settings of all", device: vf, share: "10G", class: "kind: NICConfig\nmode: macvlan\nvf: {vlan: 7}"},
		{name: "a PF with VFs in user space", device: pf, claim: "kind: NICConfig\nmode: vfio"},
		{name: "a partition in user space", device: part1g0, claim: "kind: GPUConfig\nmode: vfio"},
		{name: "a GPU in MIG mode", device: mig},
		{name: "a GPU that is lost", device: lost},
		{name: "a GPU that is not there", device: "gpu-0000-99-00-0"},
		{name: "a NIC that is not there", device: "nic-0000-99-00-0"},
		{name: "two NICs by one name", device: plain, claim: "kind: NICConfig\ninterfaceName: net1", change: and(onNIC(rdma), "kind: NICConfig\ninterfaceName: net1\nrdma: None")},
		{name: "two NICs with one rule", device: plain, claim: "kind: NICConfig\nrules: [{priority: 100, source: 10.1.0.0/16, table: 7}]", change: and(onNIC(rdma), "kind: NICConfig\nrdma: None\nrules: [{priority: 100, source: 10.2.0.0/16, table: 7}]")},
		{name: "a PF and its VF", device: pf, change: and(onNIC(vf))},
		{name: "one GPU and a partition of it", device: part7g, change: and(onGPU(part1g0))},
		{name: "RDMA and a scope", device: rdma, change: and(onEgress())},
		{name: "two scopes", device: "egress", change: and(onEgress())},
		{name: "Multus, and a second device of the claim", device: plain, claim: "kind: NICConfig\nattach: Multus", change: and(onEgress())},
	}
}

// Most of these were wanted by somebody; none of them does harm, and all are told.
func TestWhatUsersReadOfTheirMistakes(t *testing.T) {
	var text strings.Builder
	for _, b := range badInputs() {
		refusal := b.refusal()
		if refusal == "" {
			t.Errorf("%s: it is prepared", b.name)
		}
		fmt.Fprintf(&text, "# %s\n", b.name)
		for _, part := range []struct{ whose, says string }{{"class", b.class}, {"claim", b.claim}} {
			if part.says != "" {
				fmt.Fprintf(&text, "%s says:\n\t%s\n", part.whose, strings.ReplaceAll(part.says, "\n", "\n\t"))
			}
		}
		fmt.Fprintf(&text, "%s\n\n", refusal)
	}
	path := filepath.Join("testdata", "refusals.txt")
	if *update {
		if err := os.WriteFile(path, []byte(text.String()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(string(mustRead(t, path)), text.String()); diff != "" {
		t.Errorf("users read something else than testdata/refusals.txt has; if that is better, run this with -update (-want +got):\n%s", diff)
	}
}
