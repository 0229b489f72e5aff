package v1alpha1

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/runtime"
)

func TestValidationOfNICs(t *testing.T) {
	mtu := func(bytes int32) *int32 { return &bytes }
	child := func(mode NICMode, config NICConfig) *NICConfig { config.Mode = mode; return &config }
	addressed := func(config NICConfig) *NICConfig {
		config.Addresses = []string{"10.1.0.5/24", "2001:db8::5/64"}
		return &config
	}
	via := func(route Route) *NICConfig { return addressed(NICConfig{Routes: []Route{route}}) }
	sysctl := func(name, value string) *NICConfig {
		return addressed(NICConfig{Sysctls: map[string]string{name: value}})
	}
	tests := map[string]struct {
		config runtime.Object
		faults []string // one per fault, in order; none: valid
	}{
		"all defaults": {&NICConfig{}, nil},
		"everything": {&NICConfig{
			InterfaceName: "net1", HardwareAddress: "02:00:5E:10:00:01", Addresses: []string{"10.1.0.5/24", "2001:db8::5/64"}, MTU: mtu(9000), RDMA: RDMAExclusive,
			Routes:     []Route{{Destination: "0.0.0.0/0", Gateway: "10.1.0.1", Source: "10.1.0.5", Metric: 1}, {Destination: "10.9.0.0/16", Gateway: "10.8.0.1", OnLink: true, Table: 7}, {Destination: "10.7.0.0/16", Scope: RouteScopeGlobal}},
			Rules:      []RoutingRule{{Priority: 1, Source: "10.1.0.5/32", Table: 7}, {Priority: 32765, Destination: "::/0", Table: 254}},
			Neighbours: []Neighbour{{Address: "10.1.0.1", HardwareAddress: "02:00:5e:10:00:02"}},
			VRF:        &VRFConfig{Name: "blue", Table: 1000},
			Sysctls:    map[string]string{"net.ipv4.conf.IFNAME.arp_announce": "2", "net.ipv6.neigh.IFNAME.gc_stale_time": "60"},
			Ethtool:    &EthtoolConfig{Features: map[string]bool{"rx-gro": false}, PrivateFlags: map[string]bool{"legacy-rx": true}},
			Networks:   []NetworkReference{{Name: "rail-1", Namespace: "net", InterfaceName: "rail1", IPs: []string{"10.5.0.1/24"}, MAC: "02:00:5e:10:00:03", DefaultRoute: []string{"10.5.0.254"}}, {Name: "tuned"}},
		}, nil},
		"several faults are told together": {&NICConfig{InterfaceName: "bond0", MTU: mtu(1), RDMA: "Maybe"}, []string{"interfaceName: Invalid", "mtu: Invalid", "rdma: Unsupported"}},

		"in user space":                  {&NICConfig{Mode: NICModeVFIO, RDMA: RDMANone}, nil},
		"unknown mode":                   {&NICConfig{Mode: "dpdk"}, []string{`mode: Unsupported value: "dpdk"`}},
		"settings of no netdev":          {&NICConfig{Mode: NICModeVFIO, InterfaceName: "net1", Addresses: []string{"10.1.0.5/24"}, Routes: []Route{{Destination: "10.0.0.0/8"}}, MTU: mtu(9000), Networks: []NetworkReference{{Name: "rail-1"}}}, []string{`interfaceName: Invalid value: "net1": must not`, `addresses: Invalid value: ["10.1.0.5/24"]: must not`, "routes: Invalid", "mtu: Invalid value: 9000: must not", "networks: Invalid"}},
		"new settings of no netdev":      {&NICConfig{Mode: NICModeVFIO, HardwareAddress: "02:00:5e:10:00:01", Rules: []RoutingRule{{Priority: 1, Source: "::/0", Table: 1}}, Neighbours: []Neighbour{{"10.0.0.1", "02:00:5e:10:00:01"}}, VRF: &VRFConfig{"blue", 1}, Sysctls: map[string]string{"net.ipv4.conf.IFNAME.arp_ignore": "1"}, Ethtool: &EthtoolConfig{}}, []string{"hardwareAddress: Invalid", "rules: Invalid", "neighbours: Invalid", "vrf: Invalid", "sysctls: Invalid", "ethtool: Invalid"}},
		"RDMA of a NIC in user space":    {&NICConfig{Mode: NICModeVFIO, RDMA: RDMAShared}, []string{`rdma: Invalid value: "Shared": must not be set with mode "vfio"`}},
		"unknown RDMA mode":              {&NICConfig{RDMA: "shared"}, []string{"rdma: Unsupported"}},
		"brought by Multus":              {&NICConfig{Attach: AttachMultus, RDMA: RDMAShared, VF: &VFConfig{VLAN: mtu(7)}}, nil},
		"what Multus's network decides":  {&NICConfig{Attach: AttachMultus, InterfaceName: "net1", Networks: []NetworkReference{{Name: "a"}}}, []string{`interfaceName: Invalid value: "net1": must not be set with attach "Multus"`, "networks: Invalid"}},
		"Multus and a child":             {child(NICModeMacvlan, NICConfig{Attach: AttachMultus}), []string{`attach: Invalid value: "Multus": is for mode "netdev" only`}},
		"Multus and user space":          {child(NICModeVFIO, NICConfig{Attach: AttachMultus, InterfaceName: "net1"}), []string{`interfaceName: Invalid value: "net1": must not be set with mode "vfio"`, `attach: Invalid value: "Multus"`}},
		"Multus and exclusive RDMA":      {&NICConfig{Attach: AttachMultus, RDMA: RDMAExclusive}, []string{`rdma: Invalid value: "Exclusive": is not possible with attach "Multus"`}},
		"unknown attacher":               {&NICConfig{Attach: "multus"}, []string{"attach: Unsupported"}},
		"a macvlan child":                {child(NICModeMacvlan, NICConfig{Macvlan: &MacvlanConfig{Mode: MacvlanVEPA}, HardwareAddress: "02:00:5e:10:00:01", RDMA: RDMAShared}), nil},
		"an ipvlan child":                {child(NICModeIPVLAN, NICConfig{IPVLAN: &IPVLANConfig{Mode: IPVLANL3S}, RDMA: RDMANone}), nil},
		"a child's mode without a child": {&NICConfig{Macvlan: &MacvlanConfig{}, IPVLAN: &IPVLANConfig{}}, []string{`macvlan: Invalid value: {}: is for mode "macvlan" only`, `ipvlan: Invalid value: {}: is for mode "ipvlan" only`}},
		"modes that children cannot have": {child(NICModeMacvlan, NICConfig{Macvlan: &MacvlanConfig{Mode: "passthru"}, IPVLAN: &IPVLANConfig{Mode: "l4"}}), []string{
			`macvlan.mode: Unsupported value: "passthru"`, "ipvlan: Invalid", `ipvlan.mode: Unsupported value: "l4"`}},
		"an address of an ipvlan child's own": {child(NICModeIPVLAN, NICConfig{HardwareAddress: "02:00:5e:10:00:01"}), []string{`hardwareAddress: Invalid value: "02:00:5e:10:00:01": must not be set with mode "ipvlan"`}},
		"private flags of a child":            {child(NICModeMacvlan, NICConfig{Ethtool: &EthtoolConfig{PrivateFlags: map[string]bool{"x": true}}}), []string{"ethtool.privateFlags: Invalid"}},
		"exclusive RDMA of a child":           {child(NICModeMacvlan, NICConfig{RDMA: RDMAExclusive}), []string{`rdma: Invalid value: "Exclusive": is not possible with mode "macvlan"`}},

		"name too long":                {&NICConfig{InterfaceName: "sixteen-letters-"}, []string{`interfaceName: Invalid value: "sixteen-letters-": must be at most 15 characters`}},
		"name the kernel refuses":      {&NICConfig{InterfaceName: "a/b"}, []string{"interfaceName: Invalid"}},
		"name that makes a number":     {&NICConfig{InterfaceName: "eth%d"}, []string{"interfaceName: Invalid"}},
		"the pod's own interface":      {&NICConfig{InterfaceName: "eth0"}, []string{`interfaceName: Invalid value: "eth0": names like eth0 are those of the pod's own interface; choose`}},
		"a hardware address too long":  {&NICConfig{HardwareAddress: "02:00:5e:10:00:01:00:00"}, []string{"hardwareAddress: Invalid"}},
		"a multicast hardware address": {&NICConfig{HardwareAddress: "01:00:5e:10:00:01"}, []string{"hardwareAddress: Invalid"}},
		"two hardware addresses":       {&NICConfig{HardwareAddress: "02:00:5e:10:00:01", VF: &VFConfig{MAC: new("02:00:5e:10:00:02")}}, []string{"hardwareAddress: Invalid value: \"02:00:5e:10:00:01\": is another one than vf.mac"}},
		"one hardware address, twice":  {&NICConfig{HardwareAddress: "02:00:5e:10:00:0A", VF: &VFConfig{MAC: new("02:00:5e:10:00:0a")}}, nil},

		"address without length":  {&NICConfig{Addresses: []string{"10.1.0.5"}}, []string{"addresses[0]: Invalid"}},
		"address twice":           {&NICConfig{Addresses: []string{"10.1.0.5/24", "10.1.0.5/16"}}, []string{"addresses[1]: Duplicate"}},
		"multicast address":       {&NICConfig{Addresses: []string{"224.0.0.1/4"}}, []string{"addresses[0]: Invalid"}},
		"more addresses than fit": {&NICConfig{Addresses: many(65, func(i int) string { return fmt.Sprintf("10.1.0.%d/24", i+1) })}, []string{"addresses: Too many: 65: must have at most 64 items"}},
		"MTU below IPv4's least":  {&NICConfig{MTU: mtu(67)}, []string{"mtu: Invalid"}},
		"MTU below IPv6's least":  {&NICConfig{MTU: mtu(1279), Addresses: []string{"2001:db8::5/64"}}, []string{"mtu: Invalid"}},

		"a route with host bits":             {via(Route{Destination: "10.1.2.3/8"}), []string{`routes[0].destination: Invalid value: "10.1.2.3/8": has address bits beyond its length; write "10.0.0.0/8"`}},
		"a gateway of another family":        {via(Route{Destination: "::/0", Gateway: "10.1.0.1"}), []string{"routes[0].gateway: Invalid"}},
		"a gateway that is a group":          {via(Route{Destination: "0.0.0.0/0", Gateway: "224.0.0.1"}), []string{"routes[0].gateway: Invalid"}},
		"a gateway out of reach":             {via(Route{Destination: "0.0.0.0/0", Gateway: "10.9.0.1"}), []string{`routes[0].gateway: Invalid value: "10.9.0.1": is in the prefix of none of the addresses`}},
		"a gateway that another route finds": {addressed(NICConfig{Routes: []Route{{Destination: "10.9.0.1/32"}, {Destination: "0.0.0.0/0", Gateway: "10.9.0.1"}}}), nil},
		"a link-local gateway":               {via(Route{Destination: "::/0", Gateway: "fe80::1"}), nil},
		"a gateway that a chain may reach":   {&NICConfig{Networks: []NetworkReference{{Name: "a"}}, Routes: []Route{{Destination: "0.0.0.0/0", Gateway: "10.9.0.1", Source: "10.9.0.2"}}}, nil},
		"on the link of nothing":             {via(Route{Destination: "10.9.0.0/16", OnLink: true}), []string{"routes[0].onLink: Invalid"}},
		"a source that is not there":         {via(Route{Destination: "10.9.0.0/16", Source: "10.1.0.6"}), []string{`routes[0].source: Invalid value: "10.1.0.6": must be one of the addresses`}},
		"a source of another family":         {via(Route{Destination: "10.9.0.0/16", Source: "2001:db8::5"}), []string{"routes[0].source: Invalid"}},
		"a gateway on the link itself":       {via(Route{Destination: "10.9.0.0/16", Gateway: "10.1.0.1", Scope: RouteScopeLink}), []string{"routes[0].scope: Invalid"}},
		"an unknown scope":                   {via(Route{Destination: "10.9.0.0/16", Scope: "Host"}), []string{"routes[0].scope: Unsupported"}},
		"tables of the kernel":               {addressed(NICConfig{Routes: []Route{{Destination: "10.9.0.0/16", Table: 253}, {Destination: "10.9.0.0/16", Table: 254}, {Destination: "10.9.0.0/16", Table: 255}}}), []string{"routes[0].table: Invalid value: 253", "routes[2].table: Invalid value: 255"}},
		"a route twice":                      {addressed(NICConfig{Routes: []Route{{Destination: "2001:DB8:1::/48"}, {Destination: "2001:db8:1::/48", Table: 254}}}), []string{"routes[1]: Duplicate"}},
		"a route by two metrics":             {addressed(NICConfig{Routes: []Route{{Destination: "10.9.0.0/16"}, {Destination: "10.9.0.0/16", Metric: 9}}}), nil},
		"a route twice in a VRF":             {addressed(NICConfig{VRF: &VRFConfig{"blue", 9}, Routes: []Route{{Destination: "10.9.0.0/16"}, {Destination: "10.9.0.0/16", Table: 9}}}), []string{`routes[1]: Duplicate value: "10.9.0.0/16 in table 9 with metric 0"`}},
		"more routes than fit":               {&NICConfig{Routes: many(65, func(i int) Route { return Route{Destination: fmt.Sprintf("10.%d.0.0/16", i)} })}, []string{"routes: Too many"}},

		"rules that are asked too early, too late and twice": {&NICConfig{Rules: []RoutingRule{{Source: "10.0.0.0/8", Table: 1}, {Priority: 32766, Source: "10.0.0.0/8", Table: 1}, {Priority: 5, Source: "10.0.0.0/8", Table: 1}, {Priority: 5, Source: "10.0.0.0/8", Table: 1}}}, []string{"rules[0].priority: Invalid value: 0", "rules[1].priority: Invalid value: 32766", "rules[3].priority: Duplicate value: 5"}},
		"a rule for nothing":                 {&NICConfig{Rules: []RoutingRule{{Priority: 1, Table: 1}}}, []string{"rules[0].source: Required"}},
		"a rule of two families":             {&NICConfig{Rules: []RoutingRule{{Priority: 1, Source: "10.0.0.0/8", Destination: "::/0", Table: 1}}}, []string{"rules[0].destination: Invalid"}},
		"a rule that asks nobody":            {&NICConfig{Rules: []RoutingRule{{Priority: 1, Source: "10.0.0.1/8"}}}, []string{"rules[0].source: Invalid", "rules[0].table: Required"}},
		"neighbours that are none":           {&NICConfig{Neighbours: []Neighbour{{"224.0.0.1", "02:00:5e:10:00:01"}, {"10.0.0.1/24", "02:00:5e:10:00:01"}, {"10.0.0.1", "ff:ff:ff:ff:ff:ff"}, {"10.0.0.1", "02:00:5e:10:00:01"}}}, []string{"neighbours[0].address: Invalid", "neighbours[1].address: Invalid", "neighbours[2].hardwareAddress: Invalid", "neighbours[3].address: Duplicate"}},
		"a VRF without anything":             {&NICConfig{VRF: &VRFConfig{}}, []string{"vrf.name: Required", "vrf.table: Required"}},
		"a VRF of the kernel":                {&NICConfig{VRF: &VRFConfig{Name: "docker0", Table: 254}}, []string{"vrf.name: Invalid", "vrf.table: Invalid"}},
		"a VRF that is called as what is in": {&NICConfig{InterfaceName: "blue", VRF: &VRFConfig{Name: "blue", Table: 9}}, []string{"vrf.name: Invalid"}},

		"a sysctl of the node":                      {sysctl("kernel.panic", "1"), []string{"sysctls[kernel.panic]: Invalid"}},
		"a sysctl of all interfaces":                {sysctl("net.ipv4.conf.all.arp_ignore", "1"), []string{"sysctls[net.ipv4.conf.all.arp_ignore]: Invalid"}},
		"a sysctl that leads elsewhere":             {sysctl("net.ipv4.conf.IFNAME.../all/arp_ignore", "1"), []string{"sysctls[net.ipv4.conf.IFNAME.../all/arp_ignore]: Invalid"}},
		"a sysctl of several lines":                 {sysctl("net.ipv4.conf.IFNAME.arp_ignore", "1\n"), []string{"printable"}},
		"a sysctl without a value":                  {sysctl("net.ipv4.conf.IFNAME.arp_ignore", ""), []string{"printable"}},
		"a sysctl that can only be read":            {sysctl("net.ipv4.conf.IFNAME.mc_forwarding", "1"), []string{"can only be read"}},
		"a second MTU":                              {sysctl("net.ipv6.conf.IFNAME.mtu", "1400"), []string{"set mtu"}},
		"IPv6 configured and switched off":          {sysctl("net.ipv6.conf.IFNAME.disable_ipv6", "1"), []string{"takes IPv6 from an interface for which IPv6 is configured"}},
		"IPv6 switched on":                          {sysctl("net.ipv6.conf.IFNAME.disable_ipv6", "0"), nil},
		"a feature that ethtool prints with a note": {&NICConfig{Ethtool: &EthtoolConfig{Features: map[string]bool{"rx-all [fixed]": true, "": false, strings.Repeat("x", 32): true}}}, []string{"ethtool.features[]: Invalid", "ethtool.features[rx-all [fixed]]: Invalid", "ethtool.features[xxx"}},

		"networks upon the device":            {&NICConfig{InterfaceName: "net1", Networks: []NetworkReference{{Name: "a"}, {Name: "b", InterfaceName: "net1"}, {Name: "c", InterfaceName: "c0"}}}, nil},
		"two networks by one name":            {&NICConfig{Networks: []NetworkReference{{Name: "a"}, {Name: "b", InterfaceName: "c0"}, {Name: "c", InterfaceName: "c0"}}}, []string{"networks[2].interfaceName: Invalid value: \"c0\": is that of networks[1], too"}},
		"nine networks":                       {&NICConfig{Networks: many(9, func(i int) NetworkReference { return NetworkReference{Name: "a", InterfaceName: fmt.Sprint("net", i)} })}, []string{"networks: Too many: 9: must have at most 8"}},
		"what no network can be asked for":    {&NICConfig{Networks: []NetworkReference{{Name: "A", InterfaceName: "cni0", IPs: []string{"10.0.0.1"}, MAC: "x", DefaultRoute: []string{"10.0.0.0/8"}}}}, []string{"networks[0].name", "networks[0].interfaceName", "networks[0].ips[0]", "networks[0].mac", "networks[0].defaultRoute[0]"}},
		"a network asked for the same, twice": {&NICConfig{Networks: []NetworkReference{{Name: "a", IPs: []string{"10.0.0.1/8", "10.0.0.1/8"}, DefaultRoute: []string{"10.0.0.1", "10.0.0.1"}}}}, []string{"networks[0].ips[1]: Duplicate", "networks[0].defaultRoute[1]: Invalid value: \"10.0.0.1\": is the second gateway of its address family"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) { sameFaults(t, test.config, test.faults) })
	}
}

