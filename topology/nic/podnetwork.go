// What the pod network runs over, as far as the node shows it: the interfaces
// that CNI configurations name, the routes that routing daemons learnt (Calico's BIRD,
// FRR), and the netdevs under tunnels (flannel.1, vxlan.calico, tunl0).

package nic

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containernetworking/cni/libcni"

	"github.com/hostler-dev/hostler/topology"
)

// podNetwork is a plugin of a CNI configuration that names something of the node,
// or is known to take NICs without naming them.
type podNetwork struct {
	name, file, plugin string
	links              []string // netdevs by name
	mac, pci           string   // or by these
}

func (p *podNetwork) names(link *LinkState) bool {
	return slices.Contains(p.links, link.Name) ||
		slices.ContainsFunc(link.AlternativeNames, func(name string) bool { return slices.Contains(p.links, name) })
}

// pluginConfig are the fields by which the reference plugins name the node's
// netdevs: master (macvlan, ipvlan, vlan), bridge (bridge, ovs), and those of host-device.
type pluginConfig struct {
	Type      string
	Master    string
	Bridge    string
	Device    string
	HWAddr    string `json:"hwaddr"`
	PCIBusID  string `json:"pciBusID"`
	Delegate  *json.RawMessage
	Delegates []json.RawMessage
}

// readPodNetworks reads a folder of CNI configurations, "" is none. A file that
// is not understood costs what it says and no other.
func readPodNetworks(folder string) ([]podNetwork, []topology.Problem) {
	if folder == "" {
		return nil, nil
	}
	files, err := libcni.ConfFiles(folder, []string{".conf", ".conflist", ".json"})
	if err != nil {
		return nil, []topology.Problem{{Subject: "CNI configurations", Message: fmt.Sprintf("the folder %s cannot be read, so what the pod network runs over is known only from routes and tunnels: %v", folder, err)}}
	}
	slices.Sort(files)
	var networks []podNetwork
	var problems []topology.Problem
	for _, file := range files {
		found, err := readPodNetwork(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue // replaced since the listing
		}
		if err != nil {
			problems = append(problems, topology.Problem{
				Subject: "CNI configuration " + filepath.Base(file),
				Message: fmt.Sprintf("a NIC that it names is not known to be the node's: %v", err),
			})
		}
		networks = append(networks, found...)
	}
	return networks, problems
}

func readPodNetwork(file string) ([]podNetwork, error) {
	raw, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	return parsePodNetwork(filepath.Base(file), raw)
}

func parsePodNetwork(file string, raw []byte) ([]podNetwork, error) {
	var plugins []*libcni.PluginConfig
	var name string
	if strings.HasSuffix(file, ".conflist") {
		list, err := libcni.NetworkConfFromBytes(raw)
		if err != nil {
			return nil, err
		}
		plugins, name = list.Plugins, list.Name
	} else {
		plugin, err := libcni.NetworkPluginConfFromBytes(raw)
		if err != nil {
			return nil, err
		}
		plugins, name = []*libcni.PluginConfig{plugin}, plugin.Network.Name
	}
	var networks []podNetwork
	var errs []error
	for _, plugin := range plugins {
		found, err := namedBy(plugin.Bytes, podNetwork{name: name, file: file}, 0)
		networks, errs = append(networks, found...), append(errs, err)
	}
	return networks, errors.Join(errs...)
}

// namedBy reads one plugin's configuration and those that it delegates to, as
// flannel and Multus do.
func namedBy(raw []byte, network podNetwork, depth int) ([]podNetwork, error) {
	const deepest = 4
	if depth > deepest {
		return nil, fmt.Errorf("plugins delegate to each other more than %d levels deep", deepest)
	}
	var cfg pluginConfig
	if err := json.Unmarshal(raw, &cfg); err != nil {
		return nil, fmt.Errorf("the plugin's configuration is not understood: %w", err)
	}
	network.plugin, network.mac, network.pci, network.links = cfg.Type, strings.ToLower(cfg.HWAddr), cfg.PCIBusID, nil
	for _, link := range []string{cfg.Master, cfg.Bridge, cfg.Device} {
		if link != "" {
			network.links = append(network.links, link)
		}
	}
	var networks []podNetwork
	if len(network.links) > 0 || network.mac != "" || network.pci != "" || network.plugin == pluginAWS {
		networks = append(networks, network)
	}
	if cfg.Delegate != nil {
		cfg.Delegates = append(cfg.Delegates, *cfg.Delegate)
	}
	var errs []error
	for _, delegate := range cfg.Delegates {
		found, err := namedBy(delegate, network, depth+1)
		networks, errs = append(networks, found...), append(errs, err)
	}
	return networks, errors.Join(errs...)
}

