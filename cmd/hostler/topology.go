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

const topologyOutputs = "matrix, tree, svg, dot, json, yaml"

func newTopologyCommand() *cobra.Command {
	var flags configFlags
	var output string
	var options topology.DrawOptions
	command := &cobra.Command{
		Use:   "topology",
		Short: "Print this machine: GPUs, NICs and how they are wired",
		Long: `Print this machine: GPUs, NICs and how they are wired. It needs no cluster; where
an agent and a cluster are in reach, the drawings also show who holds what and what is faulty.

  matrix  distances of all devices, as nvidia-smi topo -m prints them, with NICs
  tree    sockets, NUMA nodes, root complexes, switches and what hangs from them
  svg     a picture, for light and dark screens and for print
  dot     a graph for Graphviz
  json    the snapshot itself
  yaml    the same`,
		Example: "  hostler topology -o svg > node.svg",
		Args:    cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			if !slices.Contains(strings.Split(topologyOutputs, ", "), output) {
				return fmt.Errorf("--output %q is not known; choose one of %s", output, topologyOutputs)
			}
			cfg, err := flags.load()
			if err != nil {
				return err
			}
			return printTopology(command.Context(), command.OutOrStdout(), cfg, output, options)
		},
	}
	command.Flags().StringVarP(&output, "output", "o", "matrix", topologyOutputs)
	command.Flags().BoolVar(&options.VFs, "vfs", false, "show every VF in matrix and tree, instead of a count at its PF")
	command.Flags().BoolVar(&options.IOMMUGroups, "iommu-groups", false, "show IOMMU groups in the tree")
	flags.register(command.Flags())
	return command
}

func printTopology(ctx context.Context, out io.Writer, cfg *v1alpha1.AgentConfig, output string, options topology.DrawOptions) error {
	// The node's story is the agent's to log; here it would stand between the reader and the drawing.
	ctx = klog.NewContext(ctx, klog.FromContext(ctx).V(1))
	gpus := nvml.NewSource(nvml.Config{LibraryPath: cfg.Paths.NVMLLibrary, DriverRoot: cfg.Paths.DriverRoot, CallTimeout: cfg.Discovery.CallTimeout.Duration})
	defer gpus.Close()
	marks := readMarks(ctx, cfg)
	observer := topology.NewObserver(topology.ObserverConfig{
		Hardware: host.New(host.Config{
			Sys: cfg.Paths.Sys, Dev: cfg.Paths.Dev, CNIConfig: cfg.Paths.CNIConfig, NodeAddresses: marks.nodeIPs, APIServerAddresses: marks.apiServers,
		}),
		GPUs: gpus,
	})
	// What the agent would log is in the snapshot, as problems.
	snapshot := observer.Observe(klog.NewContext(ctx, logr.Discard()))
	options.Title, options.Holders, options.Faults = cfg.NodeName, marks.holders, marks.faults
	switch output {
	case "tree":
		return topology.WriteTree(out, snapshot, options)
	case "svg":
		return topology.WriteSVG(out, snapshot, options)
	case "dot":
		return topology.WriteDOT(out, snapshot, options)
	case "json":
		return topology.WriteJSON(out, snapshot)
	case "yaml":
		return topology.WriteYAML(out, snapshot)
	}
	return topology.WriteMatrix(out, snapshot, options)
}
