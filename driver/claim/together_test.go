package claim

import (
	"errors"
	"strings"
	"testing"

	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/hostler-dev/hostler/netattach"
)

// What two NICs of one pod say, and why they cannot be in it both, "" if they can.
var pairsOfOnePod = []struct {
	name, first, second, refused string
}{
	{"names of their own", `{"interfaceName": "net1"}`, `{"interfaceName": "net2"}`, ""},
	{"one name", `{"interfaceName": "net1"}`, `{"interfaceName": "net1"}`, "would both be called net1 in the pod"},
	{"one by the host's name of the other", `{}`, `{"interfaceName": "eth1"}`, "would both be called eth1"},
	{"a network called as the other NIC", `{"interfaceName": "net1"}`, `{"interfaceName": "net2", "networks": [{"name": "a"}, {"name": "b", "interfaceName": "net1"}]}`, "would both be called net1"},
	{"default routes of two families", `{"interfaceName": "net1", "networks": [{"name": "a", "defaultRoute": ["10.0.0.1"]}]}`, `{"interfaceName": "net2", "networks": [{"name": "a", "defaultRoute": ["2001:db8::1"]}]}`, ""},
	{"default routes of one family", `{"interfaceName": "net1", "networks": [{"name": "a", "defaultRoute": ["10.0.0.1"]}]}`, `{"interfaceName": "net2", "networks": [{"name": "b", "defaultRoute": ["10.1.0.1"]}]}`, "would both have the pod's default route"},
	{"rules one after the other", `{"rules": [{"priority": 10, "source": "10.0.0.0/8", "table": 7}]}`, `{"rules": [{"priority": 11, "source": "10.0.0.0/8", "table": 7}]}`, ""},
	{"rules of one priority", `{"rules": [{"priority": 10, "source": "10.0.0.0/8", "table": 7}]}`, `{"rules": [{"priority": 10, "source": "::/0", "table": 8}]}`, "both have a rule of priority 10"},
	{"one VRF", `{"vrf": {"name": "blue", "table": 7}}`, `{"vrf": {"name": "blue", "table": 7}}`, ""},
	{"one VRF with two tables", `{"vrf": {"name": "blue", "table": 7}}`, `{"vrf": {"name": "blue", "table": 8}}`, "by one its table is 7 and by the other 8"},
	{"a VRF called as an interface", `{"vrf": {"name": "blue", "table": 7}}`, `{"interfaceName": "blue"}`, "blue would be the VRF of NIC nic-0000-18-00-0 in the pod and the interface of NIC nic-0000-19-00-0"},
	{"an interface called as a VRF", `{"interfaceName": "blue"}`, `{"vrf": {"name": "blue", "table": 7}}`, "blue would be the VRF of NIC nic-0000-19-00-0"},
}

func TestNICsOfOneClaimThatCannotBeInOnePod(t *testing.T) {
	for _, test := range pairsOfOnePod {
		t.Run(test.name, func(t *testing.T) {
			c := allocated("c", onNIC(nicRDMA), onNIC(nicPlain))
			_, err := planOn(machine(), with(with(c, claim, "NICConfig "+test.first, "r0"), claim, "NICConfig "+test.second, "r1"))
			if (err != nil) != (test.refused != "") || err != nil && !strings.Contains(err.Error(), test.refused) {
				t.Errorf("%v; want %q", err, test.refused)
			}
		})
	}
}

