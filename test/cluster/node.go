package cluster

// A node: network, mount and UTS namespaces with a containerd, a kubelet and a
// kube-proxy in them. Inside, the usual paths are usual; on the machine they lie
// below the node's own directory, so nodes share nothing and need no cleaning up
// beyond that directory:
//
//	<dir>/<node>/run  is  /run          <dir>/<node>/opt  is  /opt
//	<dir>/<node>/lib  is  /var/lib      <dir>/<node>/log  is  /var/log
//	<dir>/<node>/etc  holds what the node changes in /etc (an overlay)

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"text/template"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/hostler-dev/hostler/test/cluster/images"
)

//go:embed config
var configs embed.FS

// covered are the paths that a node has to itself, by the directory that stands for them.
var covered = []struct{ name, path string }{
	{"run", "/run"}, {"lib", "/var/lib"}, {"opt", "/opt"}, {"log", "/var/log"},
}

// cniPlugins are installed where runtimes and agents look for them.
var cniPlugins = []string{"bridge", "host-device", "host-local", "loopback", "macvlan", "multus", "static", "tuning"}

type bind struct{ From, To string }

// nodeValues is what the templates in config/ see.
type nodeValues struct {
	Plan                     Plan
	Node                     NodePlan
	Root, Cgroup, DNS, Pause string
	PodSubnet, PodSubnet6    string
	PodSubnets               string
	Keep, Cover              []bind
}

func (p Plan) nodeValues(n NodePlan) nodeValues {
	v := nodeValues{Plan: p, Node: n, Root: p.nodePath(n), Cgroup: p.cgroup(), DNS: p.dnsAddress(), Pause: images.Pause,
		PodSubnet: p.podSubnet(n), PodSubnet6: p.podSubnet6(n), PodSubnets: p.podSubnets()}
	keep := []string{p.Dir, p.Binaries}
	for _, c := range covered {
		v.Cover = append(v.Cover, bind{p.nodePath(n, c.name), c.path})
		for _, path := range keep {
			if below, ok := strings.CutPrefix(path, c.path+"/"); ok {
				v.Keep = append(v.Keep, bind{path, p.nodePath(n, c.name, below)})
			}
		}
	}
	if n.Machine != "" {
		v.Keep = append(v.Keep, bind{p.nodePath(n, "machine"), p.nodePath(n, "run", "machine")})
	}
	return v
}

// writeNode lays out the node's directory.
func (p Plan) writeNode(n NodePlan) error {
	if err := mountRun(p.nodePath(n, "run")); err != nil {
		return fmt.Errorf("lay out node %s: %w", n.Name, err)
	}
	dirs := []string{"run/netns", "run/cdi", "run/nri", "run/containerd", "run/hostler", "run/lock", "lib/kubelet", "lib/containerd", "lib/cni",
		"lib/hostler/bin", "opt/cni/bin", "log", "etc/cni/net.d", "etc/cdi", "etc/nri", "etc/containerd", "etc.work"}
	for _, dir := range dirs {
		if err := os.MkdirAll(p.nodePath(n, dir), 0o755); err != nil {
			return fmt.Errorf("lay out node %s: %w", n.Name, err)
		}
	}
	// What the machine itself has configured there is none of the node's business.
	for _, dir := range []string{"cni", "cdi", "nri", "containerd"} {
		if err := unix.Setxattr(p.nodePath(n, "etc", dir), "trusted.overlay.opaque", []byte("y"), 0); err != nil {
			return fmt.Errorf("hide the machine's /etc/%s from node %s: %w", dir, n.Name, err)
		}
	}
	files := map[string]string{"node.sh": "node.sh", "containerd.toml": "etc/containerd/config.toml", "kubelet.yaml": "kubelet.yaml",
		"kube-proxy.yaml": "kube-proxy.yaml", "pods.conflist": "etc/cni/net.d/10-pods.conflist"}
	for name, target := range files {
		if err := p.render(n, name, target); err != nil {
			return err
		}
	}
	if err := os.WriteFile(p.nodePath(n, "resolv.conf"), []byte("nameserver "+p.worldAddress()+"\n"), 0o644); err != nil {
		return fmt.Errorf("write the resolver of node %s: %w", n.Name, err)
	}
	for _, plugin := range cniPlugins {
		if err := install(filepath.Join(p.Binaries, plugin), p.nodePath(n, "opt/cni/bin", plugin)); err != nil {
			return fmt.Errorf("install the CNI plugin %s on node %s: %w", plugin, n.Name, err)
		}
	}
	if err := install(filepath.Join(p.Binaries, "nvidia-cdi-hook"), p.nodePath(n, "lib/hostler/bin/nvidia-cdi-hook")); err != nil {
		return fmt.Errorf("install nvidia-cdi-hook on node %s: %w", n.Name, err)
	}
	return nil
}

// mountRun has the node's /run be in memory, as it is on every machine. removeDirectory unmounts it.
func mountRun(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return fmt.Errorf("look what file system %s is on: %w", dir, err)
	}
	if fs.Type == unix.TMPFS_MAGIC {
		return nil
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755,size=1g"); err != nil {
		return fmt.Errorf("mount a tmpfs on %s: %w", dir, err)
	}
	return nil
}

