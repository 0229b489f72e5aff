package cluster

// The PCI bus of a simulated machine answers from a process inside the node's
// namespaces (test/machine/pcibus), so that its mount is there before pods are and
// goes with the node. The program is of this tree, so it is built at each start.

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// busAnswers is a file that the node's bus makes when it is mounted.
const busAnswers = "pcibus.ready"

// pciBus is the bus of node n. The far ends of its NICs are found by a process that
// lives among them: the node does not see the machine's /run/netns.
func (p Plan) pciBus(n NodePlan, holder int) component {
	among, _ := p.fabricWatch(n).running()
	return p.inNode(n, holder, "pcibus", p.path("pcibus"), "--machine="+n.Machine, "--root="+machineMount, "--node="+strconv.Itoa(n.index()),
		fmt.Sprintf("--fabric=/proc/%d/ns/net", among), "--ready="+p.nodePath(n, busAnswers))
}

// servesPCI says whether the machine's kernel has FUSE; without it the bus stays a picture.
func servesPCI() bool {
	_, err := os.Stat("/dev/fuse")
	return err == nil
}

// buildPCIBus compiles the program if a node needs it.
func (p Plan) buildPCIBus(ctx context.Context) error {
	if !p.PCIBus {
		return nil
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-o", p.path("pcibus"), "./test/machine/pcibus/cmd/pcibus")
	cmd.Dir = p.Tree
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build the simulated PCI bus: %w\n%s", err, strings.TrimSpace(string(out)))
	}
	return nil
}

// startPCIBus returns when the node's bus answers.
func (p Plan) startPCIBus(ctx context.Context, n NodePlan) error {
	if !p.PCIBus || n.Machine == "" {
		return nil
	}
	pid, alive := p.holder(n).running()
	if !alive {
		return p.holder(n).failure(errors.New("ended"))
	}
	if _, alive := p.pciBus(n, pid).running(); alive {
		return nil
	}
	if err := os.RemoveAll(p.nodePath(n, busAnswers)); err != nil {
		return fmt.Errorf("start the PCI bus of %s: %w", n.Name, err)
	}
	bus, err := p.pciBus(n, pid).start()
	if err != nil {
		return err
	}
	return bus.await(ctx, 30*time.Second, func(context.Context) error {
		_, err := os.Stat(p.nodePath(n, busAnswers))
		return err
	})
}
