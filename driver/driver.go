// Driver answers the kubelet. Calls arrive in parallel and are not serialised;
// package claim knows which of them have to wait for each other.

package driver

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"sync"
	"time"

	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/dynamic-resource-allocation/kubeletplugin"
	"k8s.io/klog/v2"

	"github.com/hostler-dev/hostler/driver/cdi"
	"github.com/hostler-dev/hostler/driver/claim"
	"github.com/hostler-dev/hostler/driver/status"
	"github.com/hostler-dev/hostler/netattach/multus"
	"github.com/hostler-dev/hostler/topology/nic"
)

// Driver does what the kubelet asks for.
type Driver struct {
	cfg       Config
	runner    *claim.Runner
	ledger    *claim.Ledger
	steps     *claim.Steps
	directory cdi.Directory
	// reconcileNow asks for a reconciliation out of turn.
	reconcileNow chan struct{}

	// status is nil if nobody is told what becomes of claims.
	status *status.Writer

	machine   machine
	offers    offers
	describer describer
}

// New returns a Driver that does nothing yet.
func New(cfg Config) (*Driver, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	d := &Driver{
		cfg:          cfg,
		ledger:       claim.NewLedger(cfg.Journal),
		directory:    cdi.Directory{Path: cfg.Paths.CDI},
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
		VFIO:        cfg.VFIO,
		LetGo:       cfg.LetGo,
		RDMANodes:   func(device string) ([]string, error) { return nic.CharDevices(paths.Sys, paths.Dev, device) },
		DeviceInfo:  multus.DeviceInfo{Path: paths.DeviceInfo},
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
		Uplinks: cfg.Uplinks, Partitioner: cfg.Partitioner, VFs: cfg.VFs, VFIO: cfg.VFIO, Settled: cfg.Settled, HostState: cfg.HostState, Partitions: cfg.Publish.Partitions, Journal: cfg.Journal, BootID: cfg.BootID,
	}
	var observe func(step, phase string, duration time.Duration, err error)
	if cfg.Recorder != nil { // Release does without
		observe = cfg.Recorder.ObserveStep
	}
	var arrivals *claim.Arrivals
	if cfg.Front != nil {
		arrivals = &cfg.Front.arrivals
	}
	d.status = d.newStatus()
	d.runner = claim.NewRunner(claim.RunnerConfig{
		Journal: cfg.Journal, Plan: d.plan, Steps: d.steps.Of, Networks: cfg.Networks, Admit: admission.Admit, InUse: cfg.Attacher.InUse, BootID: cfg.BootID,
		Observe: observe, Arrivals: arrivals, Metadata: directory, Mended: d.mended, Drifted: d.drifted, Undone: d.undone, Prepared: d.prepared,
	})
	return d, nil
}

// drainLimit is how long the work of ended calls may hold up the end of Run. What
// is not over by then is cut off, as it would be by a crash.
const drainLimit = 30 * time.Second

// Run answers the kubelet, by way of the front, until ctx ends or something fails
// for good. After that nothing of the driver works on claims any more.
func (d *Driver) Run(ctx context.Context) error {
	working, stop := context.WithCancel(ctx)
	defer stop()
	d.tellRecoveries()
	failure := d.cfg.Front.serve(ctx, d)
	var loops sync.WaitGroup
	if failure == nil {
		loops.Go(func() { d.publish(working, d.cfg.Front) })
		loops.Go(func() { d.reconcile(working) })
		if d.status != nil {
			loops.Go(func() { d.status.Run(working) })
		}
		loops.Go(func() { d.checkpoint(working) })
		select {
		case <-ctx.Done():
		case failure = <-d.cfg.Front.failed:
		}
	}
	stop()
	failure = errors.Join(failure, d.cfg.Front.Close())
	loops.Wait()
	patience, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainLimit)
	defer cancel()
	failure = errors.Join(failure, d.runner.Drain(patience))
	if err := d.cfg.Journal.Checkpoint(); err != nil {
		// The next agent reads the slots, if it is not of an earlier version.
		klog.FromContext(ctx).Error(err, "The journal's file cannot be brought up to date at the end")
	}
	return failure
}

// PrepareResourceClaims is as in kubeletplugin.DRAPlugin.
func (d *Driver) PrepareResourceClaims(ctx context.Context, claims []*resourceapi.ResourceClaim) (map[types.UID]kubeletplugin.PrepareResult, error) {
	arrival := arrivalOf(ctx, d.runner)
	ctx, cancel := limited(ctx)
	defer cancel()
	if err := d.machine.awaitSnapshot(ctx); err != nil {
		return nil, err
	}
	results := make(map[types.UID]kubeletplugin.PrepareResult, len(claims))
	uids := make([]types.UID, len(claims))
	for i, c := range claims {
		uids[i] = c.UID
	}
	defer d.runner.Expect(uids...)()
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
		claim.LoggerFor(ctx, err).Error(err, "A claim cannot be prepared")
		return kubeletplugin.PrepareResult{Err: err}
	}
	d.note(entry)
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

