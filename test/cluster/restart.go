package cluster

// Bad days of a node's own programs: they are killed as a crash kills them, and
// started again with what they left on disk. What they started lives on, as it does
// where an init system keeps only the program itself (KillMode=process).

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"syscall"
	"time"
)

// KillKubelet ends the kubelet of a node with SIGKILL.
func (c *Cluster) KillKubelet(ctx context.Context, node string) error {
	return c.kill(ctx, node, "kubelet")
}

// StartKubelet starts the kubelet of a node unless it runs, and returns when the node is Ready.
func (c *Cluster) StartKubelet(ctx context.Context, node string) error {
	n, err := c.plan.nodeNamed(node)
	if err != nil {
		return err
	}
	return c.plan.startKubelet(ctx, n)
}

// RestartRuntime kills a node's containerd and starts it again. Containers live
// on: their shims are processes of their own.
func (c *Cluster) RestartRuntime(ctx context.Context, node string) error {
	if err := c.kill(ctx, node, "containerd"); err != nil {
		return err
	}
	n, err := c.plan.nodeNamed(node)
	if err != nil {
		return err
	}
	// Nothing answers on the socket that the killed one left behind, and the new one replaces it.
	return c.plan.startRuntime(ctx, n)
}

// WithoutNRI is what a node's runtime is restarted with for RestartRuntimeWith: no
// plugin hears of its sandboxes.
const WithoutNRI = "disabled_plugins = [\"io.containerd.nri.v1.nri\"]\n"

// RestartRuntimeWith is RestartRuntime with other settings before those of the
// cluster, as TOML; "" for the cluster's own.
func (c *Cluster) RestartRuntimeWith(ctx context.Context, node, settings string) error {
	n, err := c.plan.nodeNamed(node)
	if err != nil {
		return err
	}
	const file = "etc/containerd/config.toml"
	if err := c.plan.render(n, "containerd.toml", file); err != nil {
		return err
	}
	own, err := os.ReadFile(c.plan.nodePath(n, file))
	if err != nil {
		return fmt.Errorf("read the configuration of containerd: %w", err)
	}
	if err := os.WriteFile(c.plan.nodePath(n, file), append([]byte(settings), own...), 0o644); err != nil {
		return fmt.Errorf("write the configuration of containerd: %w", err)
	}
	if err := c.kill(ctx, node, "containerd"); err != nil {
		return err
	}
	// A runtime that never had NRI has no socket of it.
	if err := os.Remove(c.plan.nodePath(n, "run/nri/nri.sock")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the NRI socket: %w", err)
	}
	return c.plan.startRuntime(ctx, n)
}

// StopRuntime has a node's containerd do nothing until it is continued: whoever
// calls it waits.
func (c *Cluster) StopRuntime(node string) error {
	return c.signal(node, "containerd", syscall.SIGSTOP)
}

// ContinueRuntime ends that.
func (c *Cluster) ContinueRuntime(node string) error {
	return c.signal(node, "containerd", syscall.SIGCONT)
}

func (c *Cluster) signal(node, program string, signal syscall.Signal) error {
	n, err := c.plan.nodeNamed(node)
	if err != nil {
		return err
	}
	process := c.plan.inNode(n, 0, program)
	pid, alive := process.running()
	if !alive {
		return process.failure(errors.New("it does not run"))
	}
	if err := syscall.Kill(pid, signal); err != nil {
		return fmt.Errorf("send %s to %s: %w", signal, process.name, err)
	}
	return nil
}

// kill ends one program of a node and waits for its end.
func (c *Cluster) kill(ctx context.Context, node, program string) error {
	n, err := c.plan.nodeNamed(node)
	if err != nil {
		return err
	}
	victim := c.plan.inNode(n, 0, program)
	pid, alive := victim.running()
	if !alive {
		return victim.failure(errors.New("it does not run, so that it cannot be killed"))
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		return fmt.Errorf("kill %s: %w", victim.name, err)
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for alive {
		select {
		case <-ctx.Done():
			return fmt.Errorf("process %d of %s does not end: %w", pid, victim.name, ctx.Err())
		case <-tick.C:
			_, alive = victim.running()
		}
	}
	return os.Remove(victim.pidPath())
}

func (p Plan) nodeNamed(name string) (NodePlan, error) {
	i := slices.IndexFunc(p.Nodes, func(n NodePlan) bool { return n.Name == name })
	if i < 0 {
		return NodePlan{}, fmt.Errorf("cluster %s has no node %q", p.Name, name)
	}
	return p.Nodes[i], nil
}
