package multus

// Running chains. libcni keeps the result and configuration of each ADD under
// the cache directory, so that DEL gets exactly what ADD had even if the
// definition has changed or this process was replaced.

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
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
	cache   string
	timeout time.Duration
}

// New does not touch the directories; a missing plugin is found when it is run.
func New(cfg Config) *Chain {
	if cfg.Timeout == 0 {
		cfg.Timeout = 20 * time.Second
	}
	return &Chain{cni: libcni.NewCNIConfigWithCacheDir(cfg.Bin, cfg.Cache, &groupExec{}), cache: cfg.Cache, timeout: cfg.Timeout}
}

// Add runs ADD and returns what the chain answered. If a plugin fails, DEL is run
// for the whole chain. What an earlier call has done is not done again.
func (c *Chain) Add(ctx context.Context, a Attachment) (netattach.NetworkState, error) {
	list, err := a.list()
	if err != nil {
		return netattach.NetworkState{}, err
	}
	done, err := c.cached(a.SandboxID, list.Name, a.InterfaceName())
	if err != nil {
		return netattach.NetworkState{}, err
	}
	if done != nil && !a.owns(done) {
		return netattach.NetworkState{}, fmt.Errorf("%s: another network of this pod's claims has the same name in its spec.config (%s) and is attached as %s already, and plugins could not tell the two apart; give one of them another interfaceName", a, list.Name, done.IfName)
	}
	if done != nil && !isBegun(done) {
		if result, err := c.cni.GetNetworkListCachedResult(list, a.runtime()); err == nil {
			return a.state(result)
		}
	}
	if err := c.notReady(ctx, list, a); err != nil {
		return netattach.NetworkState{}, err
	}
	if a.Begun || done != nil {
		c.deleteTraces(ctx, list, a)
	}
	if err := c.begin(list, a); err != nil {
		return netattach.NetworkState{}, err
	}
	klog.FromContext(ctx).V(4).Info("Running CNI chain", "network", a.Network.Namespace+"/"+a.Network.Name, "interface", a.InterfaceName())
	state, err := c.add(ctx, list, a)
	if err != nil {
		err = fmt.Errorf("CNI chain of %s failed for %s: %w", a, a.InterfaceName(), err)
		// What ended ADD, a timeout or the hook's end, must not end its undoing.
		if undo := c.del(context.WithoutCancel(ctx), list, a.runtime()); undo != nil {
			err = errors.Join(err, fmt.Errorf("and so did undoing it, which is tried again: %w", undo))
		}
		return netattach.NetworkState{}, err
	}
	if state.DNS != nil {
		klog.FromContext(ctx).Info("A network has name servers or search domains, which its pod is not given: list them in the pod's dnsConfig if it should use them", "network", a.Network.Namespace+"/"+a.Network.Name, "pod", klog.KRef(a.Pod.Namespace, a.Pod.Name), "dns", *state.DNS)
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

// Del runs DEL for what the cache knows of as it was done, and for the traces of what
// it does not know but was begun. a.NetNS "" means that the namespace is gone, which
// plugins must take (CNI specification, DEL). What may never have been added and cannot
// be undone is no error: it stays in the cache, for Collect.
func (c *Chain) Del(ctx context.Context, a Attachment) error {
	attachments, err := c.attachments(a.SandboxID)
	if err != nil {
		return err
	}
	found := false
	var faults []error
	for _, known := range attachments {
		if a.owns(known) && (ownerOf(known) == "" || known.IfName == a.InterfaceName()) {
			found = true
			faults = append(faults, c.undo(ctx, known, a.NetNS))
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
	if known, err := c.cached(a.SandboxID, list.Name, a.InterfaceName()); err != nil || known != nil {
		return err
	}
	// Its file is gone or damaged. Should DEL fail, there is one to try again by.
	if err := c.begin(list, a); err != nil {
		return err
	}
	known, err := c.cached(a.SandboxID, list.Name, a.InterfaceName())
	if err != nil || known == nil {
		return err
	}
	return c.undo(ctx, known, a.NetNS)
}

// undo is forget, but holds nobody up for what may never have been added.
func (c *Chain) undo(ctx context.Context, known *libcni.NetworkAttachment, netns string) error {
	err := c.forget(ctx, known, netns)
	if err != nil && isBegun(known) {
		klog.FromContext(ctx).Error(err, "A CNI chain whose ADD did not succeed could not be undone; that is tried again with every look at what pods have", "network", known.Network, "interface", known.IfName, "sandbox", known.ContainerID)
		return nil
	}
	return err
}

// deleteTraces runs DEL before ADD where it is not known that there is anything to
// delete, so that it may fail.
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
	runtime := runtimeOf(known, netns)
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

// runtimeOf is what plugins were told on ADD.
func runtimeOf(known *libcni.NetworkAttachment, netns string) *libcni.RuntimeConf {
	told := slices.DeleteFunc(slices.Clone(known.CniArgs), func(argument [2]string) bool { return argument[0] == begunArgument })
	return &libcni.RuntimeConf{ContainerID: known.ContainerID, NetNS: netns, IfName: known.IfName, Args: told, CapabilityArgs: known.CapabilityArgs}
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
