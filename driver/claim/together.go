// What the NICs of one pod would take from each other: names of interfaces, VRFs and
// priorities of rules, which a network namespace has once each. They may be of one
// claim or of two.

package claim

import (
	"errors"
	"fmt"

	"github.com/hostler-dev/hostler/driver/publish"
	"github.com/hostler-dev/hostler/netattach"
)

// together is what a pod's NICs have in its namespace, and whose it is.
type together struct {
	names, vrfs map[string]string
	tables      map[string]uint32
	// resources are the names by which Multus finds devices.
	resources map[string]string
	// defaults are whose network has the pod's default route, by whether that is of IPv6.
	defaults   map[bool]string
	priorities map[uint32]string
}

// checkTogether refuses entries, all used by one pod, whose NICs cannot be in it at
// once, for all that is wrong with them.
func checkTogether(entries ...*Entry) error {
	pod := together{names: map[string]string{}, vrfs: map[string]string{}, tables: map[string]uint32{}, resources: map[string]string{}, defaults: map[bool]string{}, priorities: map[uint32]string{}}
	var faults []error
	for _, entry := range entries {
		for i := range entry.Devices {
			if network := entry.Devices[i].Network; network != nil {
				faults = append(faults, pod.add(entry.Devices[i].Name, network))
			}
		}
	}
	return errors.Join(faults...)
}

func (t *together) add(device string, network *netattach.DeviceIntent) error {
	faults := []error{t.addResource(device, network), t.addName(device, network.PodName)}
	for _, chain := range network.Networks {
		faults = append(faults, t.addName(device, chain.Interface), t.addDefaults(device, chain))
	}
	for _, rule := range network.Rules {
		faults = append(faults, t.addRule(device, rule))
	}
	return errors.Join(append(faults, t.addVRF(device, network.VRF))...)
}

func (t *together) addResource(device string, network *netattach.DeviceIntent) error {
	if !network.External {
		return nil
	}
	if other, taken := t.resources[network.ResourceName]; taken {
		return fmt.Errorf("NICs %s and %s are both for Multus under the resource name %s, of which it takes the first in the order of their addresses for whichever network comes first; give each request NICs of a resource name of its own (publish.multusResourceNames of the agent's configuration, attribute %s), or each its own claim that the pod uses by name", other, device, network.ResourceName, publish.ResourceNameAttribute)
	}
	t.resources[network.ResourceName] = device
	return nil
}

// addName takes "" for the device's own, or one that only Multus knows.
func (t *together) addName(device, name string) error {
	if name == "" {
		return nil
	}
	if other, taken := t.names[name]; taken {
		return fmt.Errorf("NICs %s and %s would both be called %s in the pod; give each request an interfaceName of its own, and only to requests for one NIC", other, device, name)
	}
	if other, taken := t.vrfs[name]; taken {
		return sameAsVRF(name, other, device)
	}
	t.names[name] = device
	return nil
}

func (t *together) addRule(device string, rule netattach.Rule) error {
	if other, taken := t.priorities[rule.Priority]; taken {
		return fmt.Errorf("NICs %s and %s both have a rule of priority %d for the pod, of which only one can be asked first; give each rule a priority of its own", other, device, rule.Priority)
	}
	t.priorities[rule.Priority] = device
	return nil
}

func (t *together) addDefaults(device string, network netattach.NetworkIntent) error {
	for _, gateway := range network.DefaultRoute {
		name := fmt.Sprintf("%s/%s of NIC %s", network.Namespace, network.Name, device)
		if other, taken := t.defaults[gateway.Is6()]; taken {
			return fmt.Errorf("networks %s and %s would both have the pod's default route; leave defaultRoute out of one of them", other, name)
		}
		t.defaults[gateway.Is6()] = name
	}
	return nil
}

func (t *together) addVRF(device string, vrf *netattach.VRF) error {
	if vrf == nil {
		return nil
	}
	if other, taken := t.names[vrf.Name]; taken {
		return sameAsVRF(vrf.Name, device, other)
	}
	if other, shared := t.vrfs[vrf.Name]; shared && t.tables[vrf.Name] != vrf.Table {
		return fmt.Errorf("NICs %s and %s are for one VRF of the pod, %s, but by one its table is %d and by the other %d; name the same table, or two VRFs", other, device, vrf.Name, t.tables[vrf.Name], vrf.Table)
	}
	t.vrfs[vrf.Name], t.tables[vrf.Name] = device, vrf.Table
	return nil
}

func sameAsVRF(name, ofVRF, ofInterface string) error {
	return fmt.Errorf("%s would be the VRF of NIC %s in the pod and the interface of NIC %s; choose two names", name, ofVRF, ofInterface)
}

// checkPods refuses a claim by which several pods would have one address.
func checkPods(entry *Entry) error {
	if len(entry.Pods) < 2 {
		return nil
	}
	for i := range entry.Devices {
		network := entry.Devices[i].Network
		if network == nil || network.Child == nil {
			continue
		}
		fixed := len(network.Addresses) > 0 || network.HardwareAddress != ""
		for _, chain := range network.Networks {
			fixed = fixed || len(chain.IPs) > 0 || chain.MAC != ""
		}
		if fixed {
			return fmt.Errorf("%d pods use the claim, each of which gets a child of NIC %s of its own, and all would have the addresses that the NICConfig sets; leave out addresses, hardwareAddress, and ips and mac of networks, or give each pod a claim of its own (a ResourceClaimTemplate)", len(entry.Pods), entry.Devices[i].Name)
		}
	}
	return nil
}

var errMixed = errors.New("on one NIC the kernel has either macvlan children or ipvlan ones, and the latter all of one mode; set the mode that the others have, or ask for another NIC")

// mixes says of two children of one NIC that they cannot be there at once.
func mixes(a, b *netattach.ChildIntent) bool {
	return a.Kind != b.Kind || a.Kind == "ipvlan" && a.Mode != b.Mode
}
