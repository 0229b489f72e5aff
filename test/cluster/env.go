package cluster

// What others see of a running cluster: its nodes, its kubeconfig and the
// environment variables that scripts and tests rely on.

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/hostler-dev/hostler/test/cluster/images"
)

// metricsPort is where the agent serves metrics on its node.
const metricsPort = 9484

// Node is one node as seen from the machine. Paths are the machine's own.
type Node struct {
	Name string
	// IP is reachable from the machine; Uplink is the netdev that carries it.
	IP, Uplink string
	// NetNS is the path of the node's network namespace.
	NetNS string
	// PID is a process in the node's network, mount and UTS namespaces.
	PID int
	// Root holds the node's own /run, /var/lib (as lib), /opt, /var/log (as log) and /etc.
	Root string
	// KubeletRoot is the node's /var/lib/kubelet, without what is mounted there.
	KubeletRoot string
	// ContainerdSocket is the runtime's socket, its images in the namespace k8s.io.
	ContainerdSocket string
	// CDI is the node's /run/cdi.
	CDI string
	// MachineRoot is the simulated machine (sys, dev, driver), "" on a plain node.
	MachineRoot string
}

// Dir is where the cluster's state and logs lie.
func (c *Cluster) Dir() string { return c.plan.Dir }

// Kubeconfig is the path of the administrator's kubeconfig.
func (c *Cluster) Kubeconfig() string { return c.plan.kubeconfig("admin") }

// Binaries is the directory of kubectl, ctr, helm and the components.
func (c *Cluster) Binaries() string { return c.plan.Binaries }

// WorldNetNS is the network namespace that answers for 198.51.100.0/24,
// 203.0.113.0/24, 2001:db8::/32 and 169.254.169.254, on port 80 out of itself.
func (c *Cluster) WorldNetNS() string { return c.plan.netNSPath("world") }

// Nodes lists the nodes in order.
func (c *Cluster) Nodes() []Node {
	var nodes []Node
	for _, n := range c.plan.Nodes {
		nodes = append(nodes, c.plan.node(n))
	}
	return nodes
}

// Node returns the node of that name.
func (c *Cluster) Node(name string) (Node, error) {
	n, err := c.plan.nodeNamed(name)
	if err != nil {
		return Node{}, err
	}
	return c.plan.node(n), nil
}

func (p Plan) node(n NodePlan) Node {
	pid, _ := p.holder(n).running()
	node := Node{Name: n.Name, IP: p.nodeAddress(n), Uplink: n.Uplink, NetNS: p.netNSPath(n.Name), PID: pid, Root: p.nodePath(n),
		KubeletRoot: p.nodePath(n, "lib/kubelet"), ContainerdSocket: p.containerdSocket(n), CDI: p.nodePath(n, "run/cdi")}
	if n.Machine != "" {
		node.MachineRoot = p.nodePath(n, "machine")
	}
	return node
}

// Env is the environment for scripts, in the form of exec.Cmd.Env, for the first node.
func (c *Cluster) Env() []string {
	node := c.Nodes()[0]
	env := []string{
		"KUBECONFIG=" + c.Kubeconfig(),
		"KUBELET_ROOT=" + node.KubeletRoot,
		"CONTAINERD_SOCK=" + node.ContainerdSocket,
		// What ctr itself reads.
		"CONTAINERD_ADDRESS=" + node.ContainerdSocket,
		"CONTAINERD_NAMESPACE=k8s.io",
		"HOSTLER_SOCK=" + filepath.Join(node.KubeletRoot, "plugins/hostler.dev/dra.sock"),
		fmt.Sprintf("HOSTLER_METRICS=http://%s:%d/metrics", node.IP, metricsPort),
		"TEST_IMAGE=" + images.Busybox,
		"NODE_NETNS=" + node.NetNS,
		"WORLD_NETNS=" + c.WorldNetNS(),
	}
	if node.MachineRoot != "" {
		env = append(env,
			"MACHINE_ROOT="+node.MachineRoot,
			"NVML_LIBRARY="+filepath.Join(node.MachineRoot, "driver/usr/lib64/libnvidia-ml.so.1"),
			"NVML_CONTROL="+filepath.Join(node.MachineRoot, "driver/nvmlsim"))
	}
	return append(env, "PATH="+c.plan.Binaries+":"+filepath.Join(c.plan.Tree, "bin")+":"+os.Getenv("PATH"))
}

// WriteEnv writes Env as a file for a shell to source.
func (c *Cluster) WriteEnv(path string) error {
	var b strings.Builder
	fmt.Fprintf(&b, "# The environment of test cluster %s; source this file.\n", c.plan.Name)
	for _, variable := range c.Env() {
		name, value, _ := strings.Cut(variable, "=")
		if name == "PATH" {
			// The caller's own search path, not the one of whoever started the cluster.
			value = c.plan.Binaries + ":" + filepath.Join(c.plan.Tree, "bin")
			fmt.Fprintf(&b, "export PATH=%s:\"$PATH\"\n", quote(value))
			continue
		}
		fmt.Fprintf(&b, "export %s=%s\n", name, quote(value))
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("make the directory of %s: %w", path, err)
	}
	if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil {
		return fmt.Errorf("write the cluster's environment: %w", err)
	}
	return nil
}

// quote protects a value from the shell.
func quote(value string) string { return "'" + strings.ReplaceAll(value, "'", `'\''`) + "'" }
