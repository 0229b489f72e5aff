// Package driver is the kubelet plugin: it publishes this node's devices and
// prepares claims for them. It decides nothing itself. What is published is
// package publish's business, what a claim gets and how it is done is package
// claim's; here they meet the kubelet, the API server and the clock.
package driver

import (
	"context"
	"fmt"
	"net/netip"
	"path/filepath"
	"time"

	"k8s.io/apimachinery/pkg/api/validate/content"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	resourceclient "k8s.io/client-go/kubernetes/typed/resource/v1"
	"k8s.io/dynamic-resource-allocation/kubeletplugin"

	"github.com/hostler-dev/hostler/api/v1alpha1"
	"github.com/hostler-dev/hostler/driver/cdi"
	"github.com/hostler-dev/hostler/driver/claim"
	"github.com/hostler-dev/hostler/driver/gpu"
	"github.com/hostler-dev/hostler/driver/publish"
	"github.com/hostler-dev/hostler/driver/vfio"
	"github.com/hostler-dev/hostler/netattach"
	"github.com/hostler-dev/hostler/netattach/attach"
	"github.com/hostler-dev/hostler/topology"
)

// Name of the DRA driver.
const Name = publish.DriverName

// Attacher brings home what a claim has in network namespaces.
type Attacher = claim.Attacher

// NetworkResolver looks up a NetworkAttachmentDefinition and makes its CNI
// configuration for a device.
type NetworkResolver = claim.NetworkResolver

// Recorder takes the driver's measurements. A nil error is a success.
type Recorder interface {
	ObservePrepare(duration time.Duration, err error)
	ObserveUnprepare(duration time.Duration, err error)
	// ObserveStep takes one part of a claim's work, see claim.RunnerConfig.Observe;
	// "fetch" is the claim's way from the API server, "status" that of what became of it to there.
	ObserveStep(step, phase string, duration time.Duration, err error)
	ObserveReconcile(duration time.Duration, err error)
	ObservePublish(duration time.Duration, err error)
	// CountMended counts what was put right, SetDrift says how much could not be, by
	// the words of claim.Drift.
	CountMended(what string)
	SetDrift(what string, found int)
}

// Events takes events about the node; record.EventRecorder is one.
type Events interface {
	Event(object runtime.Object, eventType, reason, message string)
}

// Config is what a Driver works with. All fields without a default must be set.
type Config struct {
	NodeName   string
	KubeClient kubernetes.Interface
	// Paths with their defaults set.
	Paths v1alpha1.PathsConfig
	// Front takes the kubelet's calls. A Driver that only releases needs none.
	Front *Front
	// BootID of the running machine.
	BootID string
	// Journal of claims, opened by OpenJournal below.
	Journal  *claim.Journal
	Attacher Attacher
	Networks NetworkResolver
	Recorder Recorder
	// Resolvers returns the addresses of the cluster's DNS service; nil, and not
	// merely none, while they are not known. Default: none.
	Resolvers func() []netip.Addr
	// NodeAddresses returns those by which the cluster knows the node; scopes deny
	// them, so none is prepared while it returns none. Nil: scopes deny none.
	NodeAddresses func() []netip.Addr
	// Features returns which optional parts of the resource API the API server has,
	// false while that is not known: nothing is published until then. Call
	// Republish when the answer has changed. Nil: those that Kubernetes 1.37 has by default.
	Features func() (publish.Features, bool)
	// PublishFailed, if set, is called when slices could not be written, or not with
	// all that is in them: the API server may have lost a feature. It must not block.
	PublishFailed func()
	// Publish says in which form devices are offered, with defaults set.
	Publish v1alpha1.PublishConfig
	// Partitioner cuts GPUs. Nil: claims for partitions are refused.
	Partitioner gpu.Partitioner
	// LetGo runs an action while the agent has the GPU at a PCI address not open, and
	// opens the driver anew after it, see nvml.Source. Nil: the agent never has any open.
	LetGo func(ctx context.Context, pci string, action func(context.Context) error) error
	// Settled reports whether what earlier claims left of the netdev of a PCI function is in
	// order, see claim.Admission. Nil: it is.
	Settled func(ctx context.Context, pci string) (bool, error)
	// HostState returns a netdev with its state on the host as it is now, see
	// claim.Admission. Nil: nobody reads it.
	HostState func(netattach.DeviceIntent) (netattach.DeviceIntent, error)
	// VFs sets up VFs. Nil: claims for which something is set on a VF are refused.
	VFs claim.VFs
	// VFIO gives PCI functions to user space. Nil: the kernel's, at the Paths.
	VFIO *vfio.Bus
	// Uplinks returns, by name, why the node lives on those of the NICs that it
	// lives on now. Nil: what the snapshot says is trusted.
	Uplinks func(context.Context, []topology.NIC) (map[string]string, error)
	// Events, if set, is told what of the machine is not offered.
	Events Events
	// StatusClient writes claims' status. It should have a rate limit of its own, so
	// that no prepare waits for it. Nil: nobody is told what becomes of claims.
	StatusClient resourceclient.ResourceClaimsGetter
	// AttachRecords returns those of a claim's attachments, for its status.
	AttachRecords func(claim types.UID) ([]attach.Record, error)
	// Rescan, if set, is called when NICs came home and when partitions were made
	// or removed, so that discovery looks at once.
	Rescan func()
	// ReconcileInterval between full comparisons of what is with what should be. Default: 3 minutes.
	ReconcileInterval time.Duration
	// HealthInterval between health reports; the kubelet forgets after 30 seconds. Default: 10 seconds.
	HealthInterval time.Duration
}

