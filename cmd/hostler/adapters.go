package main

// Rooms do not know each other's types. Where one speaks to another, the words
// are translated here, one for one.

import (
	"context"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/dynamic-resource-allocation/kubeletplugin"

	"github.com/hostler-dev/hostler/driver"
	"github.com/hostler-dev/hostler/driver/claim"
	"github.com/hostler-dev/hostler/driver/publish"
	"github.com/hostler-dev/hostler/health"
	"github.com/hostler-dev/hostler/health/react"
	"github.com/hostler-dev/hostler/metrics"
	"github.com/hostler-dev/hostler/netattach/attach"
	"github.com/hostler-dev/hostler/topology"
	"github.com/hostler-dev/hostler/topology/host"
)

func taints(verdicts []health.Verdict, devices []react.Device) []publish.Taint {
	var list []publish.Taint
	for _, t := range react.Taints(verdicts, devices) {
		list = append(list, publish.Taint{Device: t.Device, Key: t.Key, Value: t.Value, Effect: t.Effect, TimeAdded: metav1.NewTime(t.TimeAdded)})
	}
	return list
}

func reports(verdicts []health.Verdict, devices []react.Device) []driver.DeviceHealth {
	var list []driver.DeviceHealth
	for _, r := range react.DeviceHealth(verdicts, devices) {
		list = append(list, driver.DeviceHealth{Device: r.Device, Health: kubeletplugin.HealthStatus(r.Condition), Message: r.Message})
	}
	return list
}

func faults(verdicts []health.Verdict) []metrics.Fault {
	var list []metrics.Fault
	for _, v := range verdicts {
		list = append(list, metrics.Fault{Device: v.Device, Family: string(v.Family), Reason: v.Reason, Severity: int(v.Severity)})
	}
	return list
}

// ledger shows the driver's ledger to the exporter.
type ledger struct{ claims *claim.Ledger }

func (l ledger) Changed() <-chan struct{} { return l.claims.Changed() }

func (l ledger) Holders() []metrics.Holder {
	var list []metrics.Holder
	for _, h := range l.claims.Holders() {
		holder := metrics.Holder{Device: h.Device, Pool: h.Pool, Request: h.Request, GPU: h.GPU, NIC: h.NIC, ClaimUID: string(h.ClaimUID),
			ClaimNamespace: h.ClaimNamespace, ClaimName: h.ClaimName, AdminAccess: h.AdminAccess}
		for _, p := range h.Pods {
			holder.Pods = append(holder.Pods, metrics.Pod{Namespace: p.Namespace, Name: p.Name, UID: string(p.UID)})
		}
		list = append(list, holder)
	}
	return list
}

func result(err error) string {
	if err != nil {
		return "error"
	}
	return "success"
}

// driverRecorder counts what the driver does.
type driverRecorder struct{ *metrics.Recorder }

func (r driverRecorder) ObservePrepare(d time.Duration, err error) {
	r.Recorder.ObservePrepare(result(err), d)
}
func (r driverRecorder) ObserveUnprepare(d time.Duration, err error) {
	r.Recorder.ObserveUnprepare(result(err), d)
}
func (r driverRecorder) ObserveStep(step, phase string, d time.Duration, err error) {
	r.Recorder.ObserveStep(step, phase, result(err), d)
}
func (r driverRecorder) ObserveReconcile(d time.Duration, err error) {
	r.Recorder.ObserveReconcile("claims", result(err), d)
}
func (r driverRecorder) CountMended(what string) { r.CountDrift(what) }
func (r driverRecorder) ObservePublish(d time.Duration, err error) {
	r.Recorder.ObservePublish(result(err), d)
}

// doors measures what comes in from sandboxes and passes it on.
type doors struct {
	*attach.Attacher
	recorder *metrics.Recorder
	// connected says whether the runtime calls our NRI hooks.
	connected atomic.Bool
}

func (d *doors) Attach(ctx context.Context, sandbox attach.Sandbox) error {
	begin := time.Now()
	err := d.Attacher.Attach(ctx, sandbox)
	d.recorder.ObserveHook("attach", result(err), time.Since(begin))
	return err
}

func (d *doors) DetachSandbox(ctx context.Context, pod types.UID, sandboxID string) error {
	begin := time.Now()
	err := d.Attacher.DetachSandbox(ctx, pod, sandboxID)
	d.recorder.ObserveHook("detach", result(err), time.Since(begin))
	return err
}

func (d *doors) Admit(ctx context.Context, container attach.Container, descriptor int) error {
	begin := time.Now()
	err := d.Attacher.Admit(ctx, container, descriptor)
	d.recorder.ObserveHook("admit", result(err), time.Since(begin))
	return err
}

// noAddresses is the subject of the problem that marks a snapshot as taken
// before the node's addresses were known.
const noAddresses = "node addresses"

// hardware reads the machine with what the API server says of the node.
type hardware struct {
	cfg                   host.Config
	addresses, apiServers func() []netip.Addr
	// lastRead is when the machine was last read, in Unix nanoseconds.
	lastRead atomic.Int64

	mu     sync.Mutex
	reader *host.Reader
}

func (h *hardware) ReadHardware(ctx context.Context) (topology.Hardware, error) {
	reader, known := h.current()
	read, err := reader.ReadHardware(ctx)
	h.lastRead.Store(time.Now().UnixNano())
	if !known {
		read.Problems = append(read.Problems, topology.Problem{Subject: noAddresses, Message: "the API server has not said yet by which addresses the cluster knows this node"})
	}
	return read, err
}

// Uplinks is the last look before a NIC is given away.
func (h *hardware) Uplinks(ctx context.Context, nics []topology.NIC) (map[string]string, error) {
	reader, _ := h.current()
	return reader.Uplinks(ctx, nics)
}

// current is the reader for the addresses that are known now, and whether any is.
func (h *hardware) current() (*host.Reader, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	node, servers := h.addresses(), h.apiServers()
	if h.reader == nil || !slices.Equal(node, h.cfg.NodeAddresses) || !slices.Equal(servers, h.cfg.APIServerAddresses) {
		h.cfg.NodeAddresses, h.cfg.APIServerAddresses = node, servers
		h.reader = host.New(h.cfg)
	}
	return h.reader, len(node) > 0
}

func lacksNodeAddresses(s *topology.Snapshot) bool {
	return slices.ContainsFunc(s.Problems, func(p topology.Problem) bool { return p.Subject == noAddresses })
}
