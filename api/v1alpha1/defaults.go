package v1alpha1

// Defaults, exactly as the fields' comments promise them. A default is set only
// where nothing was written, so defaulting twice changes nothing.

import (
	"os"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// SetDefaults fills in the defaults of any kind of this package.
func SetDefaults(object runtime.Object) {
	switch config := object.(type) {
	case *GPUConfig:
		SetDefaults_GPUConfig(config)
	case *NICConfig:
		SetDefaults_NICConfig(config)
	case *EgressConfig:
		SetDefaults_EgressConfig(config)
	case *AgentConfig:
		SetDefaults_AgentConfig(config)
	}
}

// SetDefaults_GPUConfig gives a container compute and the management tools.
func SetDefaults_GPUConfig(config *GPUConfig) {
	set(&config.Mode, GPUModeDriver)
	if len(config.DriverCapabilities) == 0 && config.Mode == GPUModeDriver {
		config.DriverCapabilities = []string{"compute", "utility"}
	}
}

// SetDefaults_NICConfig leaves the interface as it is on the host, RDMA with it.
func SetDefaults_NICConfig(config *NICConfig) {
	set(&config.Mode, NICModeNetdev)
	set(&config.Attach, AttachHostler)
	set(&config.RDMA, RDMAAuto)
	switch config.Mode {
	case NICModeMacvlan:
		if config.Macvlan == nil {
			config.Macvlan = &MacvlanConfig{}
		}
		set(&config.Macvlan.Mode, MacvlanBridge)
	case NICModeIPVLAN:
		if config.IPVLAN == nil {
			config.IPVLAN = &IPVLANConfig{}
		}
		set(&config.IPVLAN.Mode, IPVLANL2)
	}
	for i := range config.Routes {
		route := &config.Routes[i]
		if route.Gateway == "" {
			set(&route.Scope, RouteScopeLink)
		}
		set(&route.Scope, RouteScopeGlobal)
	}
}

// SetDefaults_EgressConfig lets names be resolved and nothing bypass the rules.
func SetDefaults_EgressConfig(config *EgressConfig) {
	set(&config.DNS, DNSClusterResolver)
	set(&config.KernelBypass, KernelBypassDeny)
	for r := range config.Allow {
		for p := range config.Allow[r].Ports {
			set(&config.Allow[r].Ports[p].Protocol, ProtocolTCP)
		}
	}
}

// SetDefaults_AgentConfig also asks the environment: NODE_NAME and the host
// name for the node's, and whether /driver-root is there.
func SetDefaults_AgentConfig(config *AgentConfig) {
	set(&config.NodeName, os.Getenv("NODE_NAME"))
	if config.NodeName == "" {
		// A host without a name leaves the field empty, which validation reports.
		config.NodeName, _ = os.Hostname()
	}
	setPathDefaults(&config.Paths)
	set(&config.Discovery.PollInterval, metav1.Duration{Duration: 30 * time.Second})
	set(&config.Discovery.CallTimeout, metav1.Duration{Duration: 5 * time.Second})
	set(&config.Publish.NUMANode, NUMANodeScalar)
	set(&config.Publish.Partitions, PartitionsAll)
	set(&config.Metrics.Address, ":9484")
	set(&config.Metrics.Interval, metav1.Duration{Duration: 5 * time.Second})
	set(&config.Health.PollInterval, metav1.Duration{Duration: 5 * time.Second})
	set(&config.Health.RecoveryHoldDown, metav1.Duration{Duration: 10 * time.Second})
	if config.Health.NodeTaint == nil {
		yes := true
		config.Health.NodeTaint = &yes
	}
	set(&config.Logging.Format, "text")
}

func setPathDefaults(paths *PathsConfig) {
	set(&paths.Sys, "/sys")
	set(&paths.Dev, "/dev")
	set(&paths.HostDev, paths.Dev)
	if stat, err := os.Stat("/driver-root"); err == nil && stat.IsDir() {
		set(&paths.DriverRoot, "/driver-root")
	}
	set(&paths.DriverRoot, "/")
	set(&paths.HostDriverRoot, "/")
	set(&paths.CDI, "/var/run/cdi")
	set(&paths.State, "/var/lib/hostler")
	set(&paths.Run, "/run/hostler")
	set(&paths.Gate, "/var/lib/hostler/bin/hostler-gate")
	set(&paths.CDIHook, "/var/lib/hostler/bin/nvidia-cdi-hook")
	set(&paths.KubeletPlugins, "/var/lib/kubelet/plugins")
	set(&paths.KubeletRegistry, "/var/lib/kubelet/plugins_registry")
	set(&paths.KubeletPodResources, "/var/lib/kubelet/pod-resources/kubelet.sock")
	set(&paths.NRI, "/var/run/nri/nri.sock")
	set(&paths.CNIBin, "/opt/cni/bin")
	set(&paths.CNIConfig, "/etc/cni/net.d")
	set(&paths.CNICache, "/var/lib/hostler/cni")
	set(&paths.DeviceInfo, "/var/run/k8s.cni.cncf.io/devinfo")
}

// set assigns value where nothing was written.
func set[T comparable](field *T, value T) {
	var unset T
	if *field == unset {
		*field = value
	}
}
