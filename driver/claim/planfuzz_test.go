package claim

// Whatever somebody writes into a NICConfig: if it is valid it is planned, on a NIC
// that can all of it, and the plan says all that was written; if it is not, it is refused.

import (
	"cmp"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/runtime"

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
	f.Fuzz(func(t *testing.T, raw []byte) {
		object, err := v1alpha1.Decode(raw)
		written, is := object.(*v1alpha1.NICConfig)
		if err != nil || !is {
			return
		}
		c := with(allocated("c", onNIC(nicVF0)), class, `NICConfig {}`)
		c.Status.Allocation.Devices.Config[0].Opaque.Parameters = runtime.RawExtension{Raw: raw}
		entry, err := planOn(ableMachine(), c)
		v1alpha1.SetDefaults(written)
		faults := v1alpha1.Validate(written)
		if (err != nil) != (len(faults) > 0) {
			t.Fatalf("the config's faults are %v, and the plan says %v", faults, err)
		}
		for _, fault := range faults {
			if !strings.Contains(err.Error(), fault.Error()) {
				t.Errorf("the plan says %v, but not %v", err, fault)
			}
		}
		if err != nil {
			return
		}
		device := &entry.Devices[0]
		if (device.VFIO != nil) != (written.Mode == v1alpha1.NICModeVFIO) || (device.Network == nil) != (device.VFIO != nil) {
			t.Fatalf("by mode %s: %+v", written.Mode, device)
		}
		if device.Network != nil {
			if diff := gocmp.Diff(saidBy(written), plannedBy(device.Network)); diff != "" {
				t.Errorf("(-written +planned):\n%s", diff)
			}
		}
		encoded, err := theCodec(t).encode(&record{Entries: []*Entry{entry}})
		if err != nil {
			t.Fatal(err)
		}
		if device.VF != nil {
			device.VF.Asked = netattach.VFSettings{}
		}
		if diff := sameRecord(&record{Entries: []*Entry{entry}}, mustDecode(t, encoded)); diff != "" {
			t.Errorf("through the journal (-before +after):\n%s", diff)
		}
	})
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
	if c.Ethtool != nil {
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
	if d.Features != nil || d.PrivateFlags != nil {
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
