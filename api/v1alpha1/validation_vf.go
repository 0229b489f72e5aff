package v1alpha1

// Validation of what is set on a VF. The kernel checks little of it: a VLAN or a
// rate that makes no sense goes to the driver, whose answer is "invalid argument".

import (
	"fmt"
	"net"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation/field"
)

func validateVF(config *VFConfig, at *field.Path) field.ErrorList {
	if config == nil {
		return nil
	}
	var faults field.ErrorList
	if config.MAC != nil {
		faults = append(faults, validateMAC(*config.MAC, at.Child("mac"))...)
	}
	if vlan := config.VLAN; vlan != nil && (*vlan < 0 || *vlan > 4094) {
		faults = append(faults, field.Invalid(at.Child("vlan"), *vlan, "must be 1 to 4094, or 0 for frames without a VLAN"))
	}
	faults = append(faults, validateVLANQoS(config, at.Child("vlanQoS"))...)
	faults = append(faults, validateRates(config, at)...)
	if states := []VFLinkState{VFLinkAuto, VFLinkEnable, VFLinkDisable}; config.LinkState != "" && !slices.Contains(states, config.LinkState) {
		faults = append(faults, field.NotSupported(at.Child("linkState"), config.LinkState, states))
	}
	return faults
}

func validateVLANQoS(config *VFConfig, at *field.Path) field.ErrorList {
	switch {
	case config.VLANQoS == nil:
		return nil
	case *config.VLANQoS < 0 || *config.VLANQoS > 7:
		return field.ErrorList{field.Invalid(at, *config.VLANQoS, "must be a priority from 0 to 7")}
	case config.VLAN == nil:
		return field.ErrorList{field.Invalid(at, *config.VLANQoS, "is the priority in a VLAN's tag; set vlan, too")}
	case *config.VLAN == 0 && *config.VLANQoS != 0:
		return field.ErrorList{field.Invalid(at, *config.VLANQoS, "is the priority in a VLAN's tag, and vlan 0 sends none; set a vlan from 1 to 4094, or leave this out")}
	}
	return nil
}

func validateRates(config *VFConfig, at *field.Path) field.ErrorList {
	var faults field.ErrorList
	for _, setting := range []struct {
		name string
		rate *int32
	}{{"minTxRate", config.MinTxRate}, {"maxTxRate", config.MaxTxRate}} {
		if setting.rate != nil && *setting.rate < 0 {
			faults = append(faults, field.Invalid(at.Child(setting.name), *setting.rate, "must be 0 or more Mbit/s"))
		}
	}
	if least, most := config.MinTxRate, config.MaxTxRate; least != nil && most != nil && *most > 0 && *least > *most {
		faults = append(faults, field.Invalid(at.Child("minTxRate"), *least, fmt.Sprintf("must not be above maxTxRate, %d; lower this or raise that", *most)))
	}
	return faults
}

// validateMAC takes one form only, in which addresses can be compared but for case.
func validateMAC(value string, at *field.Path) field.ErrorList {
	mac, err := net.ParseMAC(value)
	switch {
	case err != nil || mac.String() != strings.ToLower(value) || len(mac) != 6:
		return field.ErrorList{field.Invalid(at, value, `must be six pairs of hexadecimal digits with colons between them, such as "02:00:5e:10:00:01"`)}
	case mac[0]&1 != 0:
		return field.ErrorList{field.Invalid(at, value, "must be a unicast address; the first pair's lowest bit says that it is a multicast one")}
	case !slices.ContainsFunc(mac, func(b byte) bool { return b != 0 }):
		return field.ErrorList{field.Invalid(at, value, "must not be all zero; leave it out to have the VF keep its own")}
	}
	return nil
}
