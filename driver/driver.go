// Driver answers the kubelet. Calls arrive in parallel and are not serialised;
// package claim knows which of them have to wait for each other.

package driver

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/dynamic-resource-allocation/kubeletplugin"
	"k8s.io/klog/v2"

	"github.com/hostler-dev/hostler/driver/cdi"
	"github.com/hostler-dev/hostler/driver/claim"
)

// Driver implements kubeletplugin.DRAPlugin.
type Driver struct {
	cfg       Config
	runner    *claim.Runner
	ledger    *claim.Ledger
	steps     *claim.Steps
	directory cdi.Directory
	// fail ends Run; set while Run runs.
	fail func(error)
	// reconcileNow asks for a reconciliation out of turn.
	reconcileNow chan struct{}

	machine   machine
	offers    offers
	describer describer
	// helper is set while Run runs.
	helper atomic.Pointer[kubeletplugin.Helper]
}

var _ kubeletplugin.DRAPlugin = (*Driver)(nil)

// New returns a Driver that does nothing yet.
func New(cfg Config) (*Driver, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	d := &Driver{
		cfg:          cfg,
		ledger:       claim.NewLedger(cfg.Journal),
		directory:    cdi.Directory{Path: cfg.Paths.CDI},
		fail:         func(error) {},
		reconcileNow: make(chan struct{}, 1),
	}
	d.machine.changed = make(chan struct{})
	paths := cfg.Paths
	directory, err := cfg.metadataDirectory()
	if err != nil {
		return nil, err
	}
	d.steps = &claim.Steps{
		Metadata:    directory,
		Describe:    d.describe,
		Attacher:    cfg.Attacher,
		Directory:   d.directory,
		Snapshot:    d.machine.now,
		Partitioner: cfg.Partitioner,
		VFs:         cfg.VFs,
		GPUGone:     d.machine.gpuGone,
		GPUsSilent:  d.machine.driverSilent,
		Recut:       cfg.Rescan,
		BootID:      cfg.BootID,
		Specs: &cdi.Builder{
			GPUs: cdi.NewNVIDIA(cdi.NVIDIAConfig{
				DriverRoot: paths.DriverRoot, HostDriverRoot: paths.HostDriverRoot,
				Dev: paths.Dev, HostDev: paths.HostDev, Hook: paths.CDIHook,
			}),
			Gate: cdi.Gate{
				Path: paths.Gate, Socket: filepath.Join(paths.Run, "gate.sock"), Records: filepath.Join(paths.Run, "attached"),
			},
			Dev: paths.Dev, HostDev: paths.HostDev,
		},
	}
	admission := &claim.Admission{
		Uplinks: cfg.Uplinks, Partitioner: cfg.Partitioner, VFs: cfg.VFs, Partitions: cfg.Publish.Partitions, Journal: cfg.Journal, BootID: cfg.BootID,
	}
	var observe func(step, phase string, duration time.Duration, err error)
	if cfg.Recorder != nil { // Release does without
		observe = cfg.Recorder.ObserveStep
	}
	d.runner = claim.NewRunner(claim.RunnerConfig{
		Journal: cfg.Journal, Plan: d.plan, Steps: d.steps.Of, Networks: cfg.Networks, Admit: admission.Admit, InUse: cfg.Attacher.InUse, BootID: cfg.BootID,
		Observe: observe,
	})
	return d, nil
}