func (p Plan) render(n NodePlan, name, target string) error {
	parsed, err := template.ParseFS(configs, "config/"+name+".tmpl")
	if err != nil {
		return fmt.Errorf("parse the template of %s: %w", name, err)
	}
	file, err := os.Create(p.nodePath(n, target))
	if err != nil {
		return fmt.Errorf("write %s of node %s: %w", name, n.Name, err)
	}
	if err := parsed.Execute(file, p.nodeValues(n)); err != nil {
		file.Close()
		return fmt.Errorf("fill in %s of node %s: %w", name, n.Name, err)
	}
	return file.Close()
}

// install copies a program; a link would break inside a pod that mounts only the target's directory.
func install(from, to string) error {
	source, err := os.Open(from)
	if err != nil {
		return err
	}
	defer source.Close()
	target, err := os.OpenFile(to, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	if _, err := io.Copy(target, source); err != nil {
		target.Close()
		return err
	}
	return target.Close()
}

// holder keeps the node's namespaces alive and is how everything else enters them.
func (p Plan) holder(n NodePlan) component {
	return component{plan: p, name: n.Name + "/holder", argv: []string{"nsenter", "--net=" + p.netNSPath(n.Name),
		"unshare", "--mount", "--uts", "--propagation", "private", "sh", p.nodePath(n, "node.sh")}}
}

// inNode is a component of the node's own namespaces.
func (p Plan) inNode(n NodePlan, holder int, name string, argv ...string) component {
	enter := []string{"nsenter", "--target=" + strconv.Itoa(holder), "--mount", "--uts", "--net", "--"}
	return component{plan: p, name: n.Name + "/" + name, argv: append(enter, argv...)}
}

// startRuntime starts the node up to its container runtime; it needs no API server.
func (p Plan) startRuntime(ctx context.Context, n NodePlan) error {
	holder, err := p.holder(n).start()
	if err != nil {
		return err
	}
	prepared := func(context.Context) error {
		_, err := os.Stat(p.nodePath(n, "prepared"))
		return err
	}
	if err := holder.await(ctx, 10*time.Second, prepared); err != nil {
		return err
	}
	pid, alive := p.holder(n).running()
	if !alive {
		return holder.failure(errors.New("ended"))
	}
	runtime, err := p.inNode(n, pid, "containerd", filepath.Join(p.Binaries, "containerd"), "--config", "/etc/containerd/config.toml").start()
	if err != nil {
		return err
	}
	return runtime.await(ctx, 30*time.Second, func(ctx context.Context) error { return dial(ctx, p.containerdSocket(n)) })
}

func (p Plan) containerdSocket(n NodePlan) string {
	return p.nodePath(n, "run/containerd/containerd.sock")
}

// dial succeeds once something speaks gRPC on the socket.
func dial(ctx context.Context, socket string) error {
	connection, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer connection.Close()
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	connection.Connect()
	for state := connection.GetState(); state != connectivity.Ready; state = connection.GetState() {
		if state == connectivity.TransientFailure || !connection.WaitForStateChange(ctx, state) {
			return fmt.Errorf("nothing answers on %s yet", socket)
		}
	}
	return nil
}

// kubeletPort is where the kubelet serves once it has its runtime.
const kubeletPort = "10250"

// startKubelet registers the node and returns when the API server calls it Ready.
func (p Plan) startKubelet(ctx context.Context, n NodePlan) error {
	pid, alive := p.holder(n).running()
	if !alive {
		return p.holder(n).failure(errors.New("ended"))
	}
	proxy := p.inNode(n, pid, "kube-proxy", filepath.Join(p.Binaries, "kube-proxy"), "--config="+p.nodePath(n, "kube-proxy.yaml"))
	if _, err := proxy.start(); err != nil {
		return err
	}
	kubelet, err := p.inNode(n, pid, "kubelet", filepath.Join(p.Binaries, "kubelet"),
		"--config="+p.nodePath(n, "kubelet.yaml"), "--kubeconfig="+p.kubeconfig(n.Name),
		"--node-ip="+p.nodeAddress(n)+","+p.nodeAddress6(n), "--hostname-override="+n.Name).start()
	if err != nil {
		return err
	}
	client, err := p.client()
	if err != nil {
		return err
	}
	return kubelet.await(ctx, 2*time.Minute, func(ctx context.Context) error {
		// One that was killed a moment ago has left a node behind that is Ready still.
		connection, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "tcp", net.JoinHostPort(p.nodeAddress(n), kubeletPort))
		if err != nil {
			return err
		}
		connection.Close()
		node, err := client.CoreV1().Nodes().Get(ctx, n.Name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		for _, condition := range node.Status.Conditions {
			if condition.Type == corev1.NodeReady && condition.Status != corev1.ConditionTrue {
				return errors.New(condition.Message)
			}
			if condition.Type == corev1.NodeReady && !slices.ContainsFunc(node.Spec.Taints, startUpTaint) {
				return nil
			}
		}
		return errors.New("the node still carries its start-up taints")
	})
}

// startUpTaint tells the node controller's own taints from those that a test has put on a node.
func startUpTaint(t corev1.Taint) bool { return strings.HasPrefix(t.Key, "node.kubernetes.io/") }