func TestNICsOfTwoClaimsThatCannotBeInOnePod(t *testing.T) {
	entry := func(t *testing.T, name, nic, config string, pods ...string) *Entry {
		c := with(allocated(name, onNIC(nic)), claim, "NICConfig "+config)
		c.Status.ReservedFor = nil
		for _, pod := range pods {
			c.Status.ReservedFor = append(c.Status.ReservedFor, resourceapi.ResourceClaimConsumerReference{Resource: "pods", Name: pod, UID: types.UID(pod)})
		}
		entry, err := planOn(machine(), c)
		if err != nil {
			t.Fatal(err)
		}
		return entry
	}
	for _, test := range pairsOfOnePod {
		t.Run(test.name, func(t *testing.T) {
			first, second := entry(t, "a", nicRDMA, test.first, "pod", "other"), entry(t, "b", nicPlain, test.second, "pod")
			err := conflict(second, map[types.UID]*Entry{first.ClaimUID: first})
			if (err != nil) != (test.refused != "") || err != nil && (!strings.Contains(err.Error(), test.refused) || !strings.Contains(err.Error(), "claims team/b and team/a are used by one pod")) {
				t.Errorf("%v; want %q", err, test.refused)
			}
			elsewhere := entry(t, "b", nicPlain, test.second, "elsewhere")
			if err := conflict(elsewhere, map[types.UID]*Entry{first.ClaimUID: first}); err != nil {
				t.Errorf("in a pod of its own: %v", err)
			}
			// A pod that joins a claim later brings the two together as well.
			elsewhere.Pods = append(elsewhere.Pods, netattach.PodReference{UID: "other"})
			if err := conflict(elsewhere, map[types.UID]*Entry{first.ClaimUID: first}); (err != nil) != (test.refused != "") {
				t.Errorf("in a pod that joins: %v", err)
			}
		})
	}
}

func TestSharesOfOneNIC(t *testing.T) {
	share := func(nic, config string) func(name string) *resourceapi.ResourceClaim {
		return func(name string) *resourceapi.ResourceClaim {
			c := sharing(with(allocated(name, onNIC(nic)), claim, "NICConfig "+config), "10G")
			return c
		}
	}
	whole := func(device [2]string, config string) func(name string) *resourceapi.ResourceClaim {
		return func(name string) *resourceapi.ResourceClaim {
			return with(allocated(name, device), claim, "NICConfig "+config)
		}
	}
	// Nobody is allocated another's share; if somebody is, only one of them gets it.
	sameShare := func(name string) *resourceapi.ResourceClaim {
		c := share(nicPlain, `{"mode": "macvlan"}`)(name)
		c.Status.Allocation.Devices.Results[0].ShareID = new(types.UID("one"))
		return c
	}
	const held, mixed = "is already held by", "either macvlan children or ipvlan ones"
	for _, test := range []struct {
		name          string
		first, second func(name string) *resourceapi.ResourceClaim
		refused       string
	}{
		{"two macvlan children", share(nicPlain, `{"mode": "macvlan"}`), share(nicPlain, `{"mode": "macvlan", "macvlan": {"mode": "private"}}`), ""},
		{"two ipvlan children", share(nicPlain, `{"mode": "ipvlan"}`), share(nicPlain, `{"mode": "ipvlan"}`), ""},
		{"ipvlan children of two modes", share(nicPlain, `{"mode": "ipvlan"}`), share(nicPlain, `{"mode": "ipvlan", "ipvlan": {"mode": "l3"}}`), mixed},
		{"a macvlan and an ipvlan child", share(nicPlain, `{"mode": "macvlan"}`), share(nicPlain, `{"mode": "ipvlan"}`), mixed},
		{"children of two NICs", share(nicPlain, `{"mode": "macvlan"}`), share(nicRDMA, `{"mode": "ipvlan"}`), ""},
		{"a child and the whole NIC", share(nicPlain, `{"mode": "macvlan"}`), whole(onNIC(nicPlain), `{}`), held},
		{"a child and one of the whole NIC", share(nicPlain, `{"mode": "macvlan"}`), whole(onNIC(nicPlain), `{"mode": "macvlan"}`), held},
		{"a child and the NIC in user space", share(nicPlain, `{"mode": "macvlan"}`), whole(onNIC(nicPlain), `{"mode": "vfio"}`), held},
		{"a child and a pair with its NIC", share(nicPlain, `{"mode": "macvlan"}`), whole(onAny(pairPlain), `{"mode": "macvlan"}`), "shares hardware with"},
		{"a child of a PF and a VF", share(nicPF, `{"mode": "macvlan"}`), whole(onNIC(nicVF1), `{}`), "shares hardware with"},
		{"a child of a PF and one of its VF", share(nicPF, `{"mode": "macvlan"}`), share(nicVF1, `{"mode": "macvlan"}`), "shares hardware with"},
		{"one share twice", sameShare, sameShare, held},
		{"children of two VFs", share(nicVF0, `{"mode": "macvlan"}`), share(nicVF1, `{"mode": "ipvlan"}`), ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			for _, order := range [][2]func(string) *resourceapi.ResourceClaim{{test.first, test.second}, {test.second, test.first}} {
				var entries [2]*Entry
				for i, name := range []string{"a", "b"} {
					var err error
					if entries[i], err = planOn(fastMachine(), order[i](name)); err != nil {
						t.Fatal(err)
					}
				}
				err := conflict(entries[1], map[types.UID]*Entry{entries[0].ClaimUID: entries[0]})
				var collides *HeldError
				if errors.As(err, &collides) != (test.refused != "") || err != nil && (!strings.Contains(err.Error(), test.refused) || !strings.Contains(err.Error(), "team/a")) {
					t.Errorf("%v; want %q", err, test.refused)
				}
			}
		})
	}
}

