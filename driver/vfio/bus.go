// The kernel's side: what sysfs says of PCI functions and their IOMMU groups. The
// root is a parameter, so that a rendered tree can stand in for /sys.

package vfio

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/hostler-dev/hostler/topology/sysfs"
)

// Driver is the kernel driver that gives PCI functions to user space.
const Driver = "vfio-pci"

// BusConfig says where the machine is seen.
type BusConfig struct {
	// Sys is where sysfs is mounted. Default: /sys.
	Sys string
	// Dev is the device directory. Default: /dev.
	Dev string
	// Proc is where the kernel shows processes. Default: /proc.
	Proc string
	// Write writes a value to a file of sysfs in one call. Default: it does. Tests
	// play the kernel with it, see package vfiotest.
	Write func(path, value string) error
}

// Bus reads PCI functions and changes their drivers. It is safe for concurrent use.
type Bus struct {
	sys       sysfs.Root
	dev, proc string
	store     func(path, value string) error

	mu sync.Mutex
	// operations are what the kernel has not answered yet, by PCI function.
	operations map[string]*operation
}

// NewBus returns a Bus.
func NewBus(cfg BusConfig) *Bus {
	if cfg.Write == nil {
		cfg.Write = store
	}
	return &Bus{
		sys: sysfs.Root(cmp.Or(cfg.Sys, "/sys")), dev: cmp.Or(cfg.Dev, "/dev"), proc: cmp.Or(cfg.Proc, "/proc"),
		store: cfg.Write, operations: map[string]*operation{},
	}
}

// Group is what there is to know of a function's IOMMU group before it is given away.
type Group struct {
	// Number as under /sys/kernel/iommu_groups, "" if the function has no group.
	Number string
	// IOMMU: the machine has one that is switched on.
	IOMMU bool
	// Emulated: the group is one that vfio made up without an IOMMU
	// (enable_unsafe_noiommu_mode), which protects nobody.
	Emulated bool
	// DriverThere: vfio-pci is in the kernel.
	DriverThere bool
	// Members of the group, by address, bridges among them.
	Members []Member
}

// Member is one PCI function of a group.
type Member struct {
	Function
	// Class is the 24-bit class code: 0x030200 is a 3D controller.
	Class uint32
	// VF: it is a virtual function. VFs is the number of those that it has itself.
	VF  bool
	VFs int
}

// Group reads the group of a PCI function as it is now.
func (b *Bus) Group(ctx context.Context, pci string) (Group, error) {
	if _, err := os.Stat(b.function(pci)); err != nil {
		return Group{}, fmt.Errorf("look for PCI function %s: %w; it was unplugged, or is the VF of a PF that lost its VFs", pci, err)
	}
	groups, err := b.sys.Names("kernel", "iommu_groups")
	if err != nil {
		return Group{}, fmt.Errorf("list the machine's IOMMU groups: %w", err)
	}
	g := Group{Number: b.groupOf(pci), IOMMU: len(groups) > 0, DriverThere: exists(b.sys.Path("bus", "pci", "drivers", Driver))}
	if g.Number == "" {
		return g, nil
	}
	g.Emulated = b.sys.OptionalText("kernel", "iommu_groups", g.Number, "name") == "vfio-noiommu"
	names, err := b.sys.Names("kernel", "iommu_groups", g.Number, "devices")
	if err != nil {
		return Group{}, fmt.Errorf("list IOMMU group %s of PCI function %s: %w", g.Number, pci, err)
	}
	slices.Sort(names)
	for _, name := range names {
		member, err := b.member(ctx, name)
		if err != nil {
			return Group{}, fmt.Errorf("IOMMU group %s of PCI function %s: %w", g.Number, pci, err)
		}
		g.Members = append(g.Members, member)
	}
	return g, nil
}

