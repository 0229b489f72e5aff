package multus

// Running chains. libcni keeps the result and configuration of each ADD under
// the cache directory, so that DEL gets exactly what ADD had even if the
// definition has changed or this process was replaced.

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
	apitypes "k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"

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

// Add runs ADD and returns what the chain answered. If a plugin fails, DEL is run
// for the whole chain. What an earlier call has done is not done again.
func (c *Chain) Add(ctx context.Context, a Attachment) (netattach.NetworkState, error) {
	list, err := a.list()
	if err != nil {
		return netattach.NetworkState{}, err
	}
	done, err := c.cached(a, list.Name)
	if err != nil {
		return netattach.NetworkState{}, err
	}
	if done != nil && !a.owns(done) {
		return netattach.NetworkState{}, fmt.Errorf("%s: another network of this pod's claims has the same name in its spec.config (%s) and is attached as %s already, and plugins could not tell the two apart; give one of them another interfaceName", a, list.Name, done.IfName)
	}
	if done != nil {
		if result, err := c.cni.GetNetworkListCachedResult(list, a.runtime()); err == nil {
			return a.state(result)
		}
	}
	if a.Begun {
		c.deleteTraces(ctx, list, a)
	}
	klog.FromContext(ctx).V(4).Info("Running CNI chain", "network", a.Network.Namespace+"/"+a.Network.Name, "interface", a.InterfaceName())
	state, err := c.add(ctx, list, a)
	if err != nil {
		err = fmt.Errorf("CNI chain of %s failed for %s: %w", a, a.InterfaceName(), err)
		// What ended ADD, a timeout or the hook's end, must not end its undoing.
		if undo := c.del(context.WithoutCancel(ctx), list, a.runtime()); undo != nil {
			err = errors.Join(err, fmt.Errorf("and so did undoing it: %w", undo))
		}
		return netattach.NetworkState{}, err
	}
	if len(state.NameServers) > 0 {
		klog.FromContext(ctx).Info("A network has name servers, which its pod is not given: list them in the pod's dnsConfig if it should ask them", "network", a.Network.Namespace+"/"+a.Network.Name, "pod", klog.KRef(a.Pod.Namespace, a.Pod.Name), "nameServers", state.NameServers)
	}
	return state, nil
}

func (c *Chain) add(ctx context.Context, list *libcni.NetworkConfigList, a Attachment) (netattach.NetworkState, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	result, err := c.cni.AddNetworkList(ctx, list, a.runtime())
	if err != nil {
		return netattach.NetworkState{}, err
	}
	return a.state(result)
}

func (c *Chain) del(ctx context.Context, list *libcni.NetworkConfigList, runtime *libcni.RuntimeConf) error {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	return c.cni.DelNetworkList(ctx, list, runtime)
}

// cached is what libcni remembers of an ADD, of whomever, nil if nothing.
func (c *Chain) cached(a Attachment, network string) (*libcni.NetworkAttachment, error) {
	attachments, err := c.cni.GetCachedAttachments(a.SandboxID)
	if err != nil {
		return nil, fmt.Errorf("cannot read the CNI cache for sandbox %s: %w; check paths.cniCache", a.SandboxID, err)
	}
	for _, known := range attachments {
		if known.Network == network && known.IfName == a.InterfaceName() {
			return known, nil
		}
	}
	return nil, nil
}

// Del runs DEL for what the cache knows of as it was done, and for the traces of what
// it does not know but was begun. a.NetNS "" means that the namespace is gone, which
// plugins must take (CNI specification, DEL).
func (c *Chain) Del(ctx context.Context, a Attachment) error {
	attachments, err := c.cni.GetCachedAttachments(a.SandboxID)
	if err != nil {
		return fmt.Errorf("cannot read the CNI cache for sandbox %s: %w; check paths.cniCache", a.SandboxID, err)
	}
	found := false
	var faults []error
	for _, known := range attachments {
		if a.owns(known) && (ownerOf(known) == "" || known.IfName == a.InterfaceName()) {
			found = true
			faults = append(faults, c.forget(ctx, known, a.NetNS))
		}
	}
	if found || !a.Begun {
		return errors.Join(faults...)
	}
	list, err := a.list()
	if err != nil {
		return err
	}
	// If another network is in its place, its own ADD was refused for that.
	if known, err := c.cached(a, list.Name); err != nil || known != nil {
		return err
	}
	c.deleteTraces(ctx, list, a)
	return nil
}