// OpenJournal opens the journal where the paths say.
func OpenJournal(ctx context.Context, paths v1alpha1.PathsConfig) (*claim.Journal, error) {
	return claim.OpenJournal(ctx, journalPath(paths), cdi.Directory{Path: paths.CDI})
}

// Holders reads who holds which device from the journal on disk, without an
// agent and without changing anything.
func Holders(paths v1alpha1.PathsConfig) ([]claim.Holder, error) {
	journal, err := claim.ReadJournal(journalPath(paths))
	if err != nil {
		return nil, err
	}
	return claim.NewLedger(journal).Holders(), nil
}

func journalPath(paths v1alpha1.PathsConfig) string { return filepath.Join(paths.State, "journal") }

// check sets defaults and refuses what would fail later and less clearly.
func (cfg *Config) check() error {
	if cfg.ReconcileInterval == 0 {
		cfg.ReconcileInterval = 3 * time.Minute
	}
	if cfg.HealthInterval == 0 {
		cfg.HealthInterval = 10 * time.Second
	}
	if cfg.Resolvers == nil {
		cfg.Resolvers = func() []netip.Addr { return []netip.Addr{} }
	}
	if cfg.Features == nil {
		cfg.Features = func() (publish.Features, bool) {
			return publish.Features{Taints: true, Counters: true, SharedDevices: true}, true
		}
	}
	if cfg.VFIO == nil {
		cfg.VFIO = vfio.NewBus(vfio.BusConfig{Sys: cfg.Paths.Sys, Dev: cfg.Paths.Dev})
	}
	if cfg.Rescan == nil {
		cfg.Rescan = func() {}
	}
	if cfg.PublishFailed == nil {
		cfg.PublishFailed = func() {}
	}
	if faults := content.IsDNS1123Subdomain(cfg.NodeName); len(faults) > 0 {
		return fmt.Errorf("node name %q cannot be part of a resource pool's name: %s", cfg.NodeName, faults[0])
	}
	if longest := publish.DevicePool(cfg.NodeName); len(longest) > 253 {
		return fmt.Errorf("node name %q is too long: pool name %q has more than the 253 characters that the API allows", cfg.NodeName, longest)
	}
	return nil
}

// DeviceHealth is health's word on a device, for the status of the pods that hold it.
type DeviceHealth struct {
	// Device is its name; the pool follows from it.
	Device string
	Health kubeletplugin.HealthStatus
	// Message for a user: what is wrong, and what helps.
	Message string
}
