package cluster

// A plan says what a cluster is called and where everything of it lies. It is
// pure: names, addresses and paths follow from the cluster's name and index, so
// that two clusters stand side by side and a crashed one can be found again.
// Documentation prefixes are left to the world outside, which the tests talk to.

import (
	"fmt"
	"path/filepath"
	"regexp"
)

// maxIndex keeps services (10.96+i) and pods (10.112+i) from overlapping.
const maxIndex = 15

var nameForm = regexp.MustCompile(`^[a-z][a-z0-9-]{0,14}$`)

// Plan is what Start writes down first, and what Stop needs to remove everything.
type Plan struct {
	Name  string     `json:"name"`
	Index int        `json:"index"`
	Dir   string     `json:"dir"`
	Nodes []NodePlan `json:"nodes"`
	// Binaries is the directory of kubectl, kubelet, containerd and the rest.
	Binaries string `json:"binaries"`
	// Tree is the source tree whose bin/ holds the product's own programs.
	Tree string `json:"tree"`
	// PCIBus says that the PCI buses of simulated machines answer.
	PCIBus bool `json:"pciBus,omitempty"`
}

// NodePlan is one node's part of a Plan.
type NodePlan struct {
	Name string `json:"name"`
	// Number counts from 1; addresses and subnets follow from it.
	Number int `json:"number"`
	// Machine names the profile that is simulated; empty is a plain node.
	Machine string `json:"machine,omitempty"`
	// Uplink is the netdev that carries the node's default route.
	Uplink string `json:"uplink"`
	// UplinkMAC is its address where the simulated machine prescribes one.
	UplinkMAC string `json:"uplinkMAC,omitempty"`
}

func newPlan(options Options, dir string, index int) (Plan, error) {
	if !nameForm.MatchString(options.Name) {
		return Plan{}, fmt.Errorf("cluster name %q: want at most 15 lower-case letters, digits and dashes, a letter first", options.Name)
	}
	if index < 0 || index > maxIndex {
		return Plan{}, fmt.Errorf("cluster %s would be number %d, but at most %d fit side by side: take one down", options.Name, index+1, maxIndex+1)
	}
	plan := Plan{Name: options.Name, Index: index, Dir: dir}
	seen := map[string]bool{"net": true, "world": true, "fabric": true}
	for i, node := range options.Nodes {
		if !nameForm.MatchString(node.Name) || seen[node.Name] {
			return Plan{}, fmt.Errorf("node name %q is malformed, reserved or taken twice", node.Name)
		}
		seen[node.Name] = true
		plan.Nodes = append(plan.Nodes, NodePlan{Name: node.Name, Number: i + 1, Machine: node.Machine})
	}
	return plan, nil
}

func (p Plan) path(elements ...string) string {
	return filepath.Join(append([]string{p.Dir}, elements...)...)
}

// netNS is the name of one of the cluster's network namespaces: a node's, "net"
// for the bridge between the nodes, "world" for everything outside, "fabric"
// for the far ends of the simulated NICs.
func (p Plan) netNS(part string) string { return p.Name + "-" + part }

func (p Plan) netNSPath(part string) string { return netNSDir + "/" + p.netNS(part) }

// rootLink is the only link of the cluster in the machine's own namespace.
func (p Plan) rootLink() string { return rootLinkName(p.Index) }

func rootLinkName(index int) string { return fmt.Sprintf("testbed%d", index) }

func (p Plan) cgroup() string { return "hostler-testbed-" + p.Name }

func (p Plan) worldAddress() string  { return fmt.Sprintf("10.66.%d.1", p.Index) }
func (p Plan) worldAddress6() string { return fmt.Sprintf("fd66:%x::1", p.Index) }

// serverAddress is where the API server listens: the machine's end of rootLink.
func (p Plan) serverAddress() string { return fmt.Sprintf("10.66.%d.2", p.Index) }

func (p Plan) serverURL() string { return "https://" + p.serverAddress() + ":6443" }

func (p Plan) etcdURL() string { return fmt.Sprintf("http://127.0.0.1:%d", 23790+10*p.Index) }

func (p Plan) etcdPeerURL() string { return fmt.Sprintf("http://127.0.0.1:%d", 23791+10*p.Index) }

func (p Plan) serviceSubnets() string {
	return fmt.Sprintf("10.%d.0.0/16,fd66:%x:ffff::/112", 96+p.Index, p.Index)
}

func (p Plan) serviceAddress(host int) string { return fmt.Sprintf("10.%d.0.%d", 96+p.Index, host) }

// dnsAddress is the service address of CoreDNS, which the kubelets hand to pods.
func (p Plan) dnsAddress() string { return p.serviceAddress(10) }

func (p Plan) podSubnets() string {
	return fmt.Sprintf("10.%d.0.0/16,fd66:%x:1::/48", 112+p.Index, p.Index)
}

func (p Plan) nodeAddress(n NodePlan) string {
	return fmt.Sprintf("10.66.%d.%d", p.Index, 10+n.Number)
}

func (p Plan) nodeAddress6(n NodePlan) string {
	return fmt.Sprintf("fd66:%x::%x", p.Index, 0x10+n.Number)
}

func (p Plan) podSubnet(n NodePlan) string {
	return fmt.Sprintf("10.%d.%d.0/24", 112+p.Index, n.Number)
}

func (p Plan) podSubnet6(n NodePlan) string {
	return fmt.Sprintf("fd66:%x:1:%x::/64", p.Index, n.Number)
}

// nodePath is a path below the node's own directory on the host.
func (p Plan) nodePath(n NodePlan, elements ...string) string {
	return p.path(append([]string{n.Name}, elements...)...)
}
