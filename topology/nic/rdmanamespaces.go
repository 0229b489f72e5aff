package nic

// How the kernel shares RDMA devices between network namespaces, for those who look at
// the node. Who moves devices asks when it matters (netattach/rdma).

import (
	"errors"
	"fmt"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// RDMANamespacer tells how RDMA devices are shared between network namespaces.
type RDMANamespacer interface {
	// RDMANamespaces is "shared" or "exclusive", "" if the kernel has no RDMA.
	RDMANamespaces() (string, error)
}

// rdmaNamespaces does not ask a kernel in which ib_core is not loaded: that would have it
// look for the module, each time (net-pf-16-proto-20, netlink_create in net/netlink/af_netlink.c).
func (r *Reader) rdmaNamespaces() (string, error) {
	kernel, can := r.kernel.(RDMANamespacer)
	if _, err := os.Stat(r.sys.Path("class", "infiniband")); err != nil || !can {
		return "", nil //nolint:nilerr // without RDMA there is nothing to tell
	}
	return kernel.RDMANamespaces()
}

// RDMANamespaces implements RDMANamespacer. It is what `rdma system show netns` says.
func (Netlink) RDMANamespaces() (string, error) {
	mode, err := netlink.RdmaSystemGetNetnsMode()
	if errors.Is(err, unix.EPROTONOSUPPORT) { // ib_core, whose NETLINK_RDMA is, is not loaded
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("find out how RDMA devices are shared between network namespaces (RDMA_NLDEV_CMD_SYS_GET): %w", err)
	}
	return mode, nil
}
