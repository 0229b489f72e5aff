package v1alpha1

// Validation of what was decoded, defaulted and, for claims, merged. A config is
// judged as a whole, one error per fault, so that a user mends it in one go.

import (
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Validate judges any kind of this package. Defaults must have been set.
func Validate(object runtime.Object) field.ErrorList {
	switch config := object.(type) {
	case *GPUConfig:
		return ValidateGPUConfig(config)
	case *NICConfig:
		return ValidateNICConfig(config)
	case *EgressConfig:
		return ValidateEgressConfig(config)
	case *AgentConfig:
		return ValidateAgentConfig(config)
	}
	return field.ErrorList{field.NotSupported(field.NewPath("kind"), object.GetObjectKind().GroupVersionKind().Kind,
		[]string{"AgentConfig", "EgressConfig", "GPUConfig", "NICConfig"})}
}

// again is of a value that is there twice, which only one can be.
func again(at *field.Path, value any, remedy string) *field.Error {
	fault := field.Duplicate(at, value)
	fault.Detail = remedy
	return fault
}

// driverCapabilities are the words of NVIDIA_DRIVER_CAPABILITIES.
func driverCapabilities() []string {
	return []string{"compat32", "compute", "display", "graphics", "ngx", "utility", "video"}
}

// ValidateGPUConfig judges a GPUConfig.
func ValidateGPUConfig(config *GPUConfig) field.ErrorList {
	faults := validateGPUMode(config)
	path := field.NewPath("driverCapabilities")
	for i, capability := range config.DriverCapabilities {
		if !slices.Contains(driverCapabilities(), capability) {
			faults = append(faults, field.NotSupported(path.Index(i), capability, driverCapabilities()))
		} else if slices.Contains(config.DriverCapabilities[:i], capability) {
			faults = append(faults, again(path.Index(i), capability, "leave one of them out"))
		}
	}
	return faults
}

// ValidateAgentConfig judges an AgentConfig.
func ValidateAgentConfig(config *AgentConfig) field.ErrorList {
	var faults field.ErrorList
	if config.NodeName == "" {
		faults = append(faults, field.Required(field.NewPath("nodeName"), "set it or the environment variable NODE_NAME; the host has no name"))
	} else {
		for _, message := range validation.IsDNS1123Subdomain(config.NodeName) {
			faults = append(faults, field.Invalid(field.NewPath("nodeName"), config.NodeName, message))
		}
	}
	faults = append(faults, validatePaths(&config.Paths, field.NewPath("paths"))...)
	if config.Kubeconfig != "" {
		faults = append(faults, validatePath(config.Kubeconfig, field.NewPath("kubeconfig"))...)
	}
	faults = append(faults, atLeast(config.Discovery.PollInterval, time.Second, field.NewPath("discovery", "pollInterval"))...)
	faults = append(faults, atLeast(config.Discovery.CallTimeout, 10*time.Millisecond, field.NewPath("discovery", "callTimeout"))...)
	if forms := []NUMANodeForm{NUMANodeList, NUMANodeScalar}; !slices.Contains(forms, config.Publish.NUMANode) {
		faults = append(faults, field.NotSupported(field.NewPath("publish", "numaNode"), config.Publish.NUMANode, forms))
	}
	if offers := []PartitionOffer{PartitionsAll, PartitionsExisting}; !slices.Contains(offers, config.Publish.Partitions) {
		faults = append(faults, field.NotSupported(field.NewPath("publish", "partitions"), config.Publish.Partitions, offers))
	}
	faults = append(faults, validateMultusResourceNames(config.Publish.MultusResourceNames, field.NewPath("publish", "multusResourceNames"))...)
	faults = append(faults, atLeast(config.Metrics.Interval, 100*time.Millisecond, field.NewPath("metrics", "interval"))...)
	faults = append(faults, atLeast(config.Health.PollInterval, 100*time.Millisecond, field.NewPath("health", "pollInterval"))...)
	faults = append(faults, atLeast(config.Health.RecoveryHoldDown, 0, field.NewPath("health", "recoveryHoldDown"))...)
	faults = append(faults, validateListenAddress(config.Metrics.Address, field.NewPath("metrics", "address"))...)
	for i, number := range config.Health.IgnoredXIDs {
		if number < 1 {
			faults = append(faults, field.Invalid(field.NewPath("health", "ignoredXIDs").Index(i), number, "must be an XID number, 1 or more"))
		}
	}
	if v := config.Logging.Verbosity; v < 0 || v > 10 {
		faults = append(faults, field.Invalid(field.NewPath("logging", "verbosity"), v, "must be 0 to 10"))
	}
	if formats := []string{"json", "text"}; !slices.Contains(formats, config.Logging.Format) {
		faults = append(faults, field.NotSupported(field.NewPath("logging", "format"), config.Logging.Format, formats))
	}
	return faults
}

// runtimeCNICache is libcni's default (libcni.CacheDir).
const runtimeCNICache = "/var/lib/cni"

func validatePaths(paths *PathsConfig, at *field.Path) field.ErrorList {
	var faults field.ErrorList
	for _, entry := range []struct{ name, value string }{
		{"sys", paths.Sys}, {"dev", paths.Dev}, {"hostDev", paths.HostDev},
		{"driverRoot", paths.DriverRoot}, {"hostDriverRoot", paths.HostDriverRoot},
		{"cdi", paths.CDI}, {"state", paths.State}, {"run", paths.Run}, {"gate", paths.Gate}, {"cdiHook", paths.CDIHook},
		{"kubeletPlugins", paths.KubeletPlugins}, {"kubeletRegistry", paths.KubeletRegistry},
		{"kubeletPodResources", paths.KubeletPodResources}, {"nri", paths.NRI}, {"cniBin", paths.CNIBin}, {"cniConfig", paths.CNIConfig}, {"cniCache", paths.CNICache},
		{"deviceInfo", paths.DeviceInfo},
	} {
		faults = append(faults, validatePath(entry.value, at.Child(entry.name))...)
	}
	if filepath.Clean(paths.CNICache) == runtimeCNICache {
		faults = append(faults, field.Invalid(at.Child("cniCache"), paths.CNICache, "is where container runtimes keep the CNI results of their pods; give the agent a directory of its own, such as /var/lib/hostler/cni"))
	}
	if paths.NVMLLibrary != "" {
		faults = append(faults, validatePath(paths.NVMLLibrary, at.Child("nvmlLibrary"))...)
	}
	return faults
}

func validatePath(value string, at *field.Path) field.ErrorList {
	if !filepath.IsAbs(value) || strings.ContainsRune(value, 0) {
		return field.ErrorList{field.Invalid(at, value, "must be an absolute path")}
	}
	return nil
}

func validateListenAddress(value string, at *field.Path) field.ErrorList {
	_, port, err := net.SplitHostPort(value)
	if err != nil {
		return field.ErrorList{field.Invalid(at, value, `must be "host:port" or ":port"`)}
	}
	if number, err := strconv.Atoi(port); err != nil || number < 0 || number > 65535 {
		return field.ErrorList{field.Invalid(at, value, "the port must be a number from 0 (any free one) to 65535")}
	}
	return nil
}

func atLeast(value metav1.Duration, least time.Duration, at *field.Path) field.ErrorList {
	if value.Duration < least {
		return field.ErrorList{field.Invalid(at, value.Duration.String(), "must be at least "+least.String())}
	}
	return nil
}
