// Command pcibus serves the PCI bus of a simulated machine until it is ended. The
// test cluster runs one inside the namespaces of each node.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"

	"github.com/hostler-dev/hostler/test/machine"
	"github.com/hostler-dev/hostler/test/machine/pcibus"
	"github.com/hostler-dev/hostler/test/nvmlsim"
)

func main() {
	if err := serve(); err != nil {
		fmt.Fprintln(os.Stderr, "pcibus:", err)
		os.Exit(1)
	}
}

func serve() error {
	name := flag.String("machine", "", "the machine's profile")
	root := flag.String("root", "", "the folder in which it was rendered")
	node := flag.Int("node", 0, "the node index with which it was rendered")
	fabric := flag.String("fabric", "", "the network namespace of the NICs' far ends; the node's is the process's own")
	ready := flag.String("ready", "", "a file to make once the bus answers")
	flag.Parse()
	profile, err := machine.Load(*name)
	if err != nil {
		return err
	}
	functions := pcibus.FunctionsOf(profile, nvmlsim.Control{Dir: filepath.Join(*root, "driver/nvmlsim")},
		machine.PlugOptions{FabricNetNS: *fabric, NodeIndex: *node})
	bus, err := pcibus.New(pcibus.Config{Machine: *root, Functions: functions})
	if err != nil {
		return err
	}
	server, err := pcibus.Mount(bus)
	if err != nil {
		return err
	}
	if err := os.WriteFile(*ready, nil, 0o644); err != nil {
		return errors.Join(fmt.Errorf("say that the bus answers: %w", err), server.Unmount())
	}
	server.Wait()
	return nil
}