// note has the machine know what the claim holds of what discovery does not see while
// it is held, nor at once when it is back: the claim may be over before anybody asks.
func (d *Driver) note(entry *claim.Entry) {
	if slices.ContainsFunc(entry.Devices, func(d claim.Device) bool { return d.NIC != nil || d.Partition != nil || d.VFIO != nil }) {
		d.publishInput(time.Now())
	}
}

// heldPatience is how long a prepare waits for a device that another claim still
// holds, or that is on its way home from one. The scheduler gives a device away as soon as
// the holder's pod was deleted, which with force is before the kubelet has unprepared its
// claim; and a kubelet that is refused comes back only after more than a minute.
const heldPatience = 15 * time.Second

func (d *Driver) prepareWhenFree(ctx context.Context, arrival claim.Arrival, c *resourceapi.ResourceClaim) (*claim.Entry, error) {
	patience := time.NewTimer(heldPatience)
	defer patience.Stop()
	for {
		changed, seen := d.cfg.Journal.Changed(), d.machine.watch()
		entry, err := d.runner.Prepare(ctx, arrival, c)
		var held *claim.HeldError
		switch {
		case errors.As(err, &held):
			// The holder may be a claim that was deleted while the agent was down.
			d.wantReconcile()
			klog.FromContext(ctx).V(2).Info("Waiting for another claim to let go of a device", "device", held.Device, "holder", klog.KRef(held.Namespace, held.Claim))
		case errors.Is(err, claim.ErrComingHome):
			klog.FromContext(ctx).V(2).Info("Waiting for a GPU to come back from user space", "reason", err.Error())
		case errors.Is(err, claim.ErrNetdevAway):
			klog.FromContext(ctx).V(2).Info("Waiting for a NIC to come home", "reason", err.Error())
		default:
			return entry, err
		}
		select {
		case <-changed:
		case <-seen:
		case <-patience.C:
			return nil, err
		case <-ctx.Done():
			return nil, err
		}
	}
}

// UnprepareResourceClaims is as in kubeletplugin.DRAPlugin.
func (d *Driver) UnprepareResourceClaims(ctx context.Context, claims []kubeletplugin.NamespacedObject) (map[types.UID]error, error) {
	ctx, cancel := limited(ctx)
	defer cancel()
	results := make(map[types.UID]error, len(claims))
	var mu sync.Mutex
	var all sync.WaitGroup
	for _, c := range claims {
		all.Go(func() {
			ctx := withClaim(ctx, c.Namespace, c.Name, c.UID)
			begin := time.Now()
			err := d.runner.Unprepare(ctx, c.UID)
			d.cfg.Recorder.ObserveUnprepare(time.Since(begin), err)
			if err != nil {
				klog.FromContext(ctx).Error(err, "A claim cannot be unprepared; the kubelet will try again")
			} else {
				klog.FromContext(ctx).V(2).Info("Unprepared a claim", "duration", time.Since(begin))
			}
			mu.Lock()
			defer mu.Unlock()
			results[c.UID] = err
		})
	}
	all.Wait()
	return results, nil
}

// undone has the machine looked at where a netdev may have come home. A look at
// the whole machine is not free, and GPUs do not go anywhere; when they are cut
// differently, the step that does it asks for a look.
func (d *Driver) undone(entry *claim.Entry) {
	if d.status != nil {
		d.status.Unprepared(entry.ClaimUID)
	}
	if slices.ContainsFunc(entry.Devices, func(device claim.Device) bool { return device.NIC != nil }) {
		d.cfg.Rescan()
	}
}

func (d *Driver) plan(c *resourceapi.ResourceClaim) (*claim.Entry, error) {
	snapshot, missing := withGPUs(d.machine.now(), d.inUserSpace())
	var addresses []netip.Addr
	if d.cfg.NodeAddresses != nil {
		addresses = d.cfg.NodeAddresses()
	}
	entry, err := claim.Plan(claim.PlanInput{
		Claim: c, NodeName: d.cfg.NodeName, Snapshot: snapshot, ComingHome: missing,
		Held: d.machine.held(d.ledger.Held(), time.Now()), Partitions: d.cfg.Publish.Partitions, MultusResourceNames: d.cfg.Publish.MultusResourceNames,
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

func arrivalOf(ctx context.Context, runner *claim.Runner) claim.Arrival {
	if arrival, ok := ctx.Value(arrivalKey{}).(claim.Arrival); ok {
		return arrival
	}
	return runner.Arrive()
}

func withClaim(ctx context.Context, namespace, name string, uid types.UID) context.Context {
	return klog.NewContext(ctx, klog.FromContext(ctx).WithValues("claim", klog.KRef(namespace, name), "claimUID", uid))
}
