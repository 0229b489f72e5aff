package claim

// Every field of a NICConfig is heard or refused, whoever sets it: other drivers have
// documented fields that decoded well and did nothing, and lost some of a class's when
// a claim had a config, too.

import (
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	resourceapi "k8s.io/api/resource/v1"

	"github.com/hostler-dev/hostler/api/v1alpha1"
)

// nicFields has for each field a config without it, and one with it or with another value of it.
var nicFields = []struct{ field, without, with string }{
	{"mode", `{}`, `{"mode": "vfio"}`},
	{"attach", `{}`, `{"attach": "Multus"}`},
	{"macvlan.mode", `{"mode": "macvlan"}`, `{"mode": "macvlan", "macvlan": {"mode": "vepa"}}`},
	{"ipvlan.mode", `{"mode": "ipvlan"}`, `{"mode": "ipvlan", "ipvlan": {"mode": "l3"}}`},
	{"interfaceName", `{}`, `{"interfaceName": "net1"}`},
	{"hardwareAddress", `{}`, `{"hardwareAddress": "02:00:5e:10:00:01"}`},
	{"addresses", `{}`, `{"addresses": ["10.1.0.5/24"]}`},
	{"routes.destination", `{}`, `{"routes": [{"destination": "10.2.0.0/16"}]}`},
	{"routes.gateway", `{"addresses": ["10.1.0.5/24"], "routes": [{"destination": "10.2.0.0/16"}]}`, `{"addresses": ["10.1.0.5/24"], "routes": [{"destination": "10.2.0.0/16", "gateway": "10.1.0.1"}]}`},
	{"routes.onLink", `{"addresses": ["10.1.0.5/24"], "routes": [{"destination": "10.2.0.0/16", "gateway": "10.1.0.1"}]}`, `{"addresses": ["10.1.0.5/24"], "routes": [{"destination": "10.2.0.0/16", "gateway": "10.1.0.1", "onLink": true}]}`},
	{"routes.source", `{"addresses": ["10.1.0.5/24"], "routes": [{"destination": "10.2.0.0/16"}]}`, `{"addresses": ["10.1.0.5/24"], "routes": [{"destination": "10.2.0.0/16", "source": "10.1.0.5"}]}`},
	{"routes.scope", `{"routes": [{"destination": "10.2.0.0/16"}]}`, `{"routes": [{"destination": "10.2.0.0/16", "scope": "Global"}]}`},
	{"routes.table", `{"routes": [{"destination": "10.2.0.0/16"}]}`, `{"routes": [{"destination": "10.2.0.0/16", "table": 7}]}`},
	{"routes.metric", `{"routes": [{"destination": "10.2.0.0/16"}]}`, `{"routes": [{"destination": "10.2.0.0/16", "metric": 7}]}`},
	{"rules.priority", `{"rules": [{"priority": 10, "source": "10.0.0.0/8", "table": 9}]}`, `{"rules": [{"priority": 11, "source": "10.0.0.0/8", "table": 9}]}`},
	{"rules.source", `{"rules": [{"priority": 10, "destination": "10.0.0.0/8", "table": 9}]}`, `{"rules": [{"priority": 10, "source": "10.1.0.0/16", "destination": "10.0.0.0/8", "table": 9}]}`},
	{"rules.destination", `{"rules": [{"priority": 10, "source": "10.0.0.0/8", "table": 9}]}`, `{"rules": [{"priority": 10, "source": "10.0.0.0/8", "destination": "10.1.0.0/16", "table": 9}]}`},
	{"rules.table", `{"rules": [{"priority": 10, "source": "10.0.0.0/8", "table": 9}]}`, `{"rules": [{"priority": 10, "source": "10.0.0.0/8", "table": 8}]}`},
	{"neighbours.address", `{"neighbours": [{"address": "10.1.0.9", "hardwareAddress": "02:00:5e:10:00:09"}]}`, `{"neighbours": [{"address": "10.1.0.8", "hardwareAddress": "02:00:5e:10:00:09"}]}`},
	{"neighbours.hardwareAddress", `{"neighbours": [{"address": "10.1.0.9", "hardwareAddress": "02:00:5e:10:00:09"}]}`, `{"neighbours": [{"address": "10.1.0.9", "hardwareAddress": "02:00:5e:10:00:08"}]}`},
	{"mtu", `{}`, `{"mtu": 1500}`},
	{"vrf.name", `{"vrf": {"name": "blue", "table": 100}}`, `{"vrf": {"name": "red", "table": 100}}`},
	{"vrf.table", `{"vrf": {"name": "blue", "table": 100}}`, `{"vrf": {"name": "blue", "table": 101}}`},
	{"sysctls", `{}`, `{"sysctls": {"net.ipv4.conf.IFNAME.forwarding": "1"}}`},
	{"ethtool.features", `{}`, `{"ethtool": {"features": {"rx-gro": false}}}`},
	{"ethtool.privateFlags", `{}`, `{"ethtool": {"privateFlags": {"legacy-rx": true}}}`},
	{"rdma", `{}`, `{"rdma": "None"}`},
	{"networks.name", `{}`, `{"networks": [{"name": "a"}]}`},
	{"networks.namespace", `{"networks": [{"name": "a"}]}`, `{"networks": [{"name": "a", "namespace": "fabric"}]}`},
	{"networks.interfaceName", `{"networks": [{"name": "a"}]}`, `{"networks": [{"name": "a", "interfaceName": "a0"}]}`},
	{"networks.ips", `{"networks": [{"name": "a"}]}`, `{"networks": [{"name": "a", "ips": ["10.5.0.5/24"]}]}`},
	{"networks.mac", `{"networks": [{"name": "a"}]}`, `{"networks": [{"name": "a", "mac": "02:00:5e:10:00:0b"}]}`},
	{"networks.defaultRoute", `{"networks": [{"name": "a"}]}`, `{"networks": [{"name": "a", "defaultRoute": ["10.5.0.1"]}]}`},
	{"vf.mac", `{}`, `{"vf": {"mac": "02:00:5e:10:00:01"}}`},
	{"vf.vlan", `{}`, `{"vf": {"vlan": 7}}`},
	{"vf.vlanQoS", `{"vf": {"vlan": 7}}`, `{"vf": {"vlan": 7, "vlanQoS": 3}}`},
	{"vf.spoofCheck", `{}`, `{"vf": {"spoofCheck": false}}`},
	{"vf.trust", `{}`, `{"vf": {"trust": false}}`},
	{"vf.minTxRate", `{}`, `{"vf": {"minTxRate": 0}}`},
	{"vf.maxTxRate", `{}`, `{"vf": {"maxTxRate": 100}}`},
	{"vf.linkState", `{}`, `{"vf": {"linkState": "Auto"}}`},
}