func many[T any](count int, one func(i int) T) []T {
	var all []T
	for i := range count {
		all = append(all, one(i))
	}
	return all
}

func TestNamesThatNoInterfaceOfAPodCanHave(t *testing.T) {
	for _, name := range strings.Fields("lo all default . .. eth0 bond0 bond br-1f2e3d br0 cbr0 docker0 cni0 cni-podman0 dummy0 flannel.1 cilium_host lxc12ab cali12ab veth0 virbr0 vnet3 kube-ipvs0 ovs-system vxlan.calico tunl0 sit0 gre0 ip6tnl0 ip_vti0 nodelocaldns ovn-k8s-mp0 hostler1") {
		if InterfaceNameFault(name) == "" {
			t.Errorf("%s passes", name)
		}
	}
	for _, name := range strings.Fields("eth1 net1 rail0 ib0 ens1f0np0 enp24s0f0 p0 vrf-blue storage brain team-a grey bridge0 vnet green") {
		if fault := InterfaceNameFault(name); fault != "" {
			t.Errorf("%s is refused: %s", name, fault)
		}
	}
	// A pattern that is malformed would match nothing, its own example neither.
	for _, p := range plumbings() {
		example := strings.NewReplacer("[0-9]", "7", "*", "x").Replace(p.pattern)
		if InterfaceNameFault(example) == "" {
			t.Errorf("%s passes, which is like %s", example, p.pattern)
		}
	}
}

