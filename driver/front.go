// Front is what the kubelet sees of an agent: the plugin's sockets, and the order
// in which calls came in. It is there before the Driver that does the work, since a
// successor registers while its predecessor still serves. Calls that come before the
// Driver are kept waiting, not refused: the kubelet tries again only after a minute.

package driver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/dynamic-resource-allocation/kubeletplugin"
	"k8s.io/dynamic-resource-allocation/resourceslice"
	"k8s.io/klog/v2"
	registerapi "k8s.io/kubelet/pkg/apis/pluginregistration/v1"

	"github.com/hostler-dev/hostler/api/v1alpha1"
	"github.com/hostler-dev/hostler/driver/claim"
)

// FrontConfig is what a Front works with. All fields without a default must be set.
type FrontConfig struct {
	NodeName   string
	KubeClient kubernetes.Interface
	// Paths with their defaults set.
	Paths v1alpha1.PathsConfig
	// PodUID of the agent's pod. It keeps its sockets apart from those of another
	// agent on the node. Empty: there is never another one.
	PodUID types.UID
	// Patience of a call for the Driver. Default: 40 seconds; the kubelet's own is 45.
	Patience time.Duration
}

// Front implements kubeletplugin.DRAPlugin.
type Front struct {
	cfg      FrontConfig
	helper   *kubeletplugin.Helper
	arrivals claim.Arrivals
	// registration is the kubelet's last word on it.
	registration atomic.Pointer[registerapi.RegistrationStatus]
	// failed has the first error that only a restart mends.
	failed chan error

	// served is closed once there is a driver.
	served chan struct{}
	driver *Driver

	mu sync.Mutex
	// calls in flight; quiet is closed, and not nil, while somebody waits for their end.
	calls int
	quiet chan struct{}
}

var _ kubeletplugin.DRAPlugin = (*Front)(nil)

// OpenFront registers with the kubelet and takes its calls.
func OpenFront(ctx context.Context, cfg FrontConfig) (*Front, error) {
	if cfg.Patience == 0 {
		cfg.Patience = 40 * time.Second
	}
	f := &Front{cfg: cfg, failed: make(chan error, 1), served: make(chan struct{})}
	directory := pluginDirectory(cfg.Paths)
	// Linux keeps socket paths in 108 bytes, the last of which is zero.
	if socket := filepath.Join(directory, socketName(cfg.PodUID)); len(socket) > 107 {
		return nil, fmt.Errorf("the socket path %s is longer than the 107 characters that Linux allows; set paths.kubeletPlugins to a shorter one", socket)
	}
	if err := os.MkdirAll(directory, 0o750); err != nil {
		return nil, fmt.Errorf("create the plugin's directory: %w; check paths.kubeletPlugins in the agent's configuration", err)
	}
	client := prefetchClient{Interface: cfg.KubeClient, observe: f.observeFetch}
	err := withSocketsLocked(ctx, cfg.Paths, func() (err error) {
		if err := sweepSockets(ctx, cfg.Paths); err != nil {
			return err
		}
		f.helper, err = kubeletplugin.Start(context.WithoutCancel(ctx), f,
			kubeletplugin.DriverName(Name),
			kubeletplugin.NodeName(cfg.NodeName),
			kubeletplugin.KubeClient(client),
			kubeletplugin.PluginDataDirectoryPath(directory),
			kubeletplugin.PluginSocket(socketName(cfg.PodUID)),
			kubeletplugin.RegistrarDirectoryPath(cfg.Paths.KubeletRegistry),
			kubeletplugin.RollingUpdate(cfg.PodUID),
			kubeletplugin.Serialize(false),
			kubeletplugin.HealthService(true),
			kubeletplugin.GRPCInterceptor(f.admit),
			kubeletplugin.GRPCInterceptor(client.intercept),
		)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("start the kubelet plugin: %w; check paths.kubeletPlugins and paths.kubeletRegistry", err)
	}
	klog.FromContext(ctx).Info("Serving the kubelet", "socket", filepath.Join(directory, socketName(cfg.PodUID)))
	return f, nil
}

// serve has d answer the calls, those that wait already included. It is called once.
func (f *Front) serve(ctx context.Context, d *Driver) error {
	if err := withSocketsLocked(ctx, f.cfg.Paths, func() error { return sweepSockets(ctx, f.cfg.Paths) }); err != nil {
		return err
	}
	if err := linkSocket(f.cfg.Paths, f.cfg.PodUID); err != nil {
		return err
	}
	f.driver = d
	close(f.served)
	return nil
}

// Close ends the plugin: calls in flight are cut off, and published slices stay as
// they are. It may be repeated.
func (f *Front) Close() error {
	f.helper.Stop()
	return unlinkSocket(f.cfg.Paths, f.cfg.PodUID)
}

// Registered returns nil once the kubelet has taken the plugin on, and else why it has not.
func (f *Front) Registered() error {
	switch status := f.registration.Load(); {
	case status == nil:
		return fmt.Errorf("the kubelet has not found the plugin yet; check that paths.kubeletRegistry (%s) is its directory", f.cfg.Paths.KubeletRegistry)
	case !status.PluginRegistered:
		return fmt.Errorf("the kubelet refused the plugin: %s", status.Error)
	}
	return nil
}

// Quiet waits until no call is in flight and the answers of the last ones are on
// their way.
func (f *Front) Quiet(ctx context.Context) error {
	f.mu.Lock()
	quiet := f.quiet
	if quiet == nil {
		quiet = make(chan struct{})
		if f.calls == 0 {
			close(quiet)
		} else {
			f.quiet = quiet
		}
	}
	f.mu.Unlock()
	select {
	case <-quiet:
	case <-ctx.Done():
		return fmt.Errorf("the kubelet's calls did not end: %w", context.Cause(ctx))
	}
	// Answers are written by the connection's own goroutine, and Stop of a gRPC
	// server does not wait for that.
	const written = 50 * time.Millisecond
	select {
	case <-time.After(written):
	case <-ctx.Done():
	}
	return nil
}

// admit notes each call before the library reads its claims from the API server,
// and keeps it until there is a driver. The kubelet's registration passes: it is
// given a second.
func (f *Front) admit(ctx context.Context, request any, _ *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
	switch request := request.(type) {
	case *registerapi.InfoRequest:
		return handle(ctx, request)
	case *registerapi.RegistrationStatus:
		f.registration.Store(request)
		return handle(ctx, request)
	}
	ctx = context.WithValue(ctx, arrivalKey{}, f.arrivals.Next())
	f.mu.Lock()
	f.calls++
	f.mu.Unlock()
	defer f.over()
	if err := f.awaitDriver(ctx); err != nil {
		return nil, err
	}
	return handle(ctx, request)
}

func (f *Front) over() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.calls--; f.calls == 0 && f.quiet != nil {
		close(f.quiet)
		f.quiet = nil
	}
}

