// Package rdma moves RDMA devices between the host's network namespace and a
// pod's, on nodes whose kernel keeps each device in one namespace (`rdma system
// show netns` says "exclusive"). On others ("shared") a device stays where it is
// and whoever has its device nodes can use it.
//
// A device is moved in after its netdev and comes home before it. What is begun is in
// the intent beforehand: Remember says that the device will move and by what it is
// found again, and the caller records that before it calls Into. Then Home, or
// Restore where the pod's namespace is gone, puts it in order whatever happened
// in between. If a namespace ends, the kernel itself returns its devices.
//
// A device that cannot be moved cannot be used in the pod either: while the node is
// exclusive, opening its nodes from another namespace fails with EPERM (ib_uverbs_open
// in the kernel's drivers/infiniband/core/uverbs_main.c). So there is no falling back
// to sharing it, only to doing without, which the state says.
package rdma

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
	"k8s.io/klog/v2"

	"github.com/hostler-dev/hostler/api/v1alpha1"
	"github.com/hostler-dev/hostler/netattach"
)

// HostConfig says which namespace is the host's.
type HostConfig struct {
	// Namespace is a descriptor of it, which the caller keeps open. Default: the
	// process's own.
	Namespace *int
	// Kernel is asked. Default: this machine's, through netlink.
	Kernel Kernel
}

// Host is the host's network namespace.
type Host struct {
	kernel    Kernel
	namespace int
	own       bool
	told      toldMode
}

// NewHost opens the host's namespace.
func NewHost(cfg HostConfig) (*Host, error) {
	host := &Host{kernel: cmp.Or[Kernel](cfg.Kernel, Netlink{})}
	if cfg.Namespace != nil {
		host.namespace = *cfg.Namespace
		return host, nil
	}
	namespace, err := netns.GetFromPid(unix.Getpid())
	if err != nil {
		return nil, fmt.Errorf("cannot open the host's network namespace: %w", err)
	}
	host.namespace, host.own = int(namespace), true
	return host, nil
}

// Close releases the namespace that NewHost opened.
func (h *Host) Close() error {
	if h.own {
		return unix.Close(h.namespace)
	}
	return nil
}

// Remember returns the device with what becomes of its RDMA device, which depends
// on how the node runs RDMA now. Its error says why the claim's wish cannot be met.
func (h *Host) Remember(ctx context.Context, device netattach.DeviceIntent) (netattach.DeviceIntent, error) {
	if device.RDMA == nil {
		return device, nil
	}
	mode, err := h.Mode(ctx)
	if err != nil {
		return device, fmt.Errorf("%s: %w", device.Device, err)
	}
	// The intent is the journal's, which nobody changes.
	intent := *device.RDMA
	intent.Moves, intent.Fallback = false, ""
	device.RDMA = &intent
	move, err := moves(intent.Mode, mode)
	if err != nil {
		return device, fmt.Errorf("RDMA device %s (%s): %w", intent.Device, device.Device, err)
	}
	if move && ipoib(device) && !device.External {
		return device, h.stays(ctx, device, errIPoIB)
	}
	if !move || device.External {
		return device, nil
	}
	found, err := h.find(h.namespace, intent, false)
	if errors.Is(err, errNotFound) {
		return device, fmt.Errorf("RDMA device %s (%s) is not in the host's network namespace: some other program on the node took it, or it is on its way home from an earlier pod; see `rdma dev show`", intent.Device, device.Device)
	}
	if err != nil {
		return device, err
	}
	intent.Moves, intent.Device, intent.Index, intent.NodeGUID = true, found.Name, found.Index, found.NodeGUID
	return device, nil
}

