package v1alpha1

// Names of interfaces in pods. Programs in a pod, and whoever debugs one, guess what
// an interface is from its name, and so do NCCL (which leaves out lo and docker*),
// NetworkManager and the CNI's own tools; a pod's NIC that is called as hosts call
// their plumbing is taken for that. And some names are taken in every namespace.

import (
	"fmt"
	"path"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation/field"
)

// plumbing is a pattern of names (path.Match) and what hosts, or pods, call so.
type plumbing struct{ pattern, of string }

func plumbings() []plumbing {
	return []plumbing{
		{"eth0", "the pod's own interface"},
		{"bond*", "bonds"},
		{"team[0-9]*", "teams of links"},
		{"br-*", "bridges of Docker, Open vSwitch and others"},
		{"br[0-9]*", "bridges"},
		{"cbr[0-9]*", "the bridge of kubenet"},
		{"virbr*", "bridges of libvirt"},
		{"vnet[0-9]*", "taps of libvirt"},
		{"docker*", "bridges of Docker"},
		{"podman*", "bridges of Podman"},
		{"nerdctl*", "bridges of nerdctl"},
		{"cni*", "bridges of CNI plugins"},
		{"veth*", "the two ends of veth pairs"},
		{"dummy*", "dummy links"},
		{"ifb*", "links that limit what comes in"},
		{"flannel*", "links of Flannel"},
		{"cilium*", "links of Cilium"},
		{"lxc*", "links of Cilium and LXC to pods"},
		{"cali*", "links of Calico to pods"},
		{"antrea-*", "links of Antrea"},
		{"weave*", "links of Weave Net"},
		{"ovs-*", "links of Open vSwitch"},
		{"ovn*", "links of OVN"},
		{"genev_sys_*", "tunnels of Open vSwitch"},
		{"vxlan*", "VXLAN tunnels"},
		{"kube-*", "links of kube-proxy"},
		{"nodelocaldns", "the link of the node's DNS cache"},
		{"hostler*", "NICs whose name was taken when the agent brought them home"},
		// Where the modules are loaded, the kernel makes these in every new namespace
		// (Documentation/admin-guide/sysctl/net.rst, fb_tunnels_only_for_init_net).
		{"tunl*", "the kernel's own tunnels"},
		{"gre[0-9]*", "the kernel's own tunnels"},
		{"gretap[0-9]*", "the kernel's own tunnels"},
		{"erspan[0-9]*", "the kernel's own tunnels"},
		{"sit[0-9]*", "the kernel's own tunnels"},
		{"ip6tnl*", "the kernel's own tunnels"},
		{"ip6gre*", "the kernel's own tunnels"},
		{"ip_vti*", "the kernel's own tunnels"},
		{"ip6_vti*", "the kernel's own tunnels"},
	}
}

// InterfaceNameFault says why a netdev cannot have the name in a pod, "" if it can.
func InterfaceNameFault(name string) string {
	// As dev_valid_name in the kernel's net/core/dev.c has it; and the kernel takes
	// "%" as a request to choose a number.
	switch {
	case len(name) > 15:
		return "must be at most 15 characters long, which is all that the kernel keeps; shorten it"
	case name == "" || name == "." || name == ".." || name == "lo" || name == "all" || name == "default":
		return "is reserved by the kernel; choose another name"
	case strings.IndexFunc(name, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune("/:%", r) }) >= 0:
		return "must consist of printable ASCII characters other than space, '/', ':' and '%'"
	}
	for _, p := range plumbings() {
		// The patterns are ours; one that is malformed would not match its own example in the test.
		if matches, err := path.Match(p.pattern, name); err == nil && matches {
			return fmt.Sprintf("names like %s are those of %s; choose one that cannot be mistaken, such as \"rail0\"", p.pattern, p.of)
		}
	}
	return ""
}

// validateInterfaceName takes "" for a name that is not set.
func validateInterfaceName(name string, at *field.Path) field.ErrorList {
	if name == "" {
		return nil
	}
	if fault := InterfaceNameFault(name); fault != "" {
		return field.ErrorList{field.Invalid(at, name, fault)}
	}
	return nil
}
