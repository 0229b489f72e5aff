// Package v1alpha1 holds the kinds that users of Hostler write: the opaque
// configs of ResourceClaims and DeviceClasses (GPUConfig, NICConfig,
// EgressConfig) and the agent's own config file (AgentConfig).
//
// Every kind is decoded strictly (an unknown field is an error that names it),
// defaulted, and validated as a whole with one error per fault. Decode is the
// one registry of kinds; whoever reads configs goes through it, so that no
// reader can know fewer kinds than another.
//
// +k8s:deepcopy-gen=package
// +groupName=hostler.dev
package v1alpha1
