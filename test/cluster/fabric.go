package cluster

// The fabric is the namespace of the simulated NICs' other ends. One process per
// node watches over them there, because the kernel destroys a veth where it
// would return a physical netdev.

import (
	_ "embed"
	"fmt"
	"os"
	"strings"

	"github.com/hostler-dev/hostler/test/machine"
)

//go:embed config/returns.sh
var returnsScript string

const fabricBridge = "fabric"

func (p Plan) fabricWatch(n NodePlan) component {
	return component{plan: p, name: n.Name + "/returns", argv: []string{"ip", "netns", "exec", p.netNS("fabric"),
		"sh", "-c", returnsScript, "returns.sh", p.nodePath(n, "ports"), p.netNS(n.Name), fabricBridge}}
}

// startFabricWatch runs once the NICs are plugged.
func (p Plan) startFabricWatch(n NodePlan, profile *machine.Profile) error {
	var ports strings.Builder
	for _, port := range profile.Ports(n.index()) {
		fmt.Fprintf(&ports, "%s %s %d\n", port.Far, port.MAC, port.MTU)
	}
	if err := os.WriteFile(p.nodePath(n, "ports"), []byte(ports.String()), 0o644); err != nil {
		return fmt.Errorf("list the NICs of %s: %w", n.Name, err)
	}
	_, err := p.fabricWatch(n).start()
	return err
}