func TestEveryFieldOfANICConfigIsHeardOrRefused(t *testing.T) {
	for _, f := range nicFields {
		t.Run(f.field, func(t *testing.T) {
			without, with := mustPlanVF(t, f.without, ""), mustPlanVF(t, f.with, "")
			if samePlan(without, with) == "" {
				t.Errorf("a class that sets it gets what one gets that does not: %s", f.with)
			}
			if diff := samePlan(with, mustPlanVF(t, f.with, `{}`)); diff != "" {
				t.Errorf("a claim with a config of its own lost what its class sets (-class alone +both):\n%s", diff)
			}
			own, err := planOn(ableMachine(), nicClaim(nicVF0, `{}`, f.with))
			switch {
			case err != nil && !strings.Contains(err.Error(), "only a DeviceClass can"):
				t.Error(err)
			case err == nil && samePlan(mustPlanVF(t, "", f.without), own) == "":
				t.Errorf("a claim that sets it gets what one gets that does not: %s", f.with)
			}
		})
	}
}

func TestNoFieldOfANICConfigIsLeftOut(t *testing.T) {
	var listed []string
	for _, f := range nicFields {
		listed = append(listed, f.field)
	}
	if diff := cmp.Diff(leaves(reflect.TypeFor[v1alpha1.NICConfig](), ""), listed, cmpopts.SortSlices(strings.Compare)); diff != "" {
		t.Errorf("nicFields has not all fields of a NICConfig (-there are +listed):\n%s", diff)
	}
}

// leaves are the fields of a config by their names in JSON.
func leaves(of reflect.Type, within string) (names []string) {
	for of.Kind() == reflect.Pointer || of.Kind() == reflect.Slice {
		of = of.Elem()
	}
	if of.Kind() != reflect.Struct {
		return []string{within}
	}
	for i := range of.NumField() {
		name, options, _ := strings.Cut(of.Field(i).Tag.Get("json"), ",")
		if options == "inline" { // kind and apiVersion
			continue
		}
		names = append(names, leaves(of.Field(i).Type, strings.TrimPrefix(within+"."+name, "."))...)
	}
	return names
}

func mustPlanVF(t *testing.T, ofClass, ofClaim string) *Entry {
	t.Helper()
	entry, err := planOn(ableMachine(), nicClaim(nicVF0, ofClass, ofClaim))
	if err != nil {
		t.Fatal(err)
	}
	return entry
}

// samePlan is "" if both do the same. Which of class and claim asked for it does not count.
func samePlan(a, b *Entry) string {
	device := func(e *Entry) Device {
		d := e.Devices[0]
		if d.VF != nil {
			vf := *d.VF
			vf.Asked = vf.Wanted
			d.VF = &vf
		}
		return d
	}
	return cmp.Diff(device(a), device(b), cmpopts.EquateComparable(netip.Prefix{}, netip.Addr{}))
}

// A config is for a request with all its alternatives, or for one of these.
func TestConfigsOfARequestWithAlternatives(t *testing.T) {
	for _, test := range []struct {
		name     string
		source   resourceapi.AllocationConfigSource
		requests []string
		heard    bool
	}{
		{"for all requests", claim, nil, true},
		{"for the request", claim, []string{"nic"}, true},
		{"for the alternative that was chosen", claim, []string{"nic/fast"}, true},
		{"of the class of the alternative that was chosen", class, []string{"nic/fast"}, true},
		{"for another alternative", claim, []string{"nic/slow"}, false},
		{"of the class of another alternative", class, []string{"nic/slow"}, false},
		{"for a request whose name begins so", claim, []string{"nic/fa", "ni"}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := allocated("c", onNIC(nicPlain))
			c.Status.Allocation.Devices.Results[0].Request = "nic/fast"
			entry, err := planOn(machine(), with(c, test.source, `NICConfig {"mtu": 1500}`, test.requests...))
			if err != nil {
				t.Fatal(err)
			}
			if heard := entry.Devices[0].Network.MTU == 1500; heard != test.heard {
				t.Errorf("a config for %v was heard for request nic/fast: %t", test.requests, heard)
			}
		})
	}
}
