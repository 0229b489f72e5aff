package multus

// What is left in the cache of attachments that nobody has any more. GC, the verb that
// CNI 1.1.0 has for this, is not used: it has plugins delete everything of a network
// that it is not told to keep, and nobody knows here what a runtime, or a Multus with
// the same definition, has of the network on this node. DEL by the cache is of our own
// attachments alone.

import (
	"context"
	"errors"
	"strings"

	"github.com/containernetworking/cni/libcni"
	"golang.org/x/sys/unix"
	apitypes "k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"
)

// Keeper says which attachments somebody still has.
type Keeper interface {
	// Keeps is asked after the cache was read. A claim of "" is any of the sandbox's.
	Keeps(sandboxID string, claim apitypes.UID) (bool, error)
	// Take has the pod's attachments left alone by everybody else until leave is
	// called. What it Keeps is asked again then.
	Take(ctx context.Context, pod apitypes.UID) (leave func(), err error)
}

// Collect undoes what the cache knows of and nobody else does any more: a reboot takes
// the records of attachments away, and leaves what IPAM plugins keep on disk; and what
// could not be undone before is there, too. What others keep in the same directory is
// left alone. Its error names files of the cache that cannot be read.
func (c *Chain) Collect(ctx context.Context, keeper Keeper) error {
	attachments, err := c.attachments("")
	if err != nil {
		return err
	}
	faults := []error{c.damaged()}
	for _, known := range attachments {
		if !isOurs(known) {
			continue
		}
		keep, err := keeper.Keeps(known.ContainerID, claimOf(known))
		if err != nil {
			return err
		}
		if !keep {
			faults = append(faults, c.collect(ctx, known, keeper))
		}
	}
	return errors.Join(faults...)
}

// collect looks again once it is alone: a pod whose attachment failed may be attached
// anew in the same sandbox, with the same lease.
func (c *Chain) collect(ctx context.Context, known *libcni.NetworkAttachment, keeper Keeper) error {
	leave, err := keeper.Take(ctx, podOf(known))
	if err != nil {
		return err
	}
	defer leave()
	keep, err := keeper.Keeps(known.ContainerID, claimOf(known))
	if err != nil || keep {
		return err
	}
	if known, err = c.cached(known.ContainerID, known.Network, known.IfName); err != nil || known == nil {
		return err
	}
	klog.FromContext(ctx).Info("Undoing a CNI chain that nobody has any more", "network", known.Network, "sandbox", known.ContainerID, "interface", known.IfName)
	return c.forget(ctx, known, living(known.NetNS))
}

// living is the path if it still leads to a network namespace: there the interface is to
// be deleted before its address is given to somebody else. A path by a process's number may
// lead to another's by now.
func living(path string) string {
	var fs unix.Statfs_t
	if strings.HasPrefix(path, "/proc/") || unix.Statfs(path, &fs) != nil || fs.Type != unix.NSFS_MAGIC {
		return ""
	}
	return path
}
