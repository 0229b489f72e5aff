package claim

import (
	"strings"
	"testing"

	"github.com/hostler-dev/hostler/netattach"
)

func TestChainsOfOneClaimThatExcludeEachOther(t *testing.T) {
	rail := func(name, iface, kind string) netattach.NetworkIntent {
		return netattach.NetworkIntent{Namespace: "ns", Name: name, Interface: iface, Config: []byte(`{"cniVersion":"1.0.0","name":"rail","plugins":[{"type":"` + kind + `"}]}`)}
	}
	child := &netattach.ChildIntent{Kind: "macvlan", Mode: "bridge"}
	for name, test := range map[string]struct {
		child    *netattach.ChildIntent
		networks []netattach.NetworkIntent
		refused  string
	}{
		"two that make an interface each":           {nil, []netattach.NetworkIntent{rail("a", "mv0", "macvlan"), rail("b", "mv1", "macvlan")}, ""},
		"one upon the device and one of its own":    {nil, []netattach.NetworkIntent{rail("a", "", "tuning"), rail("b", "mv1", "macvlan")}, ""},
		"one that takes the device and one upon it": {nil, []netattach.NetworkIntent{rail("a", "", "host-device"), {Namespace: "ns", Name: "b", Config: []byte(`{"cniVersion":"1.0.0","name":"other","type":"tuning"}`)}}, ""},
		"two of one name upon the device":           {nil, []netattach.NetworkIntent{rail("a", "", "tuning"), rail("b", "", "sbr")}, "ns/a and ns/b"},
		"two of one name that name the interface":   {nil, []netattach.NetworkIntent{rail("a", "", "tuning"), rail("b", "fabric0", "sbr")}, "could not tell them apart"},
		"one that takes what stays on the node":     {child, []netattach.NetworkIntent{rail("a", "", "sriov")}, "mode macvlan"},
		"one that takes it later":                   {child, []netattach.NetworkIntent{rail("a", "", `tuning"},{"type":"ib-sriov`)}, "has plugin ib-sriov"},
		"one that takes its RDMA device":            {child, []netattach.NetworkIntent{rail("a", "", `tuning"},{"type":"rdma`)}, "has plugin rdma, which takes NIC nic-0 or its RDMA device"},
		"the RDMA device of a NIC of one's own":     {nil, []netattach.NetworkIntent{rail("a", "", "rdma")}, ""},
		"one upon a child":                          {child, []netattach.NetworkIntent{rail("a", "", "tuning")}, ""},
		"two that take the device": {nil, []netattach.NetworkIntent{rail("a", "", "host-device"), {Namespace: "ns", Name: "b",
			Config: []byte(`{"cniVersion":"1.0.0","name":"other","plugins":[{"type":"sriov"}]}`)}}, "name one of them"},
	} {
		t.Run(name, func(t *testing.T) {
			entry := &Entry{Devices: []Device{{}, {Name: "nic-0", Network: &netattach.DeviceIntent{Device: "nic-0", PodName: "fabric0", Child: test.child, Networks: test.networks}}}}
			err := checkNetworks(entry)
			if test.refused == "" && err != nil || test.refused != "" && (err == nil || !strings.Contains(err.Error(), test.refused)) {
				t.Errorf("got %v, want %q", err, test.refused)
			}
		})
	}
}