func (b *Bus) member(ctx context.Context, name string) (Member, error) {
	m := Member{Function: Function{PCI: name, Driver: b.driverOf(name)}}
	class, err := b.sys.Text("bus", "pci", "devices", name, "class")
	if err != nil {
		return m, fmt.Errorf("read the class of its member %s: %w", name, err)
	}
	number, err := strconv.ParseUint(strings.TrimPrefix(class, "0x"), 16, 24)
	if err != nil {
		return m, fmt.Errorf("its member %s has the class %q, which is not a class code", name, class)
	}
	m.Class = uint32(number)
	if m.Override, err = b.overrideOf(ctx, name); err != nil {
		return m, fmt.Errorf("read what may be bound to its member %s: %w", name, err)
	}
	m.VF = exists(filepath.Join(b.function(name), "physfn"))
	if exists(filepath.Join(b.function(name), "sriov_numvfs")) {
		count, err := b.read(ctx, name, "sriov_numvfs")
		if err != nil {
			return m, fmt.Errorf("read how many VFs its member %s has: %w", name, err)
		}
		if m.VFs, err = strconv.Atoi(count); err != nil {
			return m, fmt.Errorf("its member %s has %q VFs, which is not a number", name, count)
		}
	}
	return m, nil
}

func (b *Bus) function(pci string) string { return b.sys.Path("bus", "pci", "devices", pci) }

func (b *Bus) groupOf(pci string) string {
	return b.sys.LinkBase("bus", "pci", "devices", pci, "iommu_group")
}

// driverOf is the driver that is bound now, "" if none.
func (b *Bus) driverOf(pci string) string {
	return b.sys.LinkBase("bus", "pci", "devices", pci, "driver")
}

// overrideOf is the only driver that may be bound, "" if any may.
func (b *Bus) overrideOf(ctx context.Context, pci string) (string, error) {
	override, err := b.read(ctx, pci, "driver_override")
	if override == "(null)" { // how the kernel words that there is none
		override = ""
	}
	return override, err
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// Nodes are the device nodes by which a program opens what is bound, relative to
// /dev: those of the group, and where the kernel has iommufd each function's own.
// Programs use either the ones or the others.
func (b *Bus) Nodes(binding *Binding) ([]string, error) {
	var nodes []string
	group := filepath.Join("vfio", binding.Group)
	if exists(filepath.Join(b.dev, group)) {
		nodes = append(nodes, filepath.Join("vfio", "vfio"), group)
	}
	devices, err := b.ownNodes(binding)
	if err != nil {
		return nil, err
	}
	nodes = append(nodes, devices...)
	for _, node := range nodes {
		if !exists(filepath.Join(b.dev, node)) {
			return nil, fmt.Errorf("device node /dev/%s is not there though PCI function %s is bound to %s; load the kernel module vfio_iommu_type1, and look for vfio in the kernel log", node, binding.Functions[0].PCI, Driver)
		}
	}
	if len(nodes) == 0 {
		return nil, fmt.Errorf("device node /dev/%s is not there though PCI function %s is bound to %s; look for vfio in the kernel log", group, binding.Functions[0].PCI, Driver)
	}
	return nodes, nil
}

// ownNodes are those of kernels 6.2 and newer with CONFIG_VFIO_DEVICE_CDEV and
// iommufd; none where there is no iommufd.
func (b *Bus) ownNodes(binding *Binding) ([]string, error) {
	if !exists(filepath.Join(b.dev, "iommu")) {
		return nil, nil
	}
	var nodes []string
	for _, f := range binding.Functions {
		names, err := b.sys.Names("bus", "pci", "devices", f.PCI, "vfio-dev")
		if err != nil {
			return nil, fmt.Errorf("look for the device node of PCI function %s: %w", f.PCI, err)
		}
		for _, name := range names {
			if exists(filepath.Join(b.dev, "vfio", "devices", name)) {
				nodes = append(nodes, filepath.Join("vfio", "devices", name))
			}
		}
	}
	if len(nodes) > 0 {
		nodes = append([]string{"iommu"}, nodes...)
	}
	return nodes, nil
}
