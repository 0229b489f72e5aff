package v1alpha1

// The one registry of the kinds that claims and classes may hold: whoever
// decodes one learns from here what exists. It is a function and not an
// init-time registration, so that no reader can change it for another.

import (
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// GroupName is the API group of every kind that users of Hostler write.
const GroupName = "hostler.dev"

// Version is the only version so far.
const Version = "v1alpha1"

// GroupVersion is what apiVersion must say.
func GroupVersion() schema.GroupVersion {
	return schema.GroupVersion{Group: GroupName, Version: Version}
}

// claimConfigs are the kinds that may stand in the opaque config of a
// ResourceClaim or DeviceClass.
func claimConfigs() []runtime.Object {
	return []runtime.Object{&EgressConfig{}, &GPUConfig{}, &NICConfig{}}
}