// Run serves the kubelet until ctx ends or something fails for good.
func (d *Driver) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var once sync.Once
	d.fail = func(err error) { once.Do(func() { cancel(err) }) }
	if err := os.MkdirAll(d.cfg.pluginDirectory(), 0o750); err != nil {
		return fmt.Errorf("create the plugin's directory: %w; check paths.kubeletPlugins in the agent's configuration", err)
	}
	client := prefetchClient{Interface: d.cfg.KubeClient, observe: d.cfg.Recorder.ObserveStep}
	helper, err := kubeletplugin.Start(ctx, d,
		kubeletplugin.DriverName(Name),
		kubeletplugin.NodeName(d.cfg.NodeName),
		kubeletplugin.KubeClient(client),
		kubeletplugin.PluginDataDirectoryPath(d.cfg.pluginDirectory()),
		kubeletplugin.RegistrarDirectoryPath(d.cfg.Paths.KubeletRegistry),
		kubeletplugin.Serialize(false),
		kubeletplugin.HealthService(true),
		kubeletplugin.GRPCInterceptor(d.numberArrivals),
		kubeletplugin.GRPCInterceptor(client.intercept),
	)
	if err != nil {
		return fmt.Errorf("start the kubelet plugin: %w; check paths.kubeletPlugins and paths.kubeletRegistry", err)
	}
	d.helper.Store(helper)
	klog.FromContext(ctx).Info("Serving the kubelet", "socket", filepath.Join(d.cfg.pluginDirectory(), "dra.sock"))
	var loops sync.WaitGroup
	loops.Go(func() { d.publish(ctx, helper) })
	loops.Go(func() { d.reconcile(ctx) })
	<-ctx.Done()
	helper.Stop()
	loops.Wait()
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// Registered returns nil once the kubelet has taken the plugin on, and else why it has not.
func (d *Driver) Registered() error {
	helper := d.helper.Load()
	if helper == nil {
		return errors.New("the plugin's sockets are not open yet")
	}
	switch status := helper.RegistrationStatus(); {
	case status == nil:
		return fmt.Errorf("the kubelet has not found the plugin yet; check that paths.kubeletRegistry (%s) is its directory", d.cfg.Paths.KubeletRegistry)
	case !status.PluginRegistered:
		return fmt.Errorf("the kubelet refused the plugin: %s", status.Error)
	}
	return nil
}

// PrepareResourceClaims implements kubeletplugin.DRAPlugin.
func (d *Driver) PrepareResourceClaims(ctx context.Context, claims []*resourceapi.ResourceClaim) (map[types.UID]kubeletplugin.PrepareResult, error) {
	arrival := arrivalOf(ctx, d.runner)
	if err := d.machine.awaitSnapshot(ctx); err != nil {
		return nil, err
	}
	results := make(map[types.UID]kubeletplugin.PrepareResult, len(claims))
	var mu sync.Mutex
	var all sync.WaitGroup
	for _, c := range claims {
		all.Go(func() {
			result := d.prepareOne(ctx, arrival, c)
			mu.Lock()
			defer mu.Unlock()
			results[c.UID] = result
		})
	}
	all.Wait()
	return results, nil
}

func (d *Driver) prepareOne(ctx context.Context, arrival claim.Arrival, c *resourceapi.ResourceClaim) kubeletplugin.PrepareResult {
	ctx = withClaim(ctx, c.Namespace, c.Name, c.UID)
	begin := time.Now()
	entry, err := d.prepareWhenFree(ctx, arrival, c)
	d.cfg.Recorder.ObservePrepare(time.Since(begin), err)
	if err != nil {
		klog.FromContext(ctx).Error(err, "A claim cannot be prepared")
		return kubeletplugin.PrepareResult{Err: err}
	}
	klog.FromContext(ctx).V(2).Info("Prepared a claim", "devices", len(entry.Devices), "duration", time.Since(begin))
	result := kubeletplugin.PrepareResult{}
	for i := range entry.Devices {
		device := &entry.Devices[i]
		result.Devices = append(result.Devices, kubeletplugin.Device{
			Requests: []string{device.Request}, PoolName: device.Pool, DeviceName: device.Name, ShareID: device.ShareID,
			CDIDeviceIDs: entry.CDIDeviceIDs(device),
		})
	}
	return result
}

// heldPatience is how long a prepare waits for a device that another claim still
// holds. The scheduler gives a device away as soon as the holder's pod was deleted,
// which with force is before the kubelet has unprepared its claim; and a kubelet
// that is refused comes back only after more than a minute.
const heldPatience = 15 * time.Second

func (d *Driver) prepareWhenFree(ctx context.Context, arrival claim.Arrival, c *resourceapi.ResourceClaim) (*claim.Entry, error) {
	patience := time.NewTimer(heldPatience)
	defer patience.Stop()
	for {
		changed := d.cfg.Journal.Changed()
		entry, err := d.runner.Prepare(ctx, arrival, c)
		var held *claim.HeldError
		if !errors.As(err, &held) {
			return entry, err
		}
		// The holder may be a claim that was deleted while the agent was down.
		d.wantReconcile()
		klog.FromContext(ctx).V(2).Info("Waiting for another claim to let go of a device", "device", held.Device, "holder", klog.KRef(held.Namespace, held.Claim))
		select {
		case <-changed:
		case <-patience.C:
			return nil, err
		case <-ctx.Done():
			return nil, err
		}
	}
}

