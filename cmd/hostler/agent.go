package main

// The agent: each room is made once, here, and handed what it needs of the
// others. The order matters in two places. What was restored from disk (journal,
// verdicts) is in force before the first slice is published, and the two doors
// to pods' namespaces open only when the journal can answer for them. All of it is
// one turn of an agent, see service.go.

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/klog/v2"

	"github.com/hostler-dev/hostler/api/v1alpha1"
	"github.com/hostler-dev/hostler/driver"
	"github.com/hostler-dev/hostler/driver/apiserver"
	"github.com/hostler-dev/hostler/driver/claim"
	"github.com/hostler-dev/hostler/driver/publish"
	"github.com/hostler-dev/hostler/health"
	"github.com/hostler-dev/hostler/health/react"
	"github.com/hostler-dev/hostler/health/source"
	"github.com/hostler-dev/hostler/metrics"
	"github.com/hostler-dev/hostler/netattach"
	"github.com/hostler-dev/hostler/netattach/attach"
	"github.com/hostler-dev/hostler/netattach/gate"
	"github.com/hostler-dev/hostler/netattach/link"
	"github.com/hostler-dev/hostler/netattach/nri"
	"github.com/hostler-dev/hostler/topology"
	"github.com/hostler-dev/hostler/topology/host"
	"github.com/hostler-dev/hostler/topology/nic"
	"github.com/hostler-dev/hostler/topology/nvml"
	"github.com/hostler-dev/hostler/topology/uevent"
)

func newAgentCommand() *cobra.Command {
	var flags configFlags
	command := &cobra.Command{
		Use:   "agent",
		Short: "Serve this node: publish devices, prepare claims, measure, find faults",
		Args:  cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			cfg, err := flags.load()
			if err != nil {
				return err
			}
			if err := setUpLogging(cfg.Logging); err != nil {
				return err
			}
			return runAgent(command.Context(), cfg)
		},
	}
	flags.register(command.Flags())
	return command
}

// runAgent returns when ctx ends or when something fails that only a restart can mend.
func runAgent(ctx context.Context, cfg *v1alpha1.AgentConfig) error {
	logger := klog.Background()
	ctx = klog.NewContext(ctx, logger)
	logger.Info("Starting", "version", version, "node", cfg.NodeName)
	restConfig, err := clusterConfig(cfg.Kubeconfig)
	if err != nil {
		return err
	}
	lock, err := driver.ShareState(ctx, cfg.Paths)
	if err != nil {
		return err
	}
	defer lock.Close()
	client, err := newClient(restConfig)
	if err != nil {
		return err
	}
	return (&service{cfg: cfg, rest: restConfig, client: client, pod: types.UID(os.Getenv("POD_UID"))}).run(ctx)
}

// agent holds the rooms.
type agent struct {
	cfg      *v1alpha1.AgentConfig
	gpus     *nvml.Source
	observer *topology.Observer
	node     *nodeWatch
	front    *driver.Front
	driver   *driver.Driver
	// driverEnd is what the driver's Run returned. After an error, work on claims may go on.
	driverEnd error
	features  *apiserver.Prober
	attacher  *attach.Attacher
	gate      *gate.Server
	recorder  *metrics.Recorder
	hardware  *hardware
	doors     doors
	living    attach.Living
	engine    *health.Engine
	events    *source.NVML
	reactor   *react.Node
	exporter  *metrics.Exporter
	server    *metrics.Server
}