func (f *Front) awaitDriver(ctx context.Context) error {
	select {
	case <-f.served:
		return nil
	default:
	}
	patience := time.NewTimer(f.cfg.Patience)
	defer patience.Stop()
	select {
	case <-f.served:
		return nil
	case <-patience.C:
		return status.Errorf(codes.Unavailable, "this agent of hostler waits for its turn: another one on the node, which it is to succeed, has not ended its work within %s; the kubelet tries again", f.cfg.Patience)
	case <-ctx.Done():
		return status.FromContextError(context.Cause(ctx)).Err()
	}
}

// PrepareResourceClaims implements kubeletplugin.DRAPlugin. Calls come in by admit,
// so that there is a driver.
func (f *Front) PrepareResourceClaims(ctx context.Context, claims []*resourceapi.ResourceClaim) (map[types.UID]kubeletplugin.PrepareResult, error) {
	return f.driver.PrepareResourceClaims(ctx, claims)
}

// UnprepareResourceClaims implements kubeletplugin.DRAPlugin.
func (f *Front) UnprepareResourceClaims(ctx context.Context, claims []kubeletplugin.NamespacedObject) (map[types.UID]error, error) {
	return f.driver.UnprepareResourceClaims(ctx, claims)
}

// WatchHealthStatus implements kubeletplugin.DRAPlugin. While there is no driver,
// it is another agent that reports.
func (f *Front) WatchHealthStatus(ctx context.Context, reports chan<- kubeletplugin.DeviceHealthReport) error {
	select {
	case <-ctx.Done():
		return nil
	case <-f.served:
		return f.driver.WatchHealthStatus(ctx, reports)
	}
}

// HandleError implements kubeletplugin.DRAPlugin. The library calls those errors
// recoverable that it has in publishing slices, dropped fields among them, and
// tries again itself.
func (f *Front) HandleError(ctx context.Context, err error, msg string) {
	klog.FromContext(ctx).Error(err, "The kubelet plugin reports a problem", "problem", msg)
	if !errors.Is(err, kubeletplugin.ErrRecoverable) {
		select {
		case f.failed <- fmt.Errorf("%s: %w", msg, err):
		default: // the first one ends the agent
		}
		return
	}
	select {
	case <-f.served:
		f.driver.cfg.PublishFailed()
	default: // nothing is published yet
	}
}

// PublishResources hands slices to the library.
func (f *Front) PublishResources(ctx context.Context, resources resourceslice.DriverResources) error {
	return f.helper.PublishResources(ctx, resources)
}

func (f *Front) observeFetch(step, phase string, duration time.Duration, err error) {
	f.driver.cfg.Recorder.ObserveStep(step, phase, duration, err)
}