// moves decides, see Remember.
func moves(asked v1alpha1.RDMAMode, node Mode) (bool, error) {
	switch {
	case asked == v1alpha1.RDMAExclusive && node == Absent:
		return false, errors.New("the claim asks for \"rdma: Exclusive\", and this node's kernel has no RDMA, or none that knows network namespaces (before 5.2); load ib_core, or set \"rdma: Auto\" in the NICConfig")
	case asked == v1alpha1.RDMAExclusive && node == Shared:
		return false, errors.New("the claim asks for \"rdma: Exclusive\", and this node shares RDMA devices between network namespaces; set \"options ib_core netns_mode=0\" in /etc/modprobe.d and reboot the node (or, before it has any pod, `rdma system set netns exclusive`), or set \"rdma: Shared\" in the NICConfig")
	case asked == v1alpha1.RDMAShared && node == Exclusive:
		return false, errors.New("the claim asks for \"rdma: Shared\", and on this node (`rdma system show netns` says \"exclusive\") a device that stays in the host's network namespace cannot be opened in a pod; set \"rdma: Auto\" or \"Exclusive\" in the NICConfig")
	}
	return node == Exclusive, nil
}

// Into moves the RDMA device into the pod's namespace if it is one that moves, and
// returns what became of it. A device that is there already stays.
func (h *Host) Into(ctx context.Context, pod int, device netattach.DeviceIntent) (*netattach.RDMAIntent, error) {
	if device.RDMA == nil {
		return nil, nil
	}
	intent := *device.RDMA
	device.RDMA = &intent
	if intent.Fallback != "" {
		return &intent, nil
	}
	err := h.into(ctx, pod, intent)
	switch {
	case err == nil:
		return &intent, nil
	case errors.Is(err, unix.EOPNOTSUPP):
		err = fmt.Errorf("its driver cannot change its network namespace (%w), and this node keeps RDMA devices in one namespace each, so the pod cannot use it; set \"rdma: None\" in the NICConfig, or run the node with `rdma system set netns shared`", err)
	case errors.Is(err, errNotFound) && device.External:
		err = errNotBrought
	case errors.Is(err, errNotFound):
		err = errGone
	default:
		return &intent, fmt.Errorf("cannot move RDMA device %s (%s) into the pod: %w", intent.Device, device.Device, err)
	}
	return &intent, h.stays(ctx, device, err)
}

// stays has the pod do without the device, if it may.
func (h *Host) stays(ctx context.Context, device netattach.DeviceIntent, why error) error {
	intent := device.RDMA
	if intent.Mode != v1alpha1.RDMAAuto {
		return fmt.Errorf("RDMA device %s (%s): %w", intent.Device, device.Device, why)
	}
	intent.Moves, intent.Fallback = false, why.Error()
	klog.FromContext(ctx).Info("A pod does without its RDMA device", "device", device.Device, "rdma", intent.Device, "reason", intent.Fallback)
	return nil
}

// ipoib reports whether the netdev is IPoIB's, by its address of 20 octets (RFC 4391).
func ipoib(device netattach.DeviceIntent) bool {
	address, err := net.ParseMAC(device.HostMAC)
	return err == nil && len(address) == 20
}

// Why a device is where a pod cannot use it. Of IPoIB see ipoib_add_port and ipoib_remove_one
// in the kernel's drivers/infiniband/ulp/ipoib/ipoib_main.c.
var (
	errIPoIB      = errors.New("its network interface is IPoIB's, which the kernel takes down and makes anew when the RDMA device changes its network namespace, so that a pod cannot be given both; unload ib_ipoib on the node and claims get the RDMA device without interface, or set \"rdma: None\" in the NICConfig")
	errNotBrought = errors.New("its network interface was attached by Multus, and it is not in the pod's network namespace beside it; add the CNI plugin rdma to the chain of the NetworkAttachmentDefinition, or set \"rdma: None\" in the NICConfig")
	errGone       = errors.New("it went away when its network interface moved into the pod, as those of software drivers do (rdma_rxe, siw); set \"rdma: None\" in the NICConfig")
)

func (h *Host) into(ctx context.Context, pod int, intent netattach.RDMAIntent) error {
	if !intent.Moves {
		return h.usable(pod, intent)
	}
	if _, err := h.find(pod, intent, true); !errors.Is(err, errNotFound) {
		return err
	}
	found, err := h.find(h.namespace, intent, true)
	if err != nil {
		return err
	}
	klog.FromContext(ctx).V(4).Info("Moving RDMA device into pod", "rdma", found.Name, "index", found.Index)
	return h.move(h.namespace, found, pod)
}

