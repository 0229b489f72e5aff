package main

// `hostler release` takes back what claims have on this node while no agent
// serves it. It needs no API server and no kubelet.

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/go-logr/logr"
	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"

	"github.com/hostler-dev/hostler/api/v1alpha1"
	"github.com/hostler-dev/hostler/driver"
	"github.com/hostler-dev/hostler/driver/claim"
	"github.com/hostler-dev/hostler/netattach/attach"
	"github.com/hostler-dev/hostler/netattach/link"
	"github.com/hostler-dev/hostler/topology"
	"github.com/hostler-dev/hostler/topology/host"
	"github.com/hostler-dev/hostler/topology/nvml"
)

func newReleaseCommand() *cobra.Command {
	var flags configFlags
	var options driver.ReleaseOptions
	var uid string
	command := &cobra.Command{
		Use:   "release",
		Short: "Take back what claims have on this node, without an agent and without a cluster",
		Long: `Take back what claims have on this node: netdevs come home from pods, GPU partitions
that were made for claims are removed, CDI specs and the journal's entries too. It does
what an agent does when the kubelet unprepares a claim, needs neither API server nor
kubelet, and can be interrupted and repeated.

It runs as root in the node's own network namespace, with the configuration of the agent,
which must be stopped. Claims whose pods still run are left alone unless --force is given.
The exit status is 0 if nothing is left.`,
		Example: `  hostler release --dry-run
  hostler release --claim 6d8a4cb2-7c6d-4a3e-9d0e-b5a7f7f8f3d1`,
		Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			cfg, err := flags.load()
			if err != nil {
				return err
			}
			if err := setUpLogging(cfg.Logging); err != nil {
				return err
			}
			options.Claim = types.UID(uid)
			return runRelease(klog.NewContext(command.Context(), klog.Background()), command.OutOrStdout(), cfg, options)
		},
	}
	command.Flags().StringVar(&uid, "claim", "", "UID of the one claim to release")
	command.Flags().BoolVar(&options.DryRun, "dry-run", false, "say what would be released, and change nothing")
	command.Flags().BoolVar(&options.Force, "force", false, "take devices away from pods that still run")
	flags.register(command.Flags())
	return command
}

func runRelease(ctx context.Context, out io.Writer, cfg *v1alpha1.AgentConfig, options driver.ReleaseOptions) (err error) {
	journal, done, err := openForRelease(ctx, cfg, options.DryRun)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, done()) }()
	boot, err := bootID()
	if err != nil {
		return err
	}
	attacher, err := attach.New(attach.Config{
		Intents: claim.NewStore(journal), Run: cfg.Paths.Run, CNIBin: cfg.Paths.CNIBin, CNICache: cfg.Paths.CNICache,
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, attacher.Close()) }()
	gpus := nvml.NewSource(nvml.Config{LibraryPath: cfg.Paths.NVMLLibrary, DriverRoot: cfg.Paths.DriverRoot, CallTimeout: cfg.Discovery.CallTimeout.Duration})
	defer func() { err = errors.Join(err, gpus.Close()) }()
	vfs, err := link.NewVFs(link.VFsConfig{Sys: cfg.Paths.Sys})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, vfs.Close()) }()
	d, err := driver.New(driver.Config{NodeName: cfg.NodeName, Paths: cfg.Paths, BootID: boot, Journal: journal, Attacher: attacher, Partitioner: gpus, LetGo: gpus.LetGo, VFs: vfs})
	if err != nil {
		return err
	}
	options.Records = attacher.Records
	options.Look = func(ctx context.Context) *topology.Snapshot {
		ctx = klog.NewContext(ctx, logr.Discard()) // of the machine only what concerns a claim is said
		hardware := host.New(host.Config{Sys: cfg.Paths.Sys, Dev: cfg.Paths.Dev})
		return topology.NewObserver(topology.ObserverConfig{Hardware: hardware, GPUs: gpus}).Observe(ctx)
	}
	released, err := d.Release(ctx, options)
	return errors.Join(printReleased(out, released, options, boot), err)
}

// openForRelease opens the journal for this process alone, or a copy of it for a
// dry run, which may look while an agent runs.
func openForRelease(ctx context.Context, cfg *v1alpha1.AgentConfig, dryRun bool) (*claim.Journal, func() error, error) {
	if dryRun {
		directory, err := os.MkdirTemp("", "hostler-release-")
		if err != nil {
			return nil, nil, fmt.Errorf("make a directory for a copy of the journal: %w; set TMPDIR to one that can be written", err)
		}
		done := func() error { return os.RemoveAll(directory) }
		journal, err := driver.CopyJournal(ctx, cfg.Paths, directory)
		if err != nil {
			return nil, nil, errors.Join(err, done())
		}
		return journal, done, nil
	}
	lock, err := driver.SeizeState(cfg.Paths)
	if errors.Is(err, driver.ErrStateInUse) {
		return nil, nil, fmt.Errorf("%w by an agent, which releases claims itself, or by another release; stop it first (take the node out of the DaemonSet with a nodeSelector, or uninstall the chart), or use --dry-run", err)
	}
	if err != nil {
		return nil, nil, err
	}
	journal, err := driver.OpenJournal(ctx, cfg.Paths)
	if err != nil {
		return nil, nil, errors.Join(err, lock.Close())
	}
	return journal, lock.Close, nil
}

// printReleased lists each claim with its devices. The error says how many are left.
func printReleased(out io.Writer, released []driver.Released, options driver.ReleaseOptions, boot string) error {
	var text strings.Builder
	if len(released) == 0 {
		subject := "any claim"
		if options.Claim != "" {
			subject = "claim " + string(options.Claim)
		}
		fmt.Fprintf(&text, "Nothing of %s is on this node.\n", subject)
	}
	state, left := "released", 0
	if options.DryRun {
		state = "would be released"
	}
	for _, r := range released {
		if r.Err != nil {
			left++
			fmt.Fprintf(&text, "%s: LEFT: %v\n", r.Name(), r.Err)
		} else {
			fmt.Fprintf(&text, "%s: %s\n", r.Name(), state)
		}
		for _, line := range r.Devices(boot) {
			fmt.Fprintf(&text, "  %s\n", line)
		}
	}
	_, err := io.WriteString(out, text.String())
	if left > 0 {
		err = errors.Join(err, fmt.Errorf("%d of %d claims are left, for the reasons above; mend them and run this again", left, len(released)))
	}
	return err
}
