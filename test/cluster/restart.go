package cluster

// Bad days of a node's own programs: they are killed as a crash kills them, and
// started again with what they left on disk. What they started lives on, as it does
// where an init system keeps only the program itself (KillMode=process).

import (
	"context"
	"errors"
	"fmt"
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