// newAgent makes the rooms for one turn.
func newAgent(ctx context.Context, s *service, front *driver.Front) (*agent, error) {
	cfg, client := s.cfg, s.client
	definitions, err := newDefinitions(s.rest)
	if err != nil {
		return nil, err
	}
	boot, err := bootID()
	if err != nil {
		return nil, err
	}
	if err := installHooks(cfg.Paths); err != nil {
		return nil, err
	}
	journal, err := driver.OpenJournal(ctx, cfg.Paths)
	if err != nil {
		return nil, err
	}
	recorder := metrics.NewRecorder()
	a := &agent{cfg: cfg, front: front, recorder: recorder, node: newNodeWatch(client, s.rest.Host, cfg.NodeName)}

	a.gpus = nvml.NewSource(nvml.Config{LibraryPath: cfg.Paths.NVMLLibrary, DriverRoot: cfg.Paths.DriverRoot, CallTimeout: cfg.Discovery.CallTimeout.Duration})
	a.hardware = &hardware{
		cfg:       host.Config{Sys: cfg.Paths.Sys, Dev: cfg.Paths.Dev, CNIConfig: cfg.Paths.CNIConfig},
		addresses: a.node.addresses, apiServers: a.node.apiServers,
	}
	a.observer = topology.NewObserver(topology.ObserverConfig{
		Hardware: a.hardware,
		GPUs:     a.gpus,
		Watchers: []topology.Watcher{nic.Watch, uevent.Watch, a.gpus.Watch},
		Interval: cfg.Discovery.PollInterval.Duration,
	})

	if a.attacher, err = attach.New(attach.Config{
		Intents: claim.NewStore(journal), Run: cfg.Paths.Run, CNIBin: cfg.Paths.CNIBin, CNICache: cfg.Paths.CNICache,
		Living:   &a.living,
		Withheld: journal.Withheld,
		Running:  func() (attach.Running, error) { return driver.RunningPods("/proc") },
		Attached: func(ctx context.Context, claim types.UID) error { return a.driver.Attached(ctx, claim) },
		Changed:  func(change attach.Change) { a.driver.AttachmentChanged(change) },
		Checked: func(pod netattach.PodReference, claim types.UID, wrong string) {
			a.driver.NetworksChecked(pod, claim, wrong)
		},
	}); err != nil {
		return nil, err
	}
	a.doors.Attacher, a.doors.recorder = a.attacher, recorder
	if a.gate, err = gate.Listen(gate.Config{Socket: filepath.Join(cfg.Paths.Run, "gate.sock"), Admitter: &a.doors}); err != nil {
		return nil, err
	}

	a.features = apiserver.NewProber(apiserver.ProberConfig{
		Client: client, NodeName: cfg.NodeName, Changed: func(publish.Features) { a.driver.Republish() },
	})
	events := react.NewRecorder(ctx, client, cfg.NodeName)
	vfs, err := link.NewVFs(link.VFsConfig{Sys: cfg.Paths.Sys})
	if err != nil {
		return nil, err
	}
	statusClient, err := newStatusClient(s.rest)
	if err != nil {
		return nil, err
	}
	if a.driver, err = driver.New(driver.Config{
		StatusClient: statusClient, AttachRecords: a.attacher.RecordsOf,
		NodeName: cfg.NodeName, KubeClient: client, Paths: cfg.Paths, Front: front, BootID: boot, Journal: journal,
		Attacher: a.attacher, Settled: a.attacher.Settled, HostState: a.attacher.HostState, Networks: networks{definitions}, Recorder: driverRecorder{recorder},
		Resolvers: a.node.resolvers, NodeAddresses: a.node.addresses, Rescan: a.observer.Rescan,
		Features: a.features.Features, PublishFailed: a.features.Again, Publish: cfg.Publish, Partitioner: a.gpus, LetGo: a.gpus.LetGo, VFs: vfs, Uplinks: a.hardware.Uplinks, Events: events,
	}); err != nil {
		return nil, err
	}
	a.living.Left = a.driver.SandboxEnded
	a.exporter = metrics.NewExporter(ctx, metrics.ExporterConfig{
		GPUs: a.gpus, Ledger: ledger{claim.NewLedger(journal)}, Recorder: recorder, Sys: cfg.Paths.Sys,
		PodResources: cfg.Paths.KubeletPodResources, Interval: cfg.Metrics.Interval.Duration,
	})
	if err := a.newHealth(ctx, client, events); err != nil {
		return nil, err
	}
	a.server, err = metrics.Listen(metrics.ServerConfig{Address: cfg.Metrics.Address, Page: a.exporter, Live: a.live(), Ready: a.ready(&s.succeeded)})
	return a, err
}

