package multus

// Running chains. libcni keeps the result and configuration of each ADD under
// the cache directory, so that DEL gets exactly what ADD had even if the
// definition has changed or this process was replaced.

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/version"
	"k8s.io/klog/v2"
	"k8s.io/utils/ptr"

	"github.com/hostler-dev/hostler/netattach"
)

// Config says where plugins and cache are.
type Config struct {
	// Bin are the directories of CNI plugins.
	Bin []string
	// Cache is libcni's directory; it must survive a restart of the agent.
	Cache string
	// Timeout bounds one Add and the DEL of one chain: a plugin that hangs must
	// not hang the node's other pods. Default: 20 s.
	Timeout time.Duration
}

// Chain runs CNI chains.
type Chain struct {
	cni     *libcni.CNIConfig
	timeout time.Duration
}

// New does not touch the directories; a missing plugin is found when it is run.
func New(cfg Config) *Chain {
	if cfg.Timeout == 0 {
		cfg.Timeout = 20 * time.Second
	}
	return &Chain{cni: libcni.NewCNIConfigWithCacheDir(cfg.Bin, cfg.Cache, &groupExec{}), timeout: cfg.Timeout}
}

// Attachment is one run of one chain.
type Attachment struct {
	SandboxID string
	// NetNS is a path; empty on DEL if the namespace is gone.
	NetNS string
	Pod   netattach.PodReference
	// Interface, MAC and Addresses are the device as it is in the pod already.
	Interface string
	MAC       string
	Addresses []netip.Prefix
	Network   netattach.NetworkIntent
}

// Add runs ADD. If a plugin fails, DEL is run for the whole chain.
func (c *Chain) Add(ctx context.Context, a Attachment) error {
	list, err := a.list()
	if err != nil {
		return err
	}
	if _, err := c.cni.GetNetworkListCachedResult(list, a.runtime()); err == nil && c.attached(a) {
		return nil // an earlier call has done it
	}
	klog.FromContext(ctx).V(4).Info("Running CNI chain", "network", a.Network.Namespace+"/"+a.Network.Name, "interface", a.Interface)
	if err := c.add(ctx, list, a.runtime()); err != nil {
		err = fmt.Errorf("CNI chain of NetworkAttachmentDefinition %s/%s failed for %s: %w", a.Network.Namespace, a.Network.Name, a.Interface, err)
		// What ended ADD, a timeout or the hook's end, must not end its undoing.
		if undo := c.del(context.WithoutCancel(ctx), list, a.runtime()); undo != nil {
			err = errors.Join(err, fmt.Errorf("and so did undoing it: %w", undo))
		}
		return err
	}
	return nil
}

func (c *Chain) add(ctx context.Context, list *libcni.NetworkConfigList, runtime *libcni.RuntimeConf) error {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	_, err := c.cni.AddNetworkList(ctx, list, runtime)
	return err
}

func (c *Chain) del(ctx context.Context, list *libcni.NetworkConfigList, runtime *libcni.RuntimeConf) error {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	return c.cni.DelNetworkList(ctx, list, runtime)
}

// attached says whether libcni remembers an ADD for this sandbox and interface.
func (c *Chain) attached(a Attachment) bool {
	attachments, err := c.cni.GetCachedAttachments(a.SandboxID)
	if err != nil {
		return false // then ADD is tried, and its error is the better one
	}
	for _, known := range attachments {
		if known.IfName == a.Interface && known.NetNS == a.NetNS {
			return true
		}
	}
	return false
}

// Del runs DEL for everything that was added for a sandbox, as the cache
// remembers it. netns replaces the path of that time; "" means that the
// namespace is gone, which plugins must take (CNI specification, DEL).
func (c *Chain) Del(ctx context.Context, sandboxID, netns string) error {
	attachments, err := c.cni.GetCachedAttachments(sandboxID)
	if err != nil {
		return fmt.Errorf("cannot read the CNI cache for sandbox %s: %w", sandboxID, err)
	}
	var faults []error
	for _, known := range attachments {
		list, err := libcni.NetworkConfFromBytes(known.Config)
		if err != nil {
			faults = append(faults, fmt.Errorf("cached CNI configuration of %s: %w", known.Network, err))
			continue
		}
		runtime := &libcni.RuntimeConf{ContainerID: known.ContainerID, NetNS: netns, IfName: known.IfName, Args: known.CniArgs, CapabilityArgs: known.CapabilityArgs}
		if err := c.del(ctx, list, runtime); err != nil {
			faults = append(faults, fmt.Errorf("CNI chain %s could not be undone for %s: %w", known.Network, known.IfName, err))
		}
	}
	return errors.Join(faults...)
}

func (a Attachment) runtime() *libcni.RuntimeConf {
	return &libcni.RuntimeConf{
		ContainerID: a.SandboxID, NetNS: a.NetNS, IfName: a.Interface,
		Args: [][2]string{
			{"IgnoreUnknown", "1"},
			{"K8S_POD_NAMESPACE", a.Pod.Namespace}, {"K8S_POD_NAME", a.Pod.Name},
			{"K8S_POD_UID", string(a.Pod.UID)}, {"K8S_POD_INFRA_CONTAINER_ID", a.SandboxID},
		},
	}
}

// list is the chain with the moved device as the first plugin's prevResult:
// from a chain's view, whoever moved the device was the plugin before it, and
// plugins such as tuning and sbr take the interface from there.
func (a Attachment) list() (*libcni.NetworkConfigList, error) {
	list, err := libcni.NetworkConfFromBytes(a.Network.Config)
	if err != nil {
		return nil, fmt.Errorf("CNI configuration of NetworkAttachmentDefinition %s/%s: %w", a.Network.Namespace, a.Network.Name, err)
	}
	// prevResult for every command came with 0.4.0, and Result's present form with 1.0.0.
	known, err := version.GreaterThanOrEqualTo(list.CNIVersion, "0.4.0")
	if err != nil {
		return nil, fmt.Errorf("CNI version %q of NetworkAttachmentDefinition %s/%s: %w", list.CNIVersion, a.Network.Namespace, a.Network.Name, err)
	}
	if !known {
		return list, nil
	}
	result, err := a.result().GetAsVersion(list.CNIVersion)
	if err != nil {
		return nil, fmt.Errorf("CNI version %s of NetworkAttachmentDefinition %s/%s: %w", list.CNIVersion, a.Network.Namespace, a.Network.Name, err)
	}
	raw, err := json.Marshal(result)
	if err != nil {
		return nil, err
	}
	var previous map[string]any
	if err := json.Unmarshal(raw, &previous); err != nil {
		return nil, err
	}
	list.Plugins[0], err = libcni.InjectConf(list.Plugins[0], map[string]any{"prevResult": previous})
	return list, err
}

func (a Attachment) result() types.Result {
	result := &current.Result{
		CNIVersion: current.ImplementedSpecVersion,
		Interfaces: []*current.Interface{{Name: a.Interface, Mac: a.MAC, Sandbox: a.NetNS}},
	}
	for _, prefix := range a.Addresses {
		address := net.IPNet{IP: prefix.Addr().AsSlice(), Mask: net.CIDRMask(prefix.Bits(), prefix.Addr().BitLen())}
		result.IPs = append(result.IPs, &current.IPConfig{Interface: ptr.To(0), Address: address})
	}
	return result
}