func TestSharesOfOneNICInOneClaim(t *testing.T) {
	for name, test := range map[string]struct{ first, second, refused string }{
		"two of a kind":      {`{"mode": "macvlan", "interfaceName": "a0"}`, `{"mode": "macvlan", "interfaceName": "b0"}`, ""},
		"two of two kinds":   {`{"mode": "macvlan", "interfaceName": "a0"}`, `{"mode": "ipvlan", "interfaceName": "b0"}`, "either macvlan children or ipvlan ones"},
		"two by one name":    {`{"mode": "macvlan"}`, `{"mode": "macvlan"}`, "would both be called eth2"},
		"one and the netdev": {`{"mode": "macvlan"}`, `{}`, "mode netdev takes the whole NIC"},
	} {
		t.Run(name, func(t *testing.T) {
			c := sharing(allocated("c", onNIC(nicPlain), onNIC(nicPlain)), "10G")
			entry, err := planOn(fastMachine(), with(with(c, claim, "NICConfig "+test.first, "r0"), claim, "NICConfig "+test.second, "r1"))
			if (err != nil) != (test.refused != "") || err != nil && !strings.Contains(err.Error(), test.refused) {
				t.Fatalf("%v; want %q", err, test.refused)
			}
			if err == nil && *entry.Devices[0].Network.ShareID == *entry.Devices[1].Network.ShareID {
				t.Error("two shares by one name")
			}
		})
	}
}

// Each pod of a claim gets a child of its own. The second pod may come when the
// claim has been prepared for the first.
func TestChildrenInSeveralPodsOfOneClaim(t *testing.T) {
	for name, test := range map[string]struct{ config, refused string }{
		"whose addresses others assign":   {`{"mode": "macvlan", "mtu": 1500, "networks": [{"name": "storage"}]}`, ""},
		"with an address":                 {`{"mode": "macvlan", "addresses": ["10.1.0.5/24"]}`, "2 pods use the claim"},
		"with a hardware address":         {`{"mode": "macvlan", "hardwareAddress": "02:00:5e:10:00:01"}`, "ResourceClaimTemplate"},
		"with an address of a network's":  {`{"mode": "ipvlan", "networks": [{"name": "storage", "ips": ["10.5.0.5/24"]}]}`, "2 pods use the claim"},
		"with a network's hardware alone": {`{"mode": "macvlan", "networks": [{"name": "storage", "mac": "02:00:5e:10:00:01"}]}`, "2 pods use the claim"},
	} {
		t.Run(name, func(t *testing.T) {
			single := nicClaim(nicPlain, "", test.config)
			two := single.DeepCopy()
			two.Status.ReservedFor = append(two.Status.ReservedFor, resourceapi.ResourceClaimConsumerReference{Resource: "pods", Name: "second", UID: "pod-second"})
			verdict := func(when string, err error) {
				if (err != nil) != (test.refused != "") || err != nil && !strings.Contains(err.Error(), test.refused) {
					t.Errorf("%s: %v; want %q", when, err, test.refused)
				}
			}
			_, err := planOn(machine(), two)
			verdict("both at once", err)
			r := newRoom(t, t.TempDir(), boot)
			if _, err := r.prepare(single); err != nil {
				t.Fatal(err)
			}
			_, err = r.prepare(two)
			verdict("one after the other", err)
			if pods := len(r.journal.Entry(single.UID).Pods); (pods == 2) != (test.refused == "") {
				t.Errorf("the claim is for %d pods", pods)
			}
		})
	}
}
