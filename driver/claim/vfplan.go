// What a claim gets set on a VF, and who may ask for it. VLAN, address, spoof
// check and trust decide whose traffic a VF can see and pretend to send: they are
// the network's, so only a DeviceClass sets them, which only administrators write. What a
// class sets no claim changes. A claim's own wishes, a limit and the link, can
// take from what the VF had and not add to it; that is seen at admission.

package claim

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/hostler-dev/hostler/api/v1alpha1"
	"github.com/hostler-dev/hostler/netattach"
	"github.com/hostler-dev/hostler/topology"
)

// planVF takes the merged settings, and the configs that they are from.
func planVF(in PlanInput, device *Device, nic *topology.NIC, config *v1alpha1.VFConfig, configs []given) error {
	asked, err := askedOfVF(device.Request, configs)
	if err != nil {
		return err
	}
	if config == nil || *config == (v1alpha1.VFConfig{}) {
		return nil
	}
	name := nameOf(device, nic.Name)
	if nic.Kind != topology.VF {
		return fmt.Errorf("NIC %s is no SR-IOV VF, and what a NICConfig has under vf can be set on VFs only; ask for one (attribute hostler.dev/kind), or leave vf out", name)
	}
	pf := in.Snapshot.NIC(nic.Parent)
	if pf == nil || nic.VFID < 0 {
		return fmt.Errorf("NIC %s: nothing can be set on this VF, because its PF (%s) is not there or does not list it; delete the pod to have another NIC allocated", name, nic.Parent)
	}
	device.VF = &VFChange{PF: pf.Placement.PCI, Index: nic.VFID, Wanted: settingsOf(config), Asked: settingsOf(asked)}
	return nil
}

// classOnly are the fields of a VFConfig that no claim may set: those that concern
// others on the network, and a guaranteed rate, which is taken from others.
func classOnly() []string {
	return []string{"mac", "minTxRate", "spoofCheck", "trust", "vlan", "vlanQoS"}
}

// askedOfVF is what the claim itself asks for, if it may. The error is of all that it may not.
func askedOfVF(request string, configs []given) (*v1alpha1.VFConfig, error) {
	class, asked := map[string]any{}, map[string]any{}
	for _, from := range configs {
		nic, is := from.object.(*v1alpha1.NICConfig)
		if !is || nic.VF == nil {
			continue
		}
		fields, err := fieldsOf(nic.VF)
		if err != nil {
			return nil, err
		}
		if from.fromClass {
			maps.Copy(class, fields)
		} else {
			maps.Copy(asked, fields)
		}
	}
	var faults []error
	for _, name := range slices.Sorted(maps.Keys(asked)) {
		pinned, isPinned := class[name]
		switch {
		case isPinned && !strings.EqualFold(fmt.Sprint(pinned), fmt.Sprint(asked[name])):
			faults = append(faults, fmt.Errorf("the config for request %q: vf.%s is %v in the claim and %v in its DeviceClass; no claim can change what a class sets on a VF; leave it out of the claim", request, name, asked[name], pinned))
		case !isPinned && slices.Contains(classOnly(), name):
			faults = append(faults, fmt.Errorf("the config for request %q: vf.%s is %v in the claim, but only a DeviceClass can set it, because it concerns others on the network; leave it out of the claim, and ask the administrator for a DeviceClass that has it in its config", request, name, asked[name]))
		case isPinned:
			delete(asked, name)
		}
	}
	if len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	raw, err := json.Marshal(asked)
	if err != nil {
		return nil, err
	}
	config := &v1alpha1.VFConfig{}
	return config, json.Unmarshal(raw, config)
}

// fieldsOf are the fields that are set, by their names.
func fieldsOf(config *v1alpha1.VFConfig) (map[string]any, error) {
	raw, err := json.Marshal(config)
	if err != nil {
		return nil, err
	}
	var fields map[string]any
	return fields, json.Unmarshal(raw, &fields)
}

// settingsOf puts a valid config in the kernel's terms.
func settingsOf(config *v1alpha1.VFConfig) netattach.VFSettings {
	number := func(value *int32) *int {
		if value == nil {
			return nil
		}
		return new(int(*value))
	}
	settings := netattach.VFSettings{
		VLAN: number(config.VLAN), QoS: number(config.VLANQoS),
		SpoofCheck: config.SpoofCheck, Trust: config.Trust,
		MinTxRate: number(config.MinTxRate), MaxTxRate: number(config.MaxTxRate),
	}
	if config.MAC != nil {
		settings.MAC = new(strings.ToLower(*config.MAC))
	}
	if config.VLAN != nil && config.VLANQoS == nil {
		settings.QoS = new(0)
	}
	if config.LinkState != "" {
		settings.LinkState = new(strings.ToLower(string(config.LinkState)))
	}
	return settings
}
