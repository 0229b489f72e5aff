package claim

// The kinds of devices that claims can have. A kind that is added here is killed at
// every moment, paired with every feature and told to its containers.

import (
	"fmt"
	"slices"
	"strings"

	resourceapi "k8s.io/api/resource/v1"
)

// kind is a kind of device, or several in one claim, as claims ask for it.
type kind struct {
	name    string
	devices [][2]string
	// other are devices that another allocation of the claim gets.
	other [][2]string
	// configs are in the DeviceClass of each device that is not in own, which has those of some.
	configs []string
	own     map[string]string
	// shared are the devices of which the claim gets a share.
	shared []string
	// replaces: the journal of its agents has no second file.
	replaces bool
	// sameSteps: its steps are those of another kind, so that it is killed with that.
	sameSteps bool
	// turn says which of the successions to a kill comes first.
	turn int
}

const vfSettings = `NICConfig {"vf": {"mac": "02:00:5e:10:00:01", "vlan": 100, "trust": true, "maxTxRate": 400}}`

const nicSettings = `NICConfig {
	"interfaceName": "net1", "hardwareAddress": "02:00:5e:10:00:01", "addresses": ["10.1.0.5/24"], "mtu": 1500, "vrf": {"name": "blue", "table": 100},
	"routes": [{"destination": "10.2.0.0/16", "gateway": "10.1.0.1", "source": "10.1.0.5", "metric": 9}, {"destination": "10.3.0.0/16", "scope": "Global", "table": 7}],
	"rules": [{"priority": 10, "source": "10.1.0.0/24", "table": 7}], "neighbours": [{"address": "10.1.0.9", "hardwareAddress": "02:00:5e:10:00:09"}],
	"sysctls": {"net.ipv4.conf.IFNAME.arp_ignore": "1"}, "ethtool": {"features": {"rx-gro": false}, "privateFlags": {"legacy-rx": true}},
	"networks": [{"name": "storage", "interfaceName": "st0", "ips": ["10.5.0.5/24"], "mac": "02:00:5e:10:00:05", "defaultRoute": ["10.5.0.1"]}]}`

// vfForMachines gives VFs to virtual machines, each in its class's VLAN.
const vfForMachines = `NICConfig {"mode": "vfio", "vf": {"mac": "02:00:5e:10:00:02", "vlan": 200, "trust": false}}`

// kinds are all there are.
func kinds() []kind {
	one := func(name string, device, other [2]string, configs ...string) kind {
		return kind{name: name, devices: [][2]string{device}, other: [][2]string{other}, configs: configs}
	}
	return []kind{
		one("gpu", onGPU("gpu-0000-17-00-0"), onGPU("gpu-0000-27-00-0")),
		one("mig dynamic", onGPU(part1g0), onGPU(part1g1)),
		one("mig static", onGPU(part2g4), onGPU(part1g0)),
		one("nic pf", onNIC("nic-0000-19-00-0"), onNIC("nic-0000-18-00-0")),
		one("nic vf", onNIC("nic-0000-1d-00-1"), onNIC("nic-0000-1d-00-2")),
		one("vf with settings", onNIC("nic-0000-1d-00-1"), onNIC("nic-0000-1d-00-2"), vfSettings),
		one("nic with settings", onNIC("nic-0000-19-00-0"), onNIC("nic-0000-18-00-0"), nicSettings),
		share(one("macvlan share", onNIC("nic-0000-19-00-0"), onNIC("nic-0000-18-00-0"), `NICConfig {"mode": "macvlan"}`)),
		like(share(one("ipvlan share", onNIC("nic-0000-19-00-0"), onNIC("nic-0000-18-00-0"), `NICConfig {"mode": "ipvlan"}`))),
		like(one("child of a whole nic", onNIC("nic-0000-19-00-0"), onNIC("nic-0000-18-00-0"), `NICConfig {"mode": "macvlan"}`)),
		like(one("rdma nic", onNIC("nic-0000-18-00-0"), onNIC("nic-0000-19-00-0"))),
		one("ib-only nic", onNIC("nic-0000-1a-00-0"), onNIC("nic-0000-19-00-0")),
		one("pair", onAny(pairRDMA), onAny(pairPlain)),
		one("egress", onEgress(), onGPU("gpu-0000-17-00-0")),
		one("vfio gpu", onGPU("gpu-0000-27-00-0"), onGPU("gpu-0000-17-00-0"), vfioGPU),
		one("vfio nic", onNIC("nic-0000-19-00-0"), onNIC("nic-0000-1d-00-1"), vfioNIC),
		one("vfio vf", onNIC("nic-0000-1d-00-1"), onNIC("nic-0000-1d-00-2"), vfForMachines),
		one("vfio pair", onAny(pairPlain), onAny(pairRDMA), vfioGPU, vfioNIC),
		one("nic by multus", onNIC("nic-0000-19-00-0"), onNIC("nic-0000-18-00-0"), `NICConfig {"attach": "Multus"}`),
	}
}

