// Package rdmatest is a kernel with RDMA devices for tests, as far as their network
// namespaces go: no driver that test machines have lets its devices be moved. What
// it does is the kernel's drivers/infiniband/core/device.c.
package rdmatest

import (
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/hostler-dev/hostler/netattach/rdma"
)

// Device is one of the kernel's.
type Device struct {
	rdma.Device
	// In is the inode of the namespace that it is in.
	In uint64
	// Fixed: its driver does not let it be moved (no disassociate_ucontext, as rdma_rxe).
	Fixed bool
	// Deaf: a move is answered as done and is not, which has never been seen of a kernel.
	Deaf bool
}

// Kernel is a fake rdma.Kernel.
type Kernel struct {
	mu      sync.Mutex
	mode    rdma.Mode
	devices []Device
	// Around, if set, is called before (false) and after (true) each change; its error is
	// the kernel's answer.
	Around func(done bool) error
}

// New is a kernel in the mode, with its devices in the namespace and numbered in their order.
func New(mode rdma.Mode, namespace int, devices ...Device) *Kernel {
	k := &Kernel{mode: mode}
	for i, device := range devices {
		device.Index, device.In = uint32(i), inode(namespace)
		k.devices = append(k.devices, device)
	}
	return k
}

// inode tells namespaces apart, by whatever descriptor.
func inode(namespace int) uint64 {
	var stat unix.Stat_t
	if err := unix.Fstat(namespace, &stat); err != nil {
		return 0
	}
	return stat.Ino
}

// Mode is that of New or SetMode.
func (k *Kernel) Mode(int) (rdma.Mode, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.mode, nil
}

// SetMode is `rdma system set netns`.
func (k *Kernel) SetMode(mode rdma.Mode) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.mode = mode
}

// Devices that the namespace can use.
func (k *Kernel) Devices(namespace int) ([]rdma.Device, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	var seen []rdma.Device
	for _, device := range k.devices {
		if k.usable(device, namespace) {
			seen = append(seen, device.Device)
		}
	}
	return seen, nil
}

// usable is rdma_dev_access_netns.
func (k *Kernel) usable(device Device, namespace int) bool {
	return k.mode == rdma.Shared || device.In == inode(namespace)
}

// Move is ib_device_set_netns_put.
func (k *Kernel) Move(from int, index uint32, to int) error {
	return k.change(from, index, func(device *Device) error {
		if device.Fixed || k.mode == rdma.Shared {
			return unix.EOPNOTSUPP
		}
		if !device.Deaf {
			device.In = inode(to)
		}
		return nil
	})
}

// Rename refuses a name that another device has, in whatever namespace.
func (k *Kernel) Rename(namespace int, index uint32, name string) error {
	return k.change(namespace, index, func(device *Device) error {
		if slices.ContainsFunc(k.devices, func(d Device) bool { return d.Name == name && d.Index != index }) {
			return unix.EEXIST
		}
		device.Name = name
		return nil
	})
}

func (k *Kernel) change(namespace int, index uint32, do func(*Device) error) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	at := slices.IndexFunc(k.devices, func(d Device) bool { return d.Index == index })
	if at < 0 || !k.usable(k.devices[at], namespace) {
		return unix.EINVAL
	}
	if k.Around == nil {
		return do(&k.devices[at])
	}
	if err := k.Around(false); err != nil {
		return err
	}
	if err := do(&k.devices[at]); err != nil {
		return err
	}
	return k.Around(true)
}

// End is the end of a namespace, whose devices the kernel returns.
func (k *Kernel) End(namespace, initial int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for i := range k.devices {
		if k.devices[i].In == inode(namespace) {
			k.devices[i].In = inode(initial)
		}
	}
}

// Unplug takes a device away.
func (k *Kernel) Unplug(name string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.devices = slices.DeleteFunc(k.devices, func(d Device) bool { return d.Name == name })
}

// Add is a device that a driver makes, whose index it returns.
func (k *Kernel) Add(device Device, namespace int) uint32 {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, d := range k.devices {
		device.Index = max(device.Index, d.Index+1)
	}
	device.In = inode(namespace)
	k.devices = append(k.devices, device)
	return device.Index
}
