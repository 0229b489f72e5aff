// Command hostler is the node agent and its tools. This package only parses
// flags and the config file and wires the rooms to each other; what they do is
// described in the packages driver, topology, health, metrics and netattach.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

// version is stamped by the build (-ldflags "-X main.version=…").
var version = "dev"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := newRootCommand().ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "hostler:", err)
		os.Exit(1)
	}
}

func newRootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:           "hostler",
		Short:         "Node agent for Kubernetes GPU nodes: GPUs, NICs and egress scopes through DRA, with metrics and health",
		Version:       version,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.AddCommand(newAgentCommand(), newTopologyCommand())
	return root
}