// usable returns errNotFound if the pod cannot use the device, which was not moved.
// Without RDMA in the kernel there is nobody to ask.
func (h *Host) usable(pod int, intent netattach.RDMAIntent) error {
	mode, err := h.kernel.Mode(h.namespace)
	if err != nil || mode == Absent {
		return err
	}
	_, err = h.find(pod, intent, false)
	return err
}

// move moves and reads back.
func (h *Host) move(from int, device Device, to int) error {
	if err := h.kernel.Move(from, device.Index, to); err != nil {
		return fmt.Errorf("the kernel refused to move it (RDMA_NLDEV_CMD_SET): %w", err)
	}
	for namespace, wanted := range map[int]bool{to: true, from: false} {
		devices, err := h.kernel.Devices(namespace)
		if err != nil {
			return err
		}
		if slices.ContainsFunc(devices, func(d Device) bool { return d.Index == device.Index }) != wanted {
			return errors.New("the kernel says that it moved it, and does not show it there; see `rdma dev show` in both network namespaces")
		}
	}
	return nil
}

// Present says whether an RDMA device that moves is in the pod.
func (h *Host) Present(pod int, device netattach.DeviceIntent) (bool, error) {
	if device.RDMA == nil || !device.RDMA.Moves {
		return true, nil
	}
	_, err := h.find(pod, *device.RDMA, true)
	if errors.Is(err, errNotFound) {
		return false, nil
	}
	return err == nil, err
}

// Home brings the RDMA device back from the pod, or back to order if it is on the
// host. It reports whether the device was found in either place.
func (h *Host) Home(ctx context.Context, pod int, device netattach.DeviceIntent) (bool, error) {
	if device.RDMA == nil || !device.RDMA.Moves {
		return true, nil
	}
	// Should the node have become shared, every device is seen everywhere and at home.
	mode, err := h.kernel.Mode(h.namespace)
	if err != nil {
		return false, err
	}
	if mode != Exclusive {
		return h.Restore(ctx, device)
	}
	found, err := h.find(pod, *device.RDMA, true)
	if errors.Is(err, errNotFound) {
		return h.Restore(ctx, device)
	}
	if err != nil {
		return false, err
	}
	klog.FromContext(ctx).V(4).Info("Bringing RDMA device home", "rdma", found.Name, "index", found.Index)
	if err := h.move(pod, found, h.namespace); err != nil {
		return true, fmt.Errorf("cannot bring RDMA device %s (%s) home from the pod: %w", device.RDMA.Device, device.Device, err)
	}
	return h.Restore(ctx, device)
}

// Restore gives an RDMA device that is on the host the name that it had. The
// kernel gives it another if that is taken when a namespace ends, and a pod can rename it.
func (h *Host) Restore(ctx context.Context, device netattach.DeviceIntent) (bool, error) {
	if device.RDMA == nil || !device.RDMA.Moves {
		return true, nil
	}
	found, err := h.find(h.namespace, *device.RDMA, true)
	if errors.Is(err, errNotFound) {
		return false, nil
	}
	if err != nil || found.Name == device.RDMA.Device {
		return err == nil, err
	}
	klog.FromContext(ctx).Info("Giving RDMA device its name back", "device", device.Device, "from", found.Name, "to", device.RDMA.Device)
	if err := h.kernel.Rename(h.namespace, found.Index, device.RDMA.Device); err != nil {
		return true, fmt.Errorf("RDMA device %s (%s) is home but called %s: %w; give it its name back with `rdma dev set %s name %s`", device.RDMA.Device, device.Device, found.Name, err, found.Name, device.RDMA.Device)
	}
	return true, nil
}

// State is what became of the RDMA device, for the claim's status; nil if the claim gets none.
func State(device netattach.DeviceIntent) *netattach.RDMAState {
	if device.RDMA == nil {
		return nil
	}
	return &netattach.RDMAState{Device: device.RDMA.Device, Exclusive: device.RDMA.Moves, Fallback: device.RDMA.Fallback}
}
