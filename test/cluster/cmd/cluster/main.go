// Command cluster starts, inspects and removes the test cluster: a real
// Kubernetes on this machine, with simulated GPU hardware. It is what
// `make cluster-up` and `make cluster-down` run.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/hostler-dev/hostler/test/cluster"
	"github.com/hostler-dev/hostler/test/cluster/binaries"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := command().ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "cluster:", err)
		os.Exit(1)
	}
}

// flags are shared by all subcommands.
type flags struct{ name, dir string }

func (f *flags) stateDir() string {
	if f.dir != "" {
		return f.dir
	}
	return cluster.StateDir(f.name)
}

func command() *cobra.Command {
	f := &flags{}
	root := &cobra.Command{
		Use:           "cluster",
		Short:         "A real Kubernetes for tests, on this machine, with simulated GPU hardware",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.PersistentFlags().StringVar(&f.name, "name", cluster.DefaultName, "name of the cluster; others can run beside it")
	root.PersistentFlags().StringVar(&f.dir, "dir", "", "directory of the cluster's state (default "+filepath.Dir(cluster.StateDir("x"))+"/<name>)")
	root.AddCommand(up(f), down(f), status(f), env(f), build(), loadImage(f), deploy(f))
	return root
}

func up(f *flags) *cobra.Command {
	var machine, envFile string
	var nodes int
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Start the cluster, or say that it is up",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			options := cluster.Options{Name: f.name, Dir: f.dir, Progress: cmd.OutOrStdout()}
			for i := range nodes {
				options.Nodes = append(options.Nodes, cluster.NodeOptions{Name: fmt.Sprintf("node%d", i+1), Machine: machine})
			}
			c, err := cluster.Start(cmd.Context(), options)
			if err != nil {
				return fmt.Errorf("%w\n(the command `down` removes what was started)", err)
			}
			if err := c.WriteEnv(envFile); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "To use it: . %s\n", envFile)
			return nil
		},
	}
	cmd.Flags().StringVar(&machine, "machine", "", "simulated machine of every node, a profile of test/machine; empty is a plain node")
	cmd.Flags().IntVar(&nodes, "nodes", 1, "number of worker nodes")
	cmd.Flags().StringVar(&envFile, "env-file", ".run/env", "where to write the environment variables to source")
	return cmd
}

func down(f *flags) *cobra.Command {
	return &cobra.Command{
		Use:   "down",
		Short: "Remove the cluster and everything it made",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			began := time.Now()
			if err := cluster.Down(cmd.Context(), f.stateDir()); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "cluster %s is down (%.1fs)\n", f.name, time.Since(began).Seconds())
			return nil
		},
	}
}

func status(f *flags) *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Say whether the cluster is whole; exit 1 if it is not",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := cluster.Open(f.stateDir())
			if err != nil {
				return err
			}
			if err := c.Check(cmd.Context()); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "cluster %s is up; state and logs are in %s\n", f.name, c.Dir())
			for _, n := range c.Nodes() {
				fmt.Fprintf(cmd.OutOrStdout(), "  %s at %s; enter it with: nsenter -t %d -n -m -u\n", n.Name, n.IP, n.PID)
			}
			return nil
		},
	}
}

func env(f *flags) *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "env",
		Short: "Print the environment variables of the cluster for a shell to source",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			c, err := cluster.Open(f.stateDir())
			if err != nil {
				return err
			}
			return c.WriteEnv(file)
		},
	}
	cmd.Flags().StringVar(&file, "file", "/dev/stdout", "where to write them")
	return cmd
}

func build() *cobra.Command {
	return &cobra.Command{
		Use:   "build",
		Short: "Build the cluster's programs without starting it, and print their directory",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			tree, err := binaries.Tree()
			if err != nil {
				return err
			}
			dir, err := binaries.Ensure(cmd.Context(), tree, "", func(what string, took time.Duration) {
				if took == 0 {
					fmt.Fprintln(cmd.ErrOrStderr(), what)
					return
				}
				fmt.Fprintln(cmd.ErrOrStderr(), what, took.Round(100*time.Millisecond))
			})
			if err != nil {
				return err
			}
			fmt.Fprintln(cmd.OutOrStdout(), dir)
			return nil
		},
	}
}

func loadImage(f *flags) *cobra.Command {
	return &cobra.Command{
		Use:   "load-image TAR",
		Short: "Import an image archive (OCI or docker) on every node",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := cluster.Open(f.stateDir())
			if err != nil {
				return err
			}
			archive, err := filepath.Abs(args[0])
			if err != nil {
				return fmt.Errorf("find %s: %w", args[0], err)
			}
			return c.LoadImage(cmd.Context(), archive)
		},
	}
}

func deploy(f *flags) *cobra.Command {
	var options cluster.DeployOptions
	cmd := &cobra.Command{
		Use:   "deploy",
		Short: "Install or upgrade the product from this tree's image and chart",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := cluster.Open(f.stateDir())
			if err != nil {
				return fmt.Errorf("%w; start one with: make cluster-up", err)
			}
			began := time.Now()
			if err := c.Deploy(cmd.Context(), options); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "hostler is ready on every node of cluster %s (%.1fs)\n", f.name, time.Since(began).Seconds())
			return nil
		},
	}
	cmd.Flags().StringVar(&options.Image, "image", "", "the image's archive, loaded into every node first")
	cmd.Flags().StringArrayVar(&options.Values, "set", nil, "further chart values, as in helm --set")
	return cmd
}
