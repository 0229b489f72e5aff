package claim

// Whatever somebody writes into a NICConfig: if it is valid it is planned, on a NIC
// that can all of it, and the plan says all that was written; if it is not, it is refused.

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/runtime"
	"pgregory.net/rapid"

	"github.com/hostler-dev/hostler/api/v1alpha1"
	"github.com/hostler-dev/hostler/netattach"
	"github.com/hostler-dev/hostler/topology"
)

// ableMachine has a VF to which nothing is denied.
func ableMachine() *topology.Snapshot {
	m := machine()
	vf, pf := m.NIC(nicVF0), m.NIC(nicPF)
	vf.RDMA = m.NIC(nicRDMA).RDMA
	vf.Link.MTU, pf.Link.MTU = 65535, 65535
	return m
}

func FuzzNICConfig(f *testing.F) {
	for example := range strings.SplitSeq(string(mustRead(f, "..", "..", "api", "v1alpha1", "testdata", "NICConfig.yaml")), "---\n") {
		f.Add([]byte(example))
	}
	for _, body := range []string{nicSettings, vfSettings, `NICConfig {"mode": "vfio"}`, `NICConfig {"attach": "Multus"}`, `NICConfig {"mode": "ipvlan", "ipvlan": {"mode": "l3"}, "rdma": "Shared"}`, `NICConfig {"rdma": "Exclusive", "vf": {"linkState": "Auto"}}`} {
		f.Add(config(body))
	}
	f.Fuzz(func(t *testing.T, raw []byte) { planWhatIsWritten(t, raw) })
}

// The same of configs that are mostly right.
func TestWhatIsWrittenIsPlanned(t *testing.T) {
	planned := 0
	rapid.Check(t, func(t *rapid.T) {
		fields := anyNICConfig(t)
		raw, err := json.Marshal(fields)
		if err != nil {
			t.Fatal(err)
		}
		if planWhatIsWritten(t, config("NICConfig "+string(raw))) {
			planned++
		}
	})
	if t.Logf("%d were planned", planned); planned == 0 {
		t.Error("none of the configs is valid")
	}
}

// anyNICConfig draws each field from a few values, of which most fit each other.
func anyNICConfig(t *rapid.T) map[string]any {
	type object = map[string]any
	vocabulary := map[string][]any{
		"mode":            {"netdev", "macvlan", "ipvlan", "vfio"},
		"attach":          {"Hostler", "Multus"},
		"macvlan":         {object{}, object{"mode": "vepa"}},
		"ipvlan":          {object{"mode": "l3"}},
		"interfaceName":   {"net1", "eth0", "blue"},
		"hardwareAddress": {"02:00:5E:10:00:01"},
		"addresses":       {[]string{"10.1.0.5/24"}, []string{"10.1.0.5/24", "2001:DB8::5/64"}},
		"routes":          {[]object{{"destination": "10.2.0.0/16"}}, []object{{"destination": "0.0.0.0/0", "gateway": "10.1.0.1", "source": "10.1.0.5", "metric": 7}, {"destination": "2001:DB8:1::/48", "gateway": "fe80::1", "table": 9, "onLink": true}}},
		"rules":           {[]object{{"priority": 10, "source": "10.0.0.0/8", "table": 9}, {"priority": 11, "destination": "::/0", "table": 9}}},
		"neighbours":      {[]object{{"address": "10.1.0.9", "hardwareAddress": "02:00:5E:10:00:09"}}},
		"mtu":             {1500, 1000, 65535, 70000},
		"vrf":             {object{"name": "blue", "table": 100}, object{"name": "blue"}},
		"sysctls":         {object{"net.ipv4.conf.IFNAME.forwarding": "1"}, object{"net.ipv6.conf.IFNAME.disable_ipv6": "1"}},
		"ethtool":         {object{"features": object{"rx-gro": true}}, object{"privateFlags": object{"legacy-rx": false}}, object{}},
		"rdma":            {"Auto", "Shared", "Exclusive", "None"},
		"networks":        {[]object{{"name": "a"}}, []object{{"name": "a", "interfaceName": "net1"}, {"name": "b", "namespace": "fabric", "interfaceName": "b0", "ips": []string{"10.5.0.5/24"}, "mac": "02:00:5E:10:00:0B", "defaultRoute": []string{"10.5.0.1"}}}},
		"vf":              {object{"vlan": 7}, object{"mac": "02:00:5e:10:00:01"}},
	}
	fields := object{}
	for _, name := range slices.Sorted(maps.Keys(vocabulary)) {
		if rapid.IntRange(0, 3).Draw(t, name+" is set") == 3 {
			fields[name] = rapid.SampledFrom(vocabulary[name]).Draw(t, name)
		}
	}
	return fields
}

