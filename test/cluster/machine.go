package cluster

// The simulated hardware of nodes. Until test/machine renders it, only plain nodes can be had.

import (
	"context"
	"fmt"
)

func uplink(n NodePlan) (name, mac string, err error) {
	if n.Machine != "" {
		return "", "", fmt.Errorf("node %s: no machine can be simulated yet, only plain nodes", n.Name)
	}
	return "eth0", "", nil
}

func (c *Cluster) createMachines(context.Context) error { return nil }
