package v1alpha1

// The one registry of kinds. The driver, the admission webhook and the command
// line all learn from here what exists, so a kind that one of them accepts is
// known to the others too. It is a function and not an init-time registration:
// a scheme is a value that its user makes.

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
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

// AddToScheme registers every kind of this package.
func AddToScheme(scheme *runtime.Scheme) error {
	scheme.AddKnownTypes(GroupVersion(), append(claimConfigs(), &AgentConfig{})...)
	metav1.AddToGroupVersion(scheme, GroupVersion())
	return nil
}

// claimConfigs are the kinds that may stand in the opaque config of a
// ResourceClaim or DeviceClass.
func claimConfigs() []runtime.Object {
	return []runtime.Object{&EgressConfig{}, &GPUConfig{}, &NICConfig{}}
}