// like is a kind whose steps are those of one before it.
func like(k kind) kind {
	k.sameSteps = true
	return k
}

// share has the claim get shares of its devices.
func share(k kind) kind {
	for _, device := range append(slices.Clone(k.devices), k.other...) {
		k.shared = append(k.shared, device[1])
	}
	return k
}

// everything is a claim for several devices that takes each kind of step.
func everything() kind {
	return kind{
		name: "several",
		devices: [][2]string{
			onGPU(part1g0), onGPU(part2g4), onGPU(part1g1), onGPU("gpu-0000-17-00-0"), onNIC("nic-0000-1d-00-1"), onNIC("nic-0000-1d-00-2"),
			onNIC("nic-0000-18-00-0"), onNIC("nic-0000-19-00-0"), onNIC("nic-0000-1a-00-0"), onEgress(),
		},
		other: [][2]string{onGPU(part2g0), onNIC("nic-0000-1d-00-2")},
		own: map[string]string{
			"gpu-0000-17-00-0": vfioGPU, "nic-0000-1d-00-1": vfSettings, "nic-0000-1d-00-2": vfForMachines,
			"nic-0000-19-00-0": `NICConfig {"mode": "macvlan"}`, "egress": `EgressConfig {"kernelBypass": "Allow"}`,
		},
		shared: []string{"nic-0000-19-00-0"},
	}
}

// replacing is the kind on a node where each write of the journal replaces its file.
func (k kind) replacing() kind {
	k.name, k.replaces, k.turn = k.name+", and a journal of one file", true, 2
	return k
}

// claim asks for the kind's devices.
func (k kind) claim(name string) *resourceapi.ResourceClaim {
	return k.from(class, allocated(name, k.devices...))
}

// reallocated is the claim after it got other devices.
func (k kind) reallocated(name string) *resourceapi.ResourceClaim {
	return k.from(class, allocated(name, k.other...))
}

// from completes the claim, with configs that are in its class or its own.
func (k kind) from(source resourceapi.AllocationConfigSource, c *resourceapi.ResourceClaim) *resourceapi.ResourceClaim {
	for i := range c.Status.Allocation.Devices.Results {
		result := &c.Status.Allocation.Devices.Results[i]
		if slices.Contains(k.shared, result.Device) {
			shareOut(c.Name, result, "10G")
		}
		for _, config := range k.configsOf(result.Device) {
			with(c, source, config, result.Request)
		}
	}
	return c
}

// bindsFunctions: something of it goes to user space.
func (k kind) bindsFunctions() bool {
	return strings.Contains(fmt.Sprint(k.configs, k.own), "vfio")
}

// changesHardware: something is made, set or bound for it that stays until it is undone.
func (k kind) changesHardware() bool {
	return k.bindsFunctions() || strings.Contains(fmt.Sprint(k.devices), "-mig-1g") || strings.Contains(fmt.Sprint(k.configs, k.own), `"vf"`)
}

func (k kind) configsOf(device string) []string {
	if own, has := k.own[device]; has {
		return []string{own}
	}
	return k.configs
}