func (a *agent) newHealth(ctx context.Context, client kubernetes.Interface, events react.EventSink) error {
	a.events = source.NewNVML(source.NVMLConfig{Session: func() source.Session { return a.gpus }, OnXID: a.recorder.ObserveXID})
	a.reactor = react.NewNode(react.NodeConfig{
		Client: client, NodeName: a.cfg.NodeName, Events: events, Taint: *a.cfg.Health.NodeTaint,
	})
	engine, err := health.NewEngine(ctx, health.EngineConfig{
		Path:         filepath.Join(a.cfg.Paths.State, "health.json"),
		Rules:        health.Rules{RecoveryHoldDown: a.cfg.Health.RecoveryHoldDown.Duration, IgnoredXIDs: a.cfg.Health.IgnoredXIDs},
		Prober:       a.events,
		PollInterval: a.cfg.Health.PollInterval.Duration,
		InUserSpace:  a.driver.InUserSpace,
		OnVerdicts:   a.spread,
	})
	if err != nil {
		return err
	}
	a.engine = engine
	// The restored verdicts are known everywhere before the first publish.
	a.spread(engine.Verdicts())
	return nil
}

// spread hands the standing verdicts to everyone who acts on them.
func (a *agent) spread(verdicts []health.Verdict) {
	a.reactor.SetVerdicts(verdicts)
	a.exporter.SetFaults(faults(verdicts))
	devices := []react.Device{}
	if snapshot := a.observer.Snapshot(); snapshot != nil {
		devices = react.Devices(snapshot)
	}
	a.driver.SetVerdicts(taints(verdicts, devices), reports(verdicts, devices))
}

// follow hands each new snapshot to everyone who works with it.
func (a *agent) follow(ctx context.Context) error {
	snapshots, stop := a.observer.Subscribe()
	defer stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case snapshot := <-snapshots:
			a.engine.SetSnapshot(snapshot)
			a.exporter.SetSnapshot(snapshot)
			// Which NICs are uplinks is not certain before the node's addresses are
			// known, so nothing is published before.
			if !lacksNodeAddresses(snapshot) {
				a.driver.SetSnapshot(snapshot)
			}
			a.engine.Tell() // in order with the engine's own changes
		}
	}
}

// observe starts with the node's addresses, so that the first snapshot is a
// complete one wherever the API server answers.
func (a *agent) observe(ctx context.Context) error {
	a.node.ask(ctx)
	a.node.changed = a.observer.Rescan
	var both errgroup.Group
	both.Go(func() error { return a.node.run(ctx) })
	both.Go(func() error { return a.observer.Run(ctx) })
	return both.Wait()
}

func (a *agent) serveKubelet(ctx context.Context) error {
	a.driverEnd = a.driver.Run(ctx)
	return a.driverEnd
}

func (a *agent) run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, part := range []func(context.Context) error{
		a.server.Run, a.gate.Run, a.observe, a.engine.Run, a.reactor.Run, a.exporter.Run, a.serveKubelet, a.follow, a.homecoming,
		func(ctx context.Context) error {
			return nri.Run(ctx, nri.Config{Socket: a.cfg.Paths.NRI, Attacher: &a.doors, Living: &a.living, Ready: a.doors.connected.Store})
		},
		func(ctx context.Context) error { return a.events.Run(ctx, a.engine) },
		func(ctx context.Context) error { a.features.Run(ctx); return ctx.Err() },
	} {
		group.Go(func() error { return part(ctx) })
	}
	err := group.Wait()
	a.attacher.Wait() // the next agent must not work on the same pods beside this one
	return err
}

// bootID of the running machine.
func bootID() (string, error) {
	raw, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("reading the boot ID, without which old state cannot be told from new: %w", err)
	}
	return strings.TrimSpace(string(raw)), nil
}