// planWhatIsWritten reports whether it is a config that was planned.
func planWhatIsWritten(t failer, raw []byte) bool {
	object, err := v1alpha1.Decode(raw)
	written, is := object.(*v1alpha1.NICConfig)
	if err != nil || !is {
		return false
	}
	c := with(allocated("c", onNIC(nicVF0)), class, `NICConfig {}`)
	c.Status.Allocation.Devices.Config[0].Opaque.Parameters = runtime.RawExtension{Raw: raw}
	entry, err := planOn(ableMachine(), c)
	v1alpha1.SetDefaults(written)
	faults := v1alpha1.Validate(written)
	if (err != nil) != (len(faults) > 0) {
		t.Fatal("the config's faults are ", faults, ", and the plan says ", err)
	}
	for _, fault := range faults {
		if !strings.Contains(err.Error(), fault.Error()) {
			t.Fatal("the plan says ", err, ", but not ", fault)
		}
	}
	if err != nil {
		return false
	}
	device := &entry.Devices[0]
	if (device.VFIO != nil) != (written.Mode == v1alpha1.NICModeVFIO) || (device.Network == nil) != (device.VFIO != nil) {
		t.Fatal("by mode ", written.Mode, " it is planned as ", device)
	}
	if device.Network != nil {
		if diff := gocmp.Diff(saidBy(written), plannedBy(device.Network)); diff != "" {
			t.Fatal("(-written +planned):\n" + diff)
		}
	}
	throughTheJournal(t, entry)
	return true
}

func throughTheJournal(t failer, entry *Entry) {
	c, err := newCodec()
	if err != nil {
		t.Fatal(err)
	}
	raw, err := c.encode(&record{Entries: []*Entry{entry}})
	if err != nil {
		t.Fatal(err)
	}
	again, err := c.decode(raw)
	if err != nil {
		t.Fatal(err)
	}
	if vf := entry.Devices[0].VF; vf != nil {
		vf.Asked = netattach.VFSettings{} // which is for admission, before the journal
	}
	if diff := sameRecord(&record{Entries: []*Entry{entry}}, again); diff != "" {
		t.Fatal("through the journal (-before +after):\n" + diff)
	}
}

// saidBy and plannedBy put a config and a plan into the same words, each by itself.
func saidBy(c *v1alpha1.NICConfig) []string {
	var words words
	if c.Attach != v1alpha1.AttachMultus {
		words.say("name", cmp.Or(c.InterfaceName, "eth4"))
	}
	words.say("external", c.Attach == v1alpha1.AttachMultus)
	switch c.Mode {
	case v1alpha1.NICModeMacvlan:
		words.say("macvlan", c.Macvlan.Mode)
	case v1alpha1.NICModeIPVLAN:
		words.say("ipvlan", c.IPVLAN.Mode)
	}
	if c.RDMA != v1alpha1.RDMANone && (c.RDMA != v1alpha1.RDMAAuto || !c.Mode.IsChild()) {
		words.say("rdma", c.RDMA)
	}
	words.say("hardware", mac(c.HardwareAddress))
	if c.MTU != nil {
		words.say("mtu", *c.MTU)
	}
	for _, a := range c.Addresses {
		words.say("address", canonical(a))
	}
	for _, r := range c.Routes {
		table := r.Table
		if table == 0 && c.VRF != nil {
			table = c.VRF.Table
		}
		words.say("route", canonical(r.Destination), canonical(r.Gateway), r.OnLink, canonical(r.Source), r.Scope, table, r.Metric)
	}
	for _, r := range c.Rules {
		words.say("rule", r.Priority, canonical(r.Source), canonical(r.Destination), r.Table)
	}
	for _, n := range c.Neighbours {
		words.say("neighbour", canonical(n.Address), mac(n.HardwareAddress))
	}
	if c.VRF != nil {
		words.say("vrf", c.VRF.Name, c.VRF.Table)
	}
	for _, name := range slices.Sorted(maps.Keys(c.Sysctls)) {
		words.say("sysctl", name, c.Sysctls[name])
	}
	if c.Ethtool != nil && len(c.Ethtool.Features)+len(c.Ethtool.PrivateFlags) > 0 {
		words.say("ethtool", c.Ethtool.Features, c.Ethtool.PrivateFlags)
	}
	for _, n := range c.Networks {
		words.say("network", cmp.Or(n.Namespace, "team"), n.Name, cmp.Or(n.InterfaceName, c.InterfaceName, "eth4"), canonicals(n.IPs), mac(n.MAC), canonicals(n.DefaultRoute))
	}
	return words
}

