package main

// `hostler topology` takes one look at this machine and prints it. It needs no
// cluster; on a node with an agent the drawing also shows who holds what.

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/go-logr/logr"
	"github.com/spf13/cobra"
	"k8s.io/klog/v2"

	"github.com/hostler-dev/hostler/api/v1alpha1"
	"github.com/hostler-dev/hostler/topology"
	"github.com/hostler-dev/hostler/topology/host"
	"github.com/hostler-dev/hostler/topology/nvml"
)

var topologyOutputs = []string{"matrix", "tree", "svg", "json", "yaml"}

func newTopologyCommand() *cobra.Command {
	var flags configFlags
	var output string
	command := &cobra.Command{
		Use:   "topology",
		Short: "Print this machine: GPUs, NICs and how they are wired",
		Args:  cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			if !slices.Contains(topologyOutputs, output) {
				return fmt.Errorf("--output %q is not known; choose one of %s", output, strings.Join(topologyOutputs, ", "))
			}
			cfg, err := flags.load()
			if err != nil {
				return err
			}
			return printTopology(command.Context(), command.OutOrStdout(), cfg, output)
		},
	}
	command.Flags().StringVarP(&output, "output", "o", "matrix", strings.Join(topologyOutputs, "|"))
	flags.register(command.Flags())
	return command
}

func printTopology(ctx context.Context, out io.Writer, cfg *v1alpha1.AgentConfig, output string) error {
	// The node's story is the agent's to log; here it would stand between the reader and the drawing.
	ctx = klog.NewContext(ctx, klog.FromContext(ctx).V(1))
	gpus := nvml.NewSource(nvml.Config{LibraryPath: cfg.Paths.NVMLLibrary, DriverRoot: cfg.Paths.DriverRoot, CallTimeout: cfg.Discovery.CallTimeout.Duration})
	defer gpus.Close()
	marks := readMarks(ctx, cfg)
	observer := topology.NewObserver(topology.ObserverConfig{
		Hardware: host.New(host.Config{Sys: cfg.Paths.Sys, Dev: cfg.Paths.Dev, NodeAddresses: marks.nodeIPs}),
		GPUs:     gpus,
	})
	// What the agent would log is in the snapshot, as problems.
	snapshot := observer.Observe(klog.NewContext(ctx, logr.Discard()))
	switch output {
	case "tree":
		return topology.WriteTree(out, snapshot)
	case "svg":
		return topology.WriteSVG(out, snapshot, topology.SVGOptions{Title: cfg.NodeName, Holders: marks.holders, Faults: marks.faults})
	case "json":
		return topology.WriteJSON(out, snapshot)
	case "yaml":
		return topology.WriteYAML(out, snapshot)
	}
	return topology.WriteMatrix(out, snapshot)
}
