package v1alpha1

// Validation of the mode and of who attaches. A device in user space has neither a
// driver whose parts could be chosen nor an interface that could be configured, and
// what Multus attaches is configured by Multus's network; a setting that would do
// nothing is refused rather than ignored, each by itself.

import (
	"slices"

	"k8s.io/apimachinery/pkg/util/validation/field"
)

func validateGPUMode(config *GPUConfig) field.ErrorList {
	var faults field.ErrorList
	if modes := []GPUMode{GPUModeDriver, GPUModeVFIO}; !slices.Contains(modes, config.Mode) {
		faults = append(faults, field.NotSupported(field.NewPath("mode"), config.Mode, modes))
	}
	if config.Mode == GPUModeVFIO && len(config.DriverCapabilities) > 0 {
		faults = append(faults, field.Invalid(field.NewPath("driverCapabilities"), config.DriverCapabilities,
			`must not be set with mode "vfio", in which no container sees the node's driver; leave it out, or set mode "driver"`))
	}
	return faults
}

// IsChild reports whether the pod gets a child of the netdev instead of the netdev itself.
func (m NICMode) IsChild() bool { return m == NICModeMacvlan || m == NICModeIPVLAN }

// interfaceSetting is a field that concerns the interface in the pod.
type interfaceSetting struct {
	name  string
	value any
	set   bool
}

func interfaceSettings(config *NICConfig) []interfaceSetting {
	return []interfaceSetting{
		{"interfaceName", config.InterfaceName, config.InterfaceName != ""},
		{"hardwareAddress", config.HardwareAddress, config.HardwareAddress != ""},
		{"addresses", config.Addresses, len(config.Addresses) > 0},
		{"routes", config.Routes, len(config.Routes) > 0},
		{"rules", config.Rules, len(config.Rules) > 0},
		{"neighbours", config.Neighbours, len(config.Neighbours) > 0},
		{"mtu", config.MTU, config.MTU != nil},
		{"vrf", config.VRF, config.VRF != nil},
		{"sysctls", config.Sysctls, len(config.Sysctls) > 0},
		{"ethtool", config.Ethtool, config.Ethtool != nil},
		{"networks", config.Networks, len(config.Networks) > 0},
	}
}

// InterfaceSettings names the fields that are set and that only a NIC with a network
// interface can have.
func (c *NICConfig) InterfaceSettings() []string {
	var names []string
	for _, s := range interfaceSettings(c) {
		if s.set {
			names = append(names, s.name)
		}
	}
	return names
}

func validateNICMode(config *NICConfig) field.ErrorList {
	var faults field.ErrorList
	if modes := []NICMode{NICModeNetdev, NICModeMacvlan, NICModeIPVLAN, NICModeVFIO}; !slices.Contains(modes, config.Mode) {
		faults = append(faults, field.NotSupported(field.NewPath("mode"), config.Mode, modes))
	}
	if attachers := []NICAttacher{AttachHostler, AttachMultus}; !slices.Contains(attachers, config.Attach) {
		faults = append(faults, field.NotSupported(field.NewPath("attach"), config.Attach, attachers))
	}
	switch {
	case config.Mode == NICModeVFIO:
		faults = append(faults, refuseInterface(config,
			`must not be set with mode "vfio", in which the NIC has no network interface on the node; leave it out and configure the NIC where its driver runs, or set mode "netdev"`)...)
	case config.Attach == AttachMultus:
		faults = append(faults, refuseInterface(config,
			`must not be set with attach "Multus": the NetworkAttachmentDefinition that Multus attaches decides it; write it there or into the pod's annotation, or set attach "Hostler"`)...)
	}
	if config.Attach == AttachMultus && config.Mode != NICModeNetdev {
		faults = append(faults, field.Invalid(field.NewPath("attach"), config.Attach,
			`is for mode "netdev" only; in which way the pod gets the NIC, the NetworkAttachmentDefinition says that Multus attaches`))
	}
	return append(faults, validateChild(config)...)
}

func refuseInterface(config *NICConfig, why string) field.ErrorList {
	var faults field.ErrorList
	for _, s := range interfaceSettings(config) {
		if s.set {
			faults = append(faults, field.Invalid(field.NewPath(s.name), s.value, why))
		}
	}
	return faults
}

// validateChild judges what is about macvlan and ipvlan children alone, and what these cannot have.
func validateChild(config *NICConfig) field.ErrorList {
	var faults field.ErrorList
	if c, at := config.Macvlan, field.NewPath("macvlan"); c != nil {
		if config.Mode != NICModeMacvlan {
			faults = append(faults, field.Invalid(at, *c, `is for mode "macvlan" only; leave it out, or set that mode`))
		}
		if modes := []MacvlanMode{MacvlanBridge, MacvlanPrivate, MacvlanVEPA}; c.Mode != "" && !slices.Contains(modes, c.Mode) {
			faults = append(faults, field.NotSupported(at.Child("mode"), c.Mode, modes))
		}
	}
	if c, at := config.IPVLAN, field.NewPath("ipvlan"); c != nil {
		if config.Mode != NICModeIPVLAN {
			faults = append(faults, field.Invalid(at, *c, `is for mode "ipvlan" only; leave it out, or set that mode`))
		}
		if modes := []IPVLANMode{IPVLANL2, IPVLANL3, IPVLANL3S}; c.Mode != "" && !slices.Contains(modes, c.Mode) {
			faults = append(faults, field.NotSupported(at.Child("mode"), c.Mode, modes))
		}
	}
	if config.Mode == NICModeIPVLAN && config.HardwareAddress != "" {
		faults = append(faults, field.Invalid(field.NewPath("hardwareAddress"), config.HardwareAddress,
			`must not be set with mode "ipvlan", in which all children have the NIC's; leave it out, or set mode "macvlan"`))
	}
	if config.Mode.IsChild() && config.Ethtool != nil && len(config.Ethtool.PrivateFlags) > 0 {
		faults = append(faults, field.Invalid(field.NewPath("ethtool", "privateFlags"), config.Ethtool.PrivateFlags,
			"are the NIC driver's, and a child of the NIC has none; leave them out"))
	}
	return faults
}

func validateRDMA(config *NICConfig) field.ErrorList {
	at := field.NewPath("rdma")
	modes := []RDMAMode{RDMAAuto, RDMAShared, RDMAExclusive, RDMANone}
	wants := config.RDMA == RDMAShared || config.RDMA == RDMAExclusive
	switch {
	case !slices.Contains(modes, config.RDMA):
		return field.ErrorList{field.NotSupported(at, config.RDMA, modes)}
	case wants && config.Mode == NICModeVFIO:
		return field.ErrorList{field.Invalid(at, config.RDMA, `must not be set with mode "vfio", which takes the NIC from the driver that makes its RDMA device; leave it out, or set mode "netdev"`)}
	case config.RDMA == RDMAExclusive && config.Mode.IsChild():
		return field.ErrorList{field.Invalid(at, config.RDMA, `is not possible with mode "`+string(config.Mode)+`": the RDMA device is the whole NIC's, which stays on the node; set "Shared" or "None", or mode "netdev"`)}
	case config.RDMA == RDMAExclusive && config.Attach == AttachMultus:
		return field.ErrorList{field.Invalid(at, config.RDMA, `is not possible with attach "Multus", which moves the netdev by itself; add the CNI plugin rdma to its network, or set attach "Hostler"`)}
	}
	return nil
}