func plannedBy(d *netattach.DeviceIntent) []string {
	var words words
	if d.PodName != "" {
		words.say("name", d.PodName)
	}
	words.say("external", d.External)
	if d.Child != nil {
		words.say(d.Child.Kind, d.Child.Mode)
	}
	if d.RDMA != nil {
		words.say("rdma", d.RDMA.Mode)
	}
	words.say("hardware", d.HardwareAddress)
	if d.MTU != 0 {
		words.say("mtu", d.MTU)
	}
	for _, a := range d.Addresses {
		words.say("address", a)
	}
	for _, r := range d.Routes {
		scope := v1alpha1.RouteScopeGlobal
		if !r.Gateway.IsValid() && !r.Global {
			scope = v1alpha1.RouteScopeLink
		}
		words.say("route", shown(r.Destination), shown(r.Gateway), r.OnLink, shown(r.Source), scope, r.Table, r.Metric)
	}
	for _, r := range d.Rules {
		words.say("rule", r.Priority, shown(r.Source), shown(r.Destination), r.Table)
	}
	for _, n := range d.Neighbours {
		words.say("neighbour", n.Address, n.HardwareAddress)
	}
	if d.VRF != nil {
		words.say("vrf", d.VRF.Name, d.VRF.Table)
	}
	sysctls := map[string]string{}
	for path, value := range d.Sysctls {
		sysctls[strings.ReplaceAll(path, "/", ".")] = value
	}
	for _, name := range slices.Sorted(maps.Keys(sysctls)) {
		words.say("sysctl", name, sysctls[name])
	}
	if len(d.Features)+len(d.PrivateFlags) > 0 {
		words.say("ethtool", d.Features, d.PrivateFlags)
	}
	for _, n := range d.Networks {
		var ips, gateways []string
		for _, ip := range n.IPs {
			ips = append(ips, ip.String())
		}
		for _, gateway := range n.DefaultRoute {
			gateways = append(gateways, gateway.String())
		}
		words.say("network", n.Namespace, n.Name, cmp.Or(n.Interface, d.PodName), ips, n.MAC, gateways)
	}
	return words
}

type words []string

func (w *words) say(what ...any) { *w = append(*w, fmt.Sprintf("%v", what)) }

// canonical is an address or prefix as it prints, "" if there is none.
func canonical(text string) string {
	if prefix, err := netip.ParsePrefix(text); err == nil {
		return prefix.String()
	}
	if address, err := netip.ParseAddr(text); err == nil {
		return address.String()
	}
	return text
}

func canonicals(texts []string) []string {
	var all []string
	for _, text := range texts {
		all = append(all, canonical(text))
	}
	return all
}

func shown[T interface {
	IsValid() bool
	String() string
}](value T) string {
	if !value.IsValid() {
		return ""
	}
	return value.String()
}

func mac(text string) string {
	address, err := net.ParseMAC(text)
	if err != nil {
		return text
	}
	return address.String()
}
