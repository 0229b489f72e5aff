// Package nri is the first door through which a sandbox reaches netattach: a
// plugin of the container runtime's Node Resource Interface. When a sandbox
// starts, its pod is attached; when it stops, everything comes home, while its
// network namespace still exists (containerd 2 tells plugins before it tears
// the network down, internal/cri/server/sandbox_stop.go). What the runtime did while
// no plugin was connected is made up for when one is, see synchronize.go.
//
// NRI serialises the hooks of all pods and skips a plugin that takes longer
// than its timeout, 2 s by default. So a hook does netlink only, waits for nobody
// longer than that and gives up with an error, which fails the sandbox, before the
// runtime gives up on it. CNI chains, which may take longer, go on behind the hook
// once the pod's egress rules are in force. What slips through meets the gate, where
// the pod's containers wait for the chains, too.
package nri

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/containerd/nri/pkg/api"
	nrilog "github.com/containerd/nri/pkg/log"
	"github.com/containerd/nri/pkg/stub"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"

	"github.com/hostler-dev/hostler/netattach"
	"github.com/hostler-dev/hostler/netattach/attach"
)

const (
	pluginName = "hostler"
	// pluginIndex orders plugins; nothing that comes before or after matters to us.
	pluginIndex = "10"
	// longestPause between attempts to reach a runtime that is being restarted.
	longestPause = 5 * time.Second
	// margin is what a hook leaves of the runtime's timeout for its answer.
	margin = 200 * time.Millisecond
)

// Attacher does the work; *attach.Attacher does.
type Attacher interface {
	Attach(ctx context.Context, sandbox attach.Sandbox) error
	AttachMissed(ctx context.Context, sandbox attach.Sandbox) error
	DetachSandbox(ctx context.Context, pod types.UID, sandboxID string) error
	Reconcile(ctx context.Context) error
}

// Config of Run. Attacher and Socket are required.
type Config struct {
	// Socket is the runtime's NRI socket.
	Socket   string
	Attacher Attacher
	// Living is told which sandboxes live. It may be nil.
	Living *attach.Living
	// Ready is told whether the runtime calls the plugin. It may be nil.
	Ready func(bool)
}

// Run serves the runtime until ctx is done, and connects again whenever the
// runtime went away.
func Run(ctx context.Context, cfg Config) error {
	if cfg.Ready == nil {
		cfg.Ready = func(bool) {}
	}
	if cfg.Living == nil {
		cfg.Living = &attach.Living{}
	}
	log := klog.FromContext(ctx)
	pause, told := 100*time.Millisecond, ""
	for ctx.Err() == nil {
		started := time.Now()
		err := serve(ctx, cfg)
		cfg.Living.Forget()
		cfg.Ready(false)
		if ctx.Err() != nil {
			break
		}
		if time.Since(started) > longestPause {
			pause, told = 100*time.Millisecond, ""
		}
		detail := 4
		if why := reason(err); why != told { // what is known already is not the node's story
			detail, told = 0, why
		}
		log.V(detail).Info("The container runtime's NRI is not connected; until it is, pods are attached by the gate", "socket", cfg.Socket, "reason", reason(err), "retryIn", pause)
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
		pause = min(2*pause, longestPause)
	}
	return nil //nolint:nilerr // the end of ctx is how Run is meant to end
}

func reason(err error) string {
	if err == nil {
		return "the runtime closed the connection"
	}
	return err.Error()
}

// serve is one connection, from registration to its end.
func serve(ctx context.Context, cfg Config) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	p := &plugin{cfg: cfg, ctx: ctx, closed: make(chan struct{}, 1)}
	defer p.background.Wait()
	defer cancel() // before the wait
	s, err := stub.New(p, stub.WithPluginName(pluginName), stub.WithPluginIdx(pluginIndex),
		stub.WithSocketPath(cfg.Socket),
		// One slow pod must not cost the others their hook. Failing a request on a
		// timeout is left off: it would fail pods that have no claim too, and those
		// that have one meet the gate.
		stub.WithFailurePolicy(&api.FailurePolicy{KeepConnected: true}),
		stub.WithLogger(quiet{klog.FromContext(ctx)}),
		stub.WithOnClose(func() {
			select {
			case p.closed <- struct{}{}:
			default:
			}
		}))
	if err != nil {
		return fmt.Errorf("cannot make an NRI plugin: %w", err)
	}
	p.timeout = s.RequestTimeout
	if err := s.Start(ctx); err != nil {
		return fmt.Errorf("cannot register with the runtime: %w; check that NRI is enabled in its configuration and paths.nri is its socket", err)
	}
	defer s.Stop()
	select {
	case <-ctx.Done():
	case <-p.closed:
	}
	return nil
}

