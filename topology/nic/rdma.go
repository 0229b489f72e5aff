// RDMA devices: which one belongs to which PCI function, its ports, and the
// character devices that a verbs program opens. On a real node rdmamap says which
// devices a function has; under another sysfs root (it reads /sys only) the same
// folders are read here. The character devices are indexed in one pass, since
// rdmamap's search per device grows with the square of the number of VFs.

package nic

import (
	"cmp"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/Mellanox/rdmamap"

	"github.com/hostler-dev/hostler/topology"
	"github.com/hostler-dev/hostler/topology/sysfs"
)

// rdmaSource finds the RDMA devices of a PCI function.
type rdmaSource struct {
	ofFunction func(pci string) []string
}

func newRDMASource(sys sysfs.Root) rdmaSource {
	if sys == "/sys" {
		return rdmaSource{ofFunction: rdmamap.GetRdmaDevicesForPcidev}
	}
	return rdmaSource{ofFunction: func(pci string) []string {
		names, err := sys.Names("bus", "pci", "devices", pci, "infiniband")
		if err != nil {
			return nil
		}
		return names
	}}
}

// rdmaIndex is what was read once for all NICs.
type rdmaIndex struct {
	sys         sysfs.Root
	source      rdmaSource
	byNetdev    map[string]string   // software devices (rxe, siw), which have no PCI function
	charDevices map[string][]string // by RDMA device
	shared      []string
}

// classes of character devices; each of their entries names its RDMA device in "ibdev".
var charDeviceClasses = []string{"infiniband_verbs", "infiniband_mad", "infiniband_cm"}

func (s rdmaSource) index(sys sysfs.Root, dev string) (*rdmaIndex, error) {
	x := &rdmaIndex{sys: sys, source: s, byNetdev: map[string]string{}, charDevices: map[string][]string{}}
	var errs []error
	for _, class := range charDeviceClasses {
		entries, err := sys.Names("class", class)
		errs = append(errs, err)
		for _, entry := range entries {
			if device := sys.OptionalText("class", class, entry, "ibdev"); device != "" {
				x.charDevices[device] = append(x.charDevices[device], filepath.Join("/dev/infiniband", entry))
			}
		}
	}
	x.shared = sharedCharDevices(dev)
	devices, err := sys.Names("class", "infiniband")
	errs = append(errs, err)
	for _, device := range devices {
		target, err := os.Readlink(sys.Path("class", "infiniband", device))
		if err == nil && strings.Contains(target, "/virtual/") || err == nil && !strings.Contains(target, "/pci") {
			for _, netdev := range x.portNetdevs(device) {
				x.byNetdev[netdev] = device
			}
		}
	}
	return x, errors.Join(errs...)
}

// sharedCharDevices are those that all RDMA devices share.
func sharedCharDevices(dev string) []string {
	if _, err := os.Stat(filepath.Join(dev, "infiniband", "rdma_cm")); err != nil {
		return nil
	}
	return []string{"/dev/infiniband/rdma_cm"}
}

// portNetdevs are the netdevs behind a software device. rxe names its own in
// "parent" (parent_show in the kernel's rxe_verbs.c); for others they are those of
// the first port's GIDs, a table of 1,024 files to read.
func (x *rdmaIndex) portNetdevs(device string) []string {
	if parent := x.sys.OptionalText("class", "infiniband", device, "parent"); parent != "" {
		return []string{parent}
	}
	folder := []string{"class", "infiniband", device, "ports", "1", "gid_attrs", "ndevs"}
	entries, err := x.sys.Names(folder...)
	if err != nil {
		return nil
	}
	var netdevs []string
	for _, entry := range entries {
		// An unused GID answers EINVAL.
		if netdev := x.sys.OptionalText(append(folder, entry)...); netdev != "" && !slices.Contains(netdevs, netdev) {
			netdevs = append(netdevs, netdev)
		}
	}
	return netdevs
}

// forFunction is the RDMA device of a PCI function or of one of its netdevs,
// nil if there is none, with what could not be made sense of. In switchdev mode
// a function lists several; the first in natural order is its own.
func (x *rdmaIndex) forFunction(pci string, netdevs []string) (*topology.RDMADevice, []topology.Problem) {
	names := x.source.ofFunction(pci)
	for _, netdev := range netdevs {
		// A software device on top of hardware that has its own does not count.
		if device := x.byNetdev[netdev]; device != "" && len(names) == 0 {
			names = append(names, device)
		}
	}
	if len(names) == 0 {
		return nil, nil
	}
	slices.SortStableFunc(names, func(a, b string) int { return cmp.Or(cmp.Compare(len(a), len(b)), cmp.Compare(a, b)) })
	reading := rdmaReading{rdmaIndex: x, name: names[0]}
	return reading.device(), reading.problems
}

// firmware is the version of the card behind a device.
func (x *rdmaIndex) firmware(name string) string {
	return x.sys.OptionalText("class", "infiniband", name, "fw_ver")
}