func TestDefaultsOfNICs(t *testing.T) {
	for name, test := range map[string]struct{ config, want NICConfig }{
		"nothing":         {NICConfig{}, NICConfig{Mode: NICModeNetdev, Attach: AttachHostler, RDMA: RDMAAuto}},
		"a macvlan child": {NICConfig{Mode: NICModeMacvlan}, NICConfig{Mode: NICModeMacvlan, Macvlan: &MacvlanConfig{Mode: MacvlanBridge}, Attach: AttachHostler, RDMA: RDMAAuto}},
		"an ipvlan child": {NICConfig{Mode: NICModeIPVLAN, IPVLAN: &IPVLANConfig{}}, NICConfig{Mode: NICModeIPVLAN, IPVLAN: &IPVLANConfig{Mode: IPVLANL2}, Attach: AttachHostler, RDMA: RDMAAuto}},
		"routes": {NICConfig{Routes: []Route{{Destination: "10.0.0.0/8"}, {Destination: "0.0.0.0/0", Gateway: "10.0.0.1"}}},
			NICConfig{Mode: NICModeNetdev, Attach: AttachHostler, RDMA: RDMAAuto, Routes: []Route{{Destination: "10.0.0.0/8", Scope: RouteScopeLink}, {Destination: "0.0.0.0/0", Gateway: "10.0.0.1", Scope: RouteScopeGlobal}}}},
	} {
		t.Run(name, func(t *testing.T) {
			SetDefaults(&test.config)
			if diff := cmp.Diff(test.want, test.config); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestSettingsThatAreForClasses(t *testing.T) {
	for name, want := range map[string]bool{"net.ipv4.conf.IFNAME.forwarding": true, "net.ipv6.conf.IFNAME.proxy_ndp": true, "net.ipv4.conf.IFNAME.arp_ignore": false, "net.ipv6.conf.IFNAME.accept_ra": false} {
		if IsClassSysctl(name) != want {
			t.Errorf("%s is for classes only: %v", name, !want)
		}
	}
}