// plugin implements the hooks that matter; the stub finds them by interface.
type plugin struct {
	cfg     Config
	ctx     context.Context
	timeout func() time.Duration
	closed  chan struct{}
	missed  missed
	// background is what Synchronize began.
	background sync.WaitGroup
}

// RunPodSandbox attaches the pod.
func (p *plugin) RunPodSandbox(ctx context.Context, pod *api.PodSandbox) error {
	ctx, cancel := p.bounded(ctx)
	defer cancel()
	p.missed.supersede(types.UID(pod.GetUid()), pod.GetId(), true)
	p.cfg.Living.Began(sandboxOf(pod))
	if err := p.cfg.Attacher.Attach(ctx, sandboxOf(pod)); err != nil {
		klog.FromContext(p.ctx).Error(err, "Refused a sandbox", "pod", klog.KRef(pod.GetNamespace(), pod.GetName()), "sandbox", pod.GetId())
		return fmt.Errorf("hostler: %w", err)
	}
	return nil
}

// StopPodSandbox brings everything home.
func (p *plugin) StopPodSandbox(ctx context.Context, pod *api.PodSandbox) error {
	return p.detach(ctx, pod)
}

// RemovePodSandbox is the only word of a sandbox that failed to start.
func (p *plugin) RemovePodSandbox(ctx context.Context, pod *api.PodSandbox) error {
	return p.detach(ctx, pod)
}

func (p *plugin) detach(ctx context.Context, pod *api.PodSandbox) error {
	// Its containers have been stopped before the runtime says so.
	defer p.cfg.Living.Ended(sandboxOf(pod))
	ctx, cancel := p.bounded(ctx)
	defer cancel()
	p.missed.supersede(types.UID(pod.GetUid()), pod.GetId(), false)
	if err := p.cfg.Attacher.DetachSandbox(ctx, types.UID(pod.GetUid()), pod.GetId()); err != nil {
		klog.FromContext(p.ctx).Error(err, "Could not bring everything home from a sandbox; that is tried again", "pod", klog.KRef(pod.GetNamespace(), pod.GetName()), "sandbox", pod.GetId())
		return fmt.Errorf("hostler: %w", err)
	}
	return nil
}

// bounded ends before the runtime's patience does, and carries the agent's logger.
func (p *plugin) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx = klog.NewContext(ctx, klog.FromContext(p.ctx))
	return context.WithTimeoutCause(ctx, max(p.timeout()-margin, margin), errors.New("the runtime's NRI timeout is near"))
}

// sandboxOf finds the network namespace; a pod without one is on the host's.
func sandboxOf(pod *api.PodSandbox) attach.Sandbox {
	sandbox := attach.Sandbox{ID: pod.GetId(), Pod: netattach.PodReference{
		UID: types.UID(pod.GetUid()), Namespace: pod.GetNamespace(), Name: pod.GetName()}}
	for _, namespace := range pod.GetLinux().GetNamespaces() {
		if namespace.GetType() == "network" {
			sandbox.NetNS = namespace.GetPath()
		}
	}
	return sandbox
}

// quiet sends the stub's chatter to the step level of our log.
type quiet struct{ log klog.Logger }

var _ nrilog.Logger = quiet{}

func (q quiet) Debugf(_ context.Context, format string, args ...any) {
	q.log.V(5).Info(fmt.Sprintf(format, args...))
}
func (q quiet) Infof(_ context.Context, format string, args ...any) {
	q.log.V(4).Info(fmt.Sprintf(format, args...))
}
func (q quiet) Warnf(_ context.Context, format string, args ...any) {
	q.log.Info(fmt.Sprintf(format, args...))
}
func (q quiet) Errorf(_ context.Context, format string, args ...any) {
	q.log.Info(fmt.Sprintf(format, args...))
}