// UnprepareResourceClaims implements kubeletplugin.DRAPlugin.
func (d *Driver) UnprepareResourceClaims(ctx context.Context, claims []kubeletplugin.NamespacedObject) (map[types.UID]error, error) {
	results := make(map[types.UID]error, len(claims))
	var mu sync.Mutex
	var all sync.WaitGroup
	for _, c := range claims {
		all.Go(func() {
			ctx := withClaim(ctx, c.Namespace, c.Name, c.UID)
			begin := time.Now()
			heldNIC := d.holdsNIC(c.UID)
			err := d.runner.Unprepare(ctx, c.UID)
			d.cfg.Recorder.ObserveUnprepare(time.Since(begin), err)
			if err != nil {
				klog.FromContext(ctx).Error(err, "A claim cannot be unprepared; the kubelet will try again")
			} else {
				klog.FromContext(ctx).V(2).Info("Unprepared a claim", "duration", time.Since(begin))
				if heldNIC {
					d.cfg.Rescan()
				}
			}
			mu.Lock()
			defer mu.Unlock()
			results[c.UID] = err
		})
	}
	all.Wait()
	return results, nil
}

// holdsNIC says whether unpreparing the claim may bring a netdev home. A look at
// the whole machine is not free, and GPUs do not go anywhere; when they are cut
// differently, the step that does it asks for a look.
func (d *Driver) holdsNIC(uid types.UID) bool {
	entry := d.cfg.Journal.Entry(uid)
	return entry != nil && slices.ContainsFunc(entry.Devices, func(device claim.Device) bool { return device.NIC != nil })
}

// HandleError implements kubeletplugin.DRAPlugin. The library calls those errors
// recoverable that it has in publishing slices, dropped fields among them, and
// tries again itself.
func (d *Driver) HandleError(ctx context.Context, err error, msg string) {
	klog.FromContext(ctx).Error(err, "The kubelet plugin reports a problem", "problem", msg)
	if !errors.Is(err, kubeletplugin.ErrRecoverable) {
		d.fail(fmt.Errorf("%s: %w", msg, err))
		return
	}
	d.cfg.PublishFailed()
}

func (d *Driver) plan(c *resourceapi.ResourceClaim) (*claim.Entry, error) {
	snapshot := d.machine.now()
	var addresses []netip.Addr
	if d.cfg.NodeAddresses != nil {
		addresses = d.cfg.NodeAddresses()
	}
	entry, err := claim.Plan(claim.PlanInput{
		Claim: c, NodeName: d.cfg.NodeName, Snapshot: snapshot,
		Held: d.machine.held(d.ledger.Held(), time.Now()), Partitions: d.cfg.Publish.Partitions,
		Resolvers: d.cfg.Resolvers(), NodeAddresses: addresses,
	})
	if err != nil {
		return nil, err
	}
	if entry.Egress != nil && d.cfg.NodeAddresses != nil && len(addresses) == 0 {
		return nil, fmt.Errorf("claim %s/%s: its egress scope denies the node's addresses, which the API server has not told yet; the kubelet tries again", c.Namespace, c.Name)
	}
	// The boot ID is the running machine's, also while no snapshot has been taken.
	entry.BootID = d.cfg.BootID
	return entry, nil
}

// arrivalKey is the context key of a call's number.
type arrivalKey struct{}

// numberArrivals gives each call its number before the helper reads claims
// from the API server.
func (d *Driver) numberArrivals(ctx context.Context, request any, _ *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
	return handle(context.WithValue(ctx, arrivalKey{}, d.runner.Arrive()), request)
}

func arrivalOf(ctx context.Context, runner *claim.Runner) claim.Arrival {
	if arrival, ok := ctx.Value(arrivalKey{}).(claim.Arrival); ok {
		return arrival
	}
	return runner.Arrive()
}

func withClaim(ctx context.Context, namespace, name string, uid types.UID) context.Context {
	return klog.NewContext(ctx, klog.FromContext(ctx).WithValues("claim", klog.KRef(namespace, name), "claimUID", uid))
}
