package v1alpha1

import (
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

func TestValidationNamesEachFault(t *testing.T) {
	vf := func(config VFConfig) *NICConfig { return &NICConfig{VF: &config} }
	cidr := func(prefix string, except ...string) []EgressPeer {
		return []EgressPeer{{CIDR: &CIDRPeer{CIDR: prefix, Except: except}}}
	}
	web := []EgressPort{{Port: 443}}
	tests := map[string]struct {
		config runtime.Object
		faults []string // one per fault, in order; none: valid
	}{
		"GPU: all defaults":              {&GPUConfig{}, nil},
		"GPU: every capability":          {&GPUConfig{DriverCapabilities: driverCapabilities()}, nil},
		"GPU: unknown and twice":         {&GPUConfig{DriverCapabilities: []string{"cuda", "compute", "compute"}}, []string{`driverCapabilities[0]: Unsupported value: "cuda"`, `driverCapabilities[2]: Duplicate value: "compute"`}},
		"GPU: in user space":             {&GPUConfig{Mode: GPUModeVFIO}, nil},
		"GPU: unknown mode":              {&GPUConfig{Mode: "VFIO"}, []string{`mode: Unsupported value: "VFIO"`}},
		"GPU: capabilities of no driver": {&GPUConfig{Mode: GPUModeVFIO, DriverCapabilities: []string{"compute"}}, []string{`driverCapabilities: Invalid value: ["compute"]: must not be set with mode "vfio"`}},
		"VF: nothing":                    {vf(VFConfig{}), nil},
		"VF: in user space":              {&NICConfig{Mode: NICModeVFIO, VF: &VFConfig{MAC: new("02:00:5E:10:00:01"), VLAN: new(int32(4094)), VLANQoS: new(int32(7))}}, nil},
		"VF: no VLAN":                    {vf(VFConfig{VLAN: new(int32(0)), VLANQoS: new(int32(0))}), nil},
		"VF: no limit":                   {vf(VFConfig{MinTxRate: new(int32(100)), MaxTxRate: new(int32(0)), LinkState: VFLinkDisable}), nil},
		"VF: a limit and its guarantee":  {vf(VFConfig{MinTxRate: new(int32(100)), MaxTxRate: new(int32(100))}), nil},
		"VF: no such VLAN":               {vf(VFConfig{VLAN: new(int32(4095))}), []string{"vf.vlan: Invalid value: 4095: must be 1 to 4094, or 0"}},
		"VF: no such priority":           {vf(VFConfig{VLAN: new(int32(1)), VLANQoS: new(int32(8))}), []string{"vf.vlanQoS: Invalid value: 8: must be a priority from 0 to 7"}},
		"VF: priority without a VLAN":    {vf(VFConfig{VLANQoS: new(int32(0))}), []string{"vf.vlanQoS: Invalid value: 0: is the priority in a VLAN's tag; set vlan, too"}},
		"VF: priority without a tag":     {vf(VFConfig{VLAN: new(int32(0)), VLANQoS: new(int32(3))}), []string{"vf.vlanQoS: Invalid value: 3: is the priority in a VLAN's tag, and vlan 0 sends none"}},
		"VF: a guarantee over the limit": {vf(VFConfig{MinTxRate: new(int32(101)), MaxTxRate: new(int32(100))}), []string{"vf.minTxRate: Invalid value: 101: must not be above maxTxRate, 100"}},
		"VF: every fault by itself":      {vf(VFConfig{MAC: new("02:00"), VLAN: new(int32(-1)), VLANQoS: new(int32(-1)), MinTxRate: new(int32(-1)), MaxTxRate: new(int32(-2)), LinkState: "auto"}), []string{"vf.mac: Invalid", "vf.vlan: Invalid", "vf.vlanQoS: Invalid", "vf.minTxRate: Invalid", "vf.maxTxRate: Invalid", `vf.linkState: Unsupported value: "auto"`}},
		"VF: MAC in another notation":    {vf(VFConfig{MAC: new("0200.5e10.0001")}), []string{"vf.mac: Invalid value: \"0200.5e10.0001\": must be six pairs"}},
		"VF: MAC of InfiniBand's length": {vf(VFConfig{MAC: new("02:00:5e:10:00:01:00:00")}), []string{"vf.mac: Invalid"}},
		"VF: multicast MAC":              {vf(VFConfig{MAC: new("01:00:5e:10:00:01")}), []string{"vf.mac: Invalid value: \"01:00:5e:10:00:01\": must be a unicast address"}},
		"VF: MAC of zeros":               {vf(VFConfig{MAC: new("00:00:00:00:00:00")}), []string{"vf.mac: Invalid value: \"00:00:00:00:00:00\": must not be all zero"}},
		"egress: nothing leaves":         {&EgressConfig{}, nil},
		"egress: a rule with a hole":     {&EgressConfig{Allow: []EgressRule{{Name: "web", To: cidr("10.0.0.0/8", "10.1.0.0/16"), Ports: web}}}, nil},
		"egress: rule without members":   {&EgressConfig{Allow: []EgressRule{{Name: "web"}}}, []string{"allow[0].to: Required", "allow[0].ports: Required"}},
		"egress: peer without a member":  {&EgressConfig{Allow: []EgressRule{{Name: "web", To: []EgressPeer{{}}, Ports: web}}}, []string{"allow[0].to[0].cidr: Required"}},
		"egress: name twice":             {&EgressConfig{Allow: []EgressRule{{Name: "a", To: cidr("10.0.0.0/8"), Ports: web}, {Name: "a", To: cidr("10.0.0.0/8"), Ports: web}}}, []string{"allow[1].name: Duplicate"}},
		"egress: hole elsewhere":         {&EgressConfig{Allow: []EgressRule{{Name: "a", To: cidr("10.0.0.0/8", "192.168.0.0/16"), Ports: web}}}, []string{"allow[0].to[0].cidr.except[0]: Invalid"}},
		"egress: ports":                  {&EgressConfig{Allow: []EgressRule{{Name: "a", To: cidr("10.0.0.0/8"), Ports: []EgressPort{{Port: 0}, {Port: 9, EndPort: 8}, {Port: 1, Protocol: "ICMP"}}}}}, []string{"ports[0].port: Invalid", "ports[1].endPort: Invalid", "ports[2].protocol: Unsupported"}},
		"egress: mapped address":         {&EgressConfig{Never: []string{"::ffff:10.0.0.0/104"}}, []string{"never[0]: Invalid"}},
		"egress: unknown modes":          {&EgressConfig{DNS: "Proxy", KernelBypass: "Maybe"}, []string{"dns: Unsupported", "kernelBypass: Unsupported"}},
		"agent: all defaults":            {&AgentConfig{NodeName: "n1"}, nil},
		"agent: a relative path":         {&AgentConfig{NodeName: "n1", Paths: PathsConfig{Sys: "sys"}}, []string{"paths.sys: Invalid"}},
		"agent: the runtime's CNI cache": {&AgentConfig{NodeName: "n1", Paths: PathsConfig{CNICache: "/var/lib/cni/"}}, []string{"paths.cniCache: Invalid"}},
		"agent: a busy loop":             {&AgentConfig{NodeName: "n1", Metrics: MetricsConfig{Interval: metav1.Duration{Duration: time.Millisecond}}}, []string{"metrics.interval: Invalid"}},
		"agent: no port":                 {&AgentConfig{NodeName: "n1", Metrics: MetricsConfig{Address: "localhost"}}, []string{"metrics.address: Invalid"}},
		"agent: unknown log format":      {&AgentConfig{NodeName: "n1", Logging: LoggingConfig{Format: "xml", Verbosity: -1}}, []string{"logging.verbosity: Invalid", "logging.format: Unsupported"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) { sameFaults(t, test.config, test.faults) })
	}
}

// sameFaults wants these faults, by part of their words, in this order, and no others.
func sameFaults(t *testing.T, config runtime.Object, want []string) {
	t.Helper()
	SetDefaults(config)
	faults := Validate(config)
	if len(faults) != len(want) {
		t.Fatalf("%d faults, want %d: %v", len(faults), len(want), faults)
	}
	for i := range want {
		if !strings.Contains(faults[i].Error(), want[i]) {
			t.Errorf("fault %d is %q, want %q", i, faults[i], want[i])
		}
	}
}

func TestAgentConfigDefaultsAreTheDocumentedOnes(t *testing.T) {
	t.Setenv("NODE_NAME", "gpu-7")
	config := &AgentConfig{Paths: PathsConfig{Dev: "/machine/dev"}}
	SetDefaults_AgentConfig(config)
	for what, pair := range map[string][2]any{
		"nodeName":                  {config.NodeName, "gpu-7"},
		"paths.hostDev follows dev": {config.Paths.HostDev, "/machine/dev"},
		"paths.sys":                 {config.Paths.Sys, "/sys"},
		"paths.cdi":                 {config.Paths.CDI, "/var/run/cdi"},
		"paths.state":               {config.Paths.State, "/var/lib/hostler"},
		"paths.run":                 {config.Paths.Run, "/run/hostler"},
		"paths.gate":                {config.Paths.Gate, "/var/lib/hostler/bin/hostler-gate"},
		"paths.cdiHook":             {config.Paths.CDIHook, "/var/lib/hostler/bin/nvidia-cdi-hook"},
		"paths.nri":                 {config.Paths.NRI, "/var/run/nri/nri.sock"},
		"paths.cniBin":              {config.Paths.CNIBin, "/opt/cni/bin"},
		"paths.cniConfig":           {config.Paths.CNIConfig, "/etc/cni/net.d"},
		"paths.cniCache":            {config.Paths.CNICache, "/var/lib/hostler/cni"},
		"paths.deviceInfo":          {config.Paths.DeviceInfo, "/var/run/k8s.cni.cncf.io/devinfo"},
		"discovery.pollInterval":    {config.Discovery.PollInterval.Duration, 30 * time.Second},
		"discovery.callTimeout":     {config.Discovery.CallTimeout.Duration, 5 * time.Second},
		"metrics.address":           {config.Metrics.Address, ":9484"},
		"metrics.interval":          {config.Metrics.Interval.Duration, 5 * time.Second},
		"health.pollInterval":       {config.Health.PollInterval.Duration, 5 * time.Second},
		"health.recoveryHoldDown":   {config.Health.RecoveryHoldDown.Duration, 10 * time.Second},
		"health.nodeTaint":          {*config.Health.NodeTaint, true},
		"logging.format":            {config.Logging.Format, "text"},
	} {
		if pair[0] != pair[1] {
			t.Errorf("%s is %v, want %v", what, pair[0], pair[1])
		}
	}
}
