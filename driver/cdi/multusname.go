package cdi

// The name by which Multus up to 4.3 takes a device of a claim for a network: it reads
// from the kubelet's list of pods' resources (podresources v1) by which CDI devices a
// container got a claim, and hands what stands behind the "=" to CNI plugins as the
// device's ID. For plugins that is a PCI address, which is no name of one claim's
// own; so here the kind is.

import (
	"k8s.io/apimachinery/pkg/types"
	"tags.cncf.io/container-device-interface/pkg/parser"
)

// names are how the claim's devices are called.
func (c *Claim) names() naming {
	for i := range c.Devices {
		if address := c.Devices[i].DeviceID; address != "" {
			return naming{claim: c.UID, deviceID: address}
		}
	}
	return naming{claim: c.UID}
}

// naming is by the claim's UID in each device's name or, of the one device with an ID
// of its own, in the kind.
type naming struct {
	claim    types.UID
	deviceID string
}

// ownClass is the kind's second part for a device with an ID of its own.
func (n naming) ownClass() string { return class + "-" + string(n.claim) }

func (n naming) kind() string {
	if n.deviceID != "" {
		return vendor + "/" + n.ownClass()
	}
	return Kind
}

func (n naming) device(key string) string {
	if n.deviceID != "" {
		return n.deviceID
	}
	return deviceName(n.claim, key)
}

func (n naming) qualified(key string) string {
	if n.deviceID != "" {
		return parser.QualifiedName(vendor, n.ownClass(), n.deviceID)
	}
	return DeviceID(n.claim, key)
}
