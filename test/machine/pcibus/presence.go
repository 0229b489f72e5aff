// What is there while a driver has a function, and not otherwise: the class
// devices in its folder (net, infiniband, …) with their links below /sys/class, and
// vfio's device node of the IOMMU group.

package pcibus

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// classes are those of devices that a driver makes of its function.
func classes() []string {
	return []string{"net", "infiniband", "infiniband_verbs", "infiniband_mad"}
}

// setAside takes away what the native driver had made.
func (b *Bus) setAside(f Function) error {
	if err := b.eachClass(f.PCI, func(inTree, aside string) error {
		if err := os.MkdirAll(filepath.Dir(aside), 0o755); err != nil {
			return err
		}
		return os.Rename(inTree, aside)
	}); err != nil {
		return err
	}
	if f.Go == nil {
		return nil
	}
	return f.Go()
}

// restore brings it back.
func (b *Bus) restore(f Function) error {
	if f.Come != nil {
		if err := f.Come(); err != nil {
			return err
		}
	}
	return b.eachClass(f.PCI, func(inTree, aside string) error { return os.Rename(aside, inTree) })
}

// eachClass calls move with where things lie in the tree and where they lie aside;
// what is in neither place is passed over. Links come first, so that none dangles.
func (b *Bus) eachClass(pci string, move func(inTree, aside string) error) error {
	for _, class := range classes() {
		folder, aside := filepath.Join(b.function(pci), class), filepath.Join(b.aside, pci, class)
		devices := map[string]bool{}
		for _, place := range []string{folder, aside} {
			entries, err := os.ReadDir(place)
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			for _, entry := range entries {
				devices[entry.Name()] = true
			}
		}
		if len(devices) == 0 {
			continue
		}
		for device := range devices {
			if err := move(filepath.Join(b.sys, "class", class, device), filepath.Join(b.aside, pci, "class", class, device)); err != nil {
				return err
			}
		}
		if err := move(folder, aside); err != nil {
			return err
		}
	}
	return nil
}

// VFIOGroupMajor is the major number of groups' nodes, whose minor is the group's: one that dynamic allocation could give and no other
// simulated device has (machine/dev.go).
const VFIOGroupMajor = 503

// group is the number of a function's IOMMU group.
func (b *Bus) group(pci string) string {
	return linkBase(filepath.Join(b.function(pci), "iommu_group"))
}

// makeNode makes the node of the function's group. Without a group vfio refuses
// the function (vfio_device_set_group).
func (b *Bus) makeNode(pci string) error {
	group := b.group(pci)
	number, err := strconv.ParseUint(group, 10, 20)
	if err != nil {
		return unix.EINVAL
	}
	path := filepath.Join(b.dev, "vfio", group)
	err = unix.Mknod(path, unix.S_IFCHR|0o600, int(unix.Mkdev(VFIOGroupMajor, uint32(number))))
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make device node %s: %w", path, err)
	}
	return nil
}

// removeNode removes it with the group's last function.
func (b *Bus) removeNode(pci string) error {
	group := b.group(pci)
	members, err := os.ReadDir(filepath.Join(b.sys, "kernel/iommu_groups", group, "devices"))
	if err != nil {
		return err
	}
	for _, member := range members {
		if b.bound(member.Name()) == VFIO {
			return nil
		}
	}
	return os.Remove(filepath.Join(b.dev, "vfio", group))
}
