package cluster

// The simulated hardware of nodes: the profile's directory tree, which appears
// in the node as /run/machine, and its NICs, whose far ends join one fabric, so
// that the NICs of two nodes reach each other and nothing else.

import (
	"context"
	"fmt"

	"github.com/hostler-dev/hostler/test/machine"
)

// uplink names the netdev that carries the node's default route, with its address if one is prescribed.
func uplink(n NodePlan) (name, mac string, err error) {
	if n.Machine == "" {
		return "eth0", "", nil
	}
	profile, err := machine.Load(n.Machine)
	if err != nil {
		return "", "", fmt.Errorf("node %s: %w", n.Name, err)
	}
	if profile.UplinkName() == "" {
		return "eth0", "", nil
	}
	return profile.UplinkName(), profile.UplinkMAC(n.index()).String(), nil
}

// index is how test/machine numbers the nodes of a cluster.
func (n NodePlan) index() int { return n.Number - 1 }

func (c *Cluster) createMachines(ctx context.Context) error {
	for _, n := range c.plan.Nodes {
		if n.Machine == "" {
			continue
		}
		profile, err := machine.Load(n.Machine)
		if err != nil {
			return fmt.Errorf("node %s: %w", n.Name, err)
		}
		rendered, err := machine.Render(profile, c.plan.nodePath(n, "machine"), machine.RenderOptions{NodeIndex: n.index(), IOMMU: true})
		if err != nil {
			return fmt.Errorf("node %s: %w", n.Name, err)
		}
		for _, note := range rendered.Notes {
			c.progress.say("    %s: %s", n.Name, note)
		}
		plug := machine.PlugOptions{NodeNetNS: c.plan.netNSPath(n.Name), FabricNetNS: c.plan.netNSPath("fabric"),
			FabricBridge: fabricBridge, NodeIndex: n.index()}
		if err := machine.Plug(ctx, profile, plug); err != nil {
			return fmt.Errorf("node %s: %w", n.Name, err)
		}
		if err := c.plan.startFabricWatch(n, profile); err != nil {
			return err
		}
	}
	return nil
}
