package claim

import (
	"strings"

	resourceapi "k8s.io/api/resource/v1"
)

// kind is a kind of device, or several in one claim, as claims ask for it.
type kind struct {
	name    string
	devices [][2]string
	// other are devices that another allocation of the claim gets.
	other [][2]string
	// config is in the DeviceClass.
	config string
	// share: of each device the claim gets a share.
	share bool
	// replaces: the journal of its agents has no second file.
	replaces bool
}

const vfSettings = `NICConfig {"vf": {"mac": "02:00:5e:10:00:01", "vlan": 100, "trust": true, "maxTxRate": 400}}`

const nicSettings = `NICConfig {
	"interfaceName": "net1", "hardwareAddress": "02:00:5e:10:00:01", "addresses": ["10.1.0.5/24"], "mtu": 1500, "vrf": {"name": "blue", "table": 100},
	"routes": [{"destination": "10.2.0.0/16", "gateway": "10.1.0.1", "source": "10.1.0.5", "metric": 9}, {"destination": "10.3.0.0/16", "scope": "Global", "table": 7}],
	"rules": [{"priority": 10, "source": "10.1.0.0/24", "table": 7}], "neighbours": [{"address": "10.1.0.9", "hardwareAddress": "02:00:5e:10:00:09"}],
	"sysctls": {"net.ipv4.conf.IFNAME.arp_ignore": "1"}, "ethtool": {"features": {"rx-gro": false}, "privateFlags": {"legacy-rx": true}},
	"networks": [{"name": "storage", "interfaceName": "st0", "ips": ["10.5.0.5/24"], "mac": "02:00:5e:10:00:05", "defaultRoute": ["10.5.0.1"]}]}`

// kinds are all there are.
func kinds() []kind {
	one := func(name string, device, other [2]string, config string) kind {
		return kind{name: name, devices: [][2]string{device}, other: [][2]string{other}, config: config}
	}
	return []kind{
		one("gpu", onGPU("gpu-0000-17-00-0"), onGPU("gpu-0000-27-00-0"), ""),
		one("mig dynamic", onGPU(part1g0), onGPU(part1g1), ""),
		one("mig static", onGPU(part2g4), onGPU(part1g0), ""),
		one("nic pf", onNIC("nic-0000-19-00-0"), onNIC("nic-0000-18-00-0"), ""),
		one("nic vf", onNIC("nic-0000-1d-00-1"), onNIC("nic-0000-1d-00-2"), ""),
		one("vf with settings", onNIC("nic-0000-1d-00-1"), onNIC("nic-0000-1d-00-2"), vfSettings),
		one("nic with settings", onNIC("nic-0000-19-00-0"), onNIC("nic-0000-18-00-0"), nicSettings),
		shared(one("macvlan share", onNIC("nic-0000-19-00-0"), onNIC("nic-0000-18-00-0"), `NICConfig {"mode": "macvlan"}`)),
		one("ib-only nic", onNIC("nic-0000-1a-00-0"), onNIC("nic-0000-19-00-0"), ""),
		one("pair", onAny(pairRDMA), onAny(pairPlain), ""),
		one("egress", onEgress(), onGPU("gpu-0000-17-00-0"), ""),
		one("vfio gpu", onGPU("gpu-0000-27-00-0"), onGPU("gpu-0000-17-00-0"), `GPUConfig {"mode": "vfio"}`),
		one("vfio nic", onNIC("nic-0000-19-00-0"), onNIC("nic-0000-1d-00-1"), `NICConfig {"mode": "vfio"}`),
		one("nic by multus", onNIC("nic-0000-19-00-0"), onNIC("nic-0000-18-00-0"), `NICConfig {"attach": "Multus"}`),
	}
}

func shared(k kind) kind {
	k.share = true
	return k
}

// everything is a claim for several devices that takes each kind of step.
func everything() kind {
	return kind{
		name:    "several",
		devices: [][2]string{onGPU(part1g0), onGPU(part2g4), onGPU(part1g1), onNIC("nic-0000-1d-00-1"), onNIC("nic-0000-19-00-0")},
		other:   [][2]string{onGPU(part2g0), onNIC("nic-0000-1d-00-2")}, config: vfSettings,
	}
}

// replacing is the kind on a node where each write of the journal replaces its file.
func (k kind) replacing() kind {
	k.name, k.replaces = k.name+", and a journal of one file", true
	return k
}

// claim asks for the kind's devices.
func (k kind) claim(name string) *resourceapi.ResourceClaim {
	return k.with(allocated(name, k.devices...))
}

// reallocated is the claim after it got other devices.
func (k kind) reallocated(name string) *resourceapi.ResourceClaim {
	return k.with(allocated(name, k.other...))
}

func (k kind) with(c *resourceapi.ResourceClaim) *resourceapi.ResourceClaim {
	if k.share {
		sharing(c, "10G")
	}
	if k.config == "" {
		return c
	}
	// It is the class's of one request; of several devices, those that are VFs.
	for _, result := range c.Status.Allocation.Devices.Results {
		if k.config != vfSettings || strings.HasPrefix(result.Device, "nic-0000-1d") {
			with(c, class, k.config, result.Request)
		}
	}
	return c
}
