package rdma

// What the kernel is asked. Requests that change a device are made by a thread in
// the device's own namespace: a socket that was opened there is not enough, because the
// kernel compares the namespace of the caller (rdma_dev_change_netns gets
// current->nsproxy->net_ns in ib_device_set_netns_put, drivers/infiniband/core/device.c).
// Every socket lives as long as its request.

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
	"k8s.io/klog/v2"

	"github.com/hostler-dev/hostler/netattach/internal/inside"
)

// Mode is how the kernel shares RDMA devices between network namespaces.
type Mode string

const (
	// Absent: the kernel has no RDMA, or none that knows namespaces.
	Absent Mode = "absent"
	// Shared: every device is in all namespaces.
	Shared Mode = "shared"
	// Exclusive: every device is in one.
	Exclusive Mode = "exclusive"
)

// Device is an RDMA device as the kernel lists it.
type Device struct {
	Index uint32
	Name  string
	// NodeGUID as sysfs writes it, "946d:ae03:0012:3456"; "" if it is not set.
	NodeGUID string
}

// Kernel is what is asked and done; namespaces are descriptors.
type Kernel interface {
	Mode(namespace int) (Mode, error)
	// Devices that processes in the namespace can use.
	Devices(namespace int) ([]Device, error)
	// Move fails with EOPNOTSUPP if the device's driver cannot, or no device can
	// because the node is shared.
	Move(from int, index uint32, to int) error
	Rename(namespace int, index uint32, name string) error
}

// Netlink is this machine's kernel.
type Netlink struct{}

// Mode is Absent where there is no NETLINK_RDMA, which is ib_core's.
func (Netlink) Mode(namespace int) (Mode, error) {
	messages, err := ask(namespace, modeRequest())
	if errors.Is(err, unix.EPROTONOSUPPORT) {
		return Absent, nil
	}
	if err != nil {
		return "", fmt.Errorf("cannot find out whether RDMA devices are shared between network namespaces: %w", err)
	}
	return decodeMode(messages)
}

// Devices lists none where the kernel has no RDMA.
func (Netlink) Devices(namespace int) ([]Device, error) {
	messages, err := ask(namespace, listRequest())
	if errors.Is(err, unix.EPROTONOSUPPORT) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return decodeDevices(messages)
}

func (Netlink) Move(from int, index uint32, to int) error {
	_, err := ask(from, moveRequest(index, to))
	return err
}

func (Netlink) Rename(namespace int, index uint32, name string) error {
	_, err := ask(namespace, renameRequest(index, name))
	return err
}

// ask sends a request from inside the namespace.
func ask(namespace int, request *nl.NetlinkRequest) (messages [][]byte, err error) {
	err = inside.Do(namespace, func() (err error) {
		messages, err = request.Execute(unix.NETLINK_RDMA, 0)
		return err
	})
	return messages, err
}

// toldMode is what the log has said of the node.
type toldMode struct {
	mu   sync.Mutex
	mode Mode
}

// Mode is how the node runs RDMA now. The log tells it when it is found out and
// whenever it has changed.
func (h *Host) Mode(ctx context.Context) (Mode, error) {
	mode, err := h.kernel.Mode(h.namespace)
	if err != nil {
		return "", err
	}
	h.told.mu.Lock()
	defer h.told.mu.Unlock()
	if h.told.mode != mode {
		h.told.mode = mode
		klog.FromContext(ctx).Info("Found out how the node shares RDMA devices between network namespaces", "mode", mode)
	}
	return mode, nil
}
