package v1alpha1

// Validation of the mode. A device in user space has neither a driver whose parts
// could be chosen nor an interface that could be configured; a setting that would do
// nothing is refused rather than ignored, each by itself.

import (
	"fmt"
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

func validateNICMode(config *NICConfig) field.ErrorList {
	var faults field.ErrorList
	if modes := []NICMode{NICModeNetdev, NICModeVFIO}; !slices.Contains(modes, config.Mode) {
		faults = append(faults, field.NotSupported(field.NewPath("mode"), config.Mode, modes))
	}
	if config.Mode != NICModeVFIO {
		return faults
	}
	for _, setting := range []struct {
		name  string
		value any
		set   bool
	}{
		{"interfaceName", config.InterfaceName, config.InterfaceName != ""},
		{"addresses", config.Addresses, len(config.Addresses) > 0},
		{"routes", fmt.Sprint(config.Routes), len(config.Routes) > 0},
		{"mtu", config.MTU, config.MTU != nil},
		{"networks", fmt.Sprint(config.Networks), len(config.Networks) > 0},
	} {
		if setting.set {
			faults = append(faults, field.Invalid(field.NewPath(setting.name), setting.value,
				`must not be set with mode "vfio", in which the NIC has no network interface on the node; leave it out and configure the NIC where its driver runs, or set mode "netdev"`))
		}
	}
	return faults
}