// deleteTraces runs DEL where it is not known that there is anything to delete, so
// that it may fail.
func (c *Chain) deleteTraces(ctx context.Context, list *libcni.NetworkConfigList, a Attachment) {
	if err := c.del(context.WithoutCancel(ctx), list, a.runtime()); err != nil {
		klog.FromContext(ctx).V(2).Info("A CNI chain that may not have been run could not be undone", "network", a.Network.Namespace+"/"+a.Network.Name, "interface", a.InterfaceName(), "err", err)
	}
}

// forget runs DEL from the cache, which it leaves once that has succeeded.
func (c *Chain) forget(ctx context.Context, known *libcni.NetworkAttachment, netns string) error {
	list, err := libcni.NetworkConfFromBytes(known.Config)
	if err != nil {
		return fmt.Errorf("cached CNI configuration of %s: %w", known.Network, err)
	}
	runtime := &libcni.RuntimeConf{ContainerID: known.ContainerID, NetNS: netns, IfName: known.IfName, Args: known.CniArgs, CapabilityArgs: known.CapabilityArgs}
	if err := c.del(ctx, list, runtime); err != nil {
		return fmt.Errorf("CNI chain %s could not be undone for %s: %w; that is tried again, see that its plugins are in paths.cniBin and what they need is there", known.Network, known.IfName, err)
	}
	ipam := ipamOf(list)
	if netns != "" || ipam == nil {
		return nil
	}
	if err := c.del(ctx, ipam, runtime); err != nil {
		return fmt.Errorf("addresses of CNI chain %s could not be given back for %s: %w", known.Network, known.IfName, err)
	}
	return nil
}

// ipamOf is the IPAM plugin of a chain whose first plugin moves a device, nil if it has
// none. Without a namespace there is no device to move, and host-device and its like
// return before they have their addresses given back (plugins/main/host-device, cmdDel).
func ipamOf(list *libcni.NetworkConfigList) *libcni.NetworkConfigList {
	if len(list.Plugins) == 0 {
		return nil
	}
	first := list.Plugins[0]
	if !moves(first) || first.Network.IPAM.Type == "" {
		return nil
	}
	ipam := &libcni.PluginConfig{Network: &types.PluginConf{Type: first.Network.IPAM.Type}, Bytes: first.Bytes}
	return &libcni.NetworkConfigList{Name: list.Name, CNIVersion: list.CNIVersion, Plugins: []*libcni.PluginConfig{ipam}}
}

// Collect undoes what the cache knows of and nobody else does any more: a reboot
// takes the records of attachments away, and leaves what IPAM plugins keep on disk.
// wanted is asked after the cache was read; a claim of "" is any of the sandbox's.
// What others keep in the same directory is left alone.
func (c *Chain) Collect(ctx context.Context, wanted func(sandboxID string, claim apitypes.UID) (bool, error)) error {
	attachments, err := c.cni.GetCachedAttachments("")
	if err != nil {
		return fmt.Errorf("cannot read the CNI cache: %w; check paths.cniCache", err)
	}
	var faults []error
	for _, known := range attachments {
		if !isOurs(known) {
			continue
		}
		keep, err := wanted(known.ContainerID, claimOf(known))
		if err != nil {
			return err
		}
		if keep {
			continue
		}
		klog.FromContext(ctx).Info("Undoing a CNI chain of a sandbox that is gone", "network", known.Network, "sandbox", known.ContainerID)
		faults = append(faults, c.forget(ctx, known, ""))
	}
	return errors.Join(faults...)
}
