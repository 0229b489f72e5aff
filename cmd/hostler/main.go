// Command hostler is the node agent and its tools. This package only parses
// flags and the config file and wires the rooms to each other; what they do is
// described in the packages driver, topology, health, metrics and netattach.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
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
	root.SetFlagErrorFunc(func(command *cobra.Command, err error) error {
		var unknown *pflag.NotExistError
		if errors.As(err, &unknown) {
			return fmt.Errorf("%w; `%s --help` lists the flags", err, command.CommandPath())
		}
		return err
	})
	root.AddCommand(newAgentCommand(), newTopologyCommand(), newReleaseCommand())
	return root
}
