package multus

// CNI's verbs that change nothing: STATUS, whether a network's plugins could serve an
// ADD (since version 1.1.0), and CHECK, whether what an ADD made is still so (since
// 0.4.0).

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/version"
	"k8s.io/klog/v2"
)

// notReady is the error of plugins that say that they are not. Other errors are those of
// plugins that do not know the verb, and ADD has the last word.
func (c *Chain) notReady(ctx context.Context, list *libcni.NetworkConfigList, a Attachment) error {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	err := c.cni.GetStatusNetworkList(ctx, list)
	var said *types.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &said) && (said.Code == types.ErrPluginNotAvailable || said.Code == types.ErrLimitedConnectivity):
		return fmt.Errorf("network %s of %s is not ready on this node: %w; nothing was done, and that is tried again", list.Name, a, said)
	}
	klog.FromContext(ctx).V(2).Info("A CNI chain does not say whether it is ready", "network", a.Network.Namespace+"/"+a.Network.Name, "err", err)
	return nil
}

// Altered is what is not as an ADD left it with good reason, so that the plugins' CHECK
// would miss what they made.
type Altered struct {
	// The agent set DefaultRoutes of the pod, and the HardwareAddress of the device that
	// the chain brought.
	DefaultRoutes, HardwareAddress bool
	// Promiscuous: the interface is, because of a macvlan on top of it or a tcpdump.
	Promiscuous bool
}

// Check asks the plugins of an attachment whether it is as they made it, and returns
// what they say if it is not. Of a chain that cannot be asked nothing is said: one that
// has "disableCheck", or is of an older version, or would look for what was Altered.
func (c *Chain) Check(ctx context.Context, a Attachment, altered Altered) error {
	attachments, err := c.attachments(a.SandboxID)
	if err != nil {
		return err
	}
	at := slices.IndexFunc(attachments, func(known *libcni.NetworkAttachment) bool {
		return a.owns(known) && known.IfName == a.InterfaceName()
	})
	if at < 0 || isBegun(attachments[at]) {
		return fmt.Errorf("the CNI cache has nothing of %s for %s that can be read, so it will be undone by its configuration alone; see that nothing else writes to paths.cniCache", a, a.InterfaceName())
	}
	known := attachments[at]
	list, err := libcni.NetworkConfFromBytes(known.Config)
	if err != nil {
		return fmt.Errorf("cached CNI configuration of %s: %w", known.Network, err)
	}
	// Plugins compare the namespace's path with that of ADD. One that was attached by
	// the gate's descriptor had another.
	if asked, err := version.GreaterThanOrEqualTo(list.CNIVersion, "0.4.0"); err != nil || !asked || known.NetNS != a.NetNS {
		return err
	}
	runtime := runtimeOf(known, a.NetNS)
	result, err := c.cni.GetNetworkListCachedResult(list, runtime)
	if err != nil {
		return fmt.Errorf("cached result of %s: %w", known.Network, err)
	}
	if altered.HardwareAddress && Brings(a.Network) || altered.DefaultRoutes && hasDefaultRoute(result) {
		return nil
	}
	if altered.Promiscuous {
		list.Plugins = slices.DeleteFunc(list.Plugins, mindsPromiscuity)
	}
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	if err := c.cni.CheckNetworkList(ctx, list, runtime); err != nil {
		return fmt.Errorf("the plugins of %s find that %s is not as they made it: %w", a, a.InterfaceName(), err)
	}
	return nil
}

func hasDefaultRoute(answer types.Result) bool {
	result, err := current.NewResultFromResult(answer)
	if err != nil {
		return false
	}
	return slices.ContainsFunc(result.Routes, func(route *types.Route) bool {
		bits, _ := route.Dst.Mask.Size()
		return bits == 0
	})
}

// mindsPromiscuity: the plugin tuning finds an interface wrong that is promiscuous, and
// not because of its own configuration (plugins/meta/tuning, cmdCheck).
func mindsPromiscuity(plugin *libcni.PluginConfig) bool {
	var configured struct {
		Promiscuous bool `json:"promisc"`
	}
	return plugin.Network.Type == "tuning" && json.Unmarshal(plugin.Bytes, &configured) == nil && !configured.Promiscuous
}