// pluginAWS attaches NICs to the machine and gives their further addresses to
// pods. It names none of them in its configuration, but gives each a table with a
// default route and a rule for the NIC's own address (setupENINetwork in its pkg/networkutils).
const pluginAWS = "aws-cni"

func (v *verdicts) podNetworks(networks []podNetwork) {
	for _, network := range networks {
		if network.plugin == pluginAWS {
			for _, way := range v.n.ownWays {
				v.mark(way.link, fmt.Sprintf("has a default route of its own in table %d via %s, as the %s plugin of the pod network %s (%s) makes it for NICs whose addresses pods get",
					way.table, v.name(way.link), network.plugin, network.name, network.file))
			}
		}
		for _, link := range v.n.links {
			if network.names(&link) || network.mac != "" && network.mac == link.MAC ||
				network.pci != "" && slices.Contains(v.stack.netdevs(network.pci), link.Name) {
				v.mark(link.Index, fmt.Sprintf("is named by the %s plugin of the pod network %s (%s)", network.plugin, network.name, network.file))
			}
		}
	}
}

// protocolRA is RTPROT_RA of linux/rtnetlink.h.
const protocolRA = 9

// routingDaemons by RTPROT_* of linux/rtnetlink.h and iproute2's rt_protos.
// kube-router takes the number of mrouted, which makes no unicast routes (ZebraOriginator
// in its pkg/routes); Calico's Felix has 80 (DefaultRouteProto in its dataplanedefs).
var routingDaemons = map[int]string{
	8: "gated", 11: "zebra", 12: "bird", 14: "xorp", 17: "kube-router", 42: "babel", 80: "felix", 99: "openr",
	186: "bgp", 187: "isis", 188: "ospf", 189: "rip", 190: "ripng", 192: "eigrp",
}

// protocolKernel is RTPROT_KERNEL. The kernel itself makes no such route with a
// gateway; Cilium does, to other nodes' pods (RTProto in its linux_defaults), lest
// systemd-networkd removes them.
const protocolKernel = 2

// daemon is who learnt a route, "" if it is none that pod networks rely on.
func (r *Route) daemon() string {
	if r.Protocol == protocolKernel && len(r.Gateways) > 0 {
		return "cilium"
	}
	return routingDaemons[r.Protocol]
}

func (v *verdicts) routingDaemons() {
	for _, route := range v.n.routes {
		daemon := route.daemon()
		if daemon == "" {
			continue
		}
		for _, link := range route.Links {
			if v.reasons[link] == "" {
				v.mark(link, fmt.Sprintf("carries the route %s via %s, which the routing daemon %s learnt: the pod network runs over it", route.Destination, v.name(link), daemon))
			}
		}
	}
}

// tunnels marks what the node's tunnels run over. One that is bound to nothing,
// like tunl0, runs over whatever leads to the gateways of its routes.
func (v *verdicts) tunnels() {
	open := map[int]string{}
	for _, link := range v.n.links {
		if _, ok := tunnels[link.Kind]; !ok {
			continue
		}
		carries := fmt.Sprintf("carries the tunnel %s (%s)", link.Name, link.Kind)
		underlays := v.stack.underlays(&link)
		if len(underlays) == 0 {
			open[link.Index] = carries
		}
		for _, underlay := range underlays {
			v.mark(underlay, carries)
		}
	}
	type end struct {
		tunnel  int
		gateway netip.Addr
	}
	looked := map[end]bool{} // every node has many pods' routes
	for _, route := range v.n.routes {
		for _, link := range route.Links {
			if open[link] == "" {
				continue
			}
			for _, gateway := range route.Gateways {
				if looked[end{link, gateway}] {
					continue
				}
				looked[end{link, gateway}] = true
				for _, underlay := range v.stack.leading(gateway, link) {
					v.mark(underlay, open[link])
				}
			}
		}
	}
}
