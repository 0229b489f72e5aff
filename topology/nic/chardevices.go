package nic

// Device nodes of an RDMA device that is in a pod's network namespace. There the node
// sees it no more among its RDMA devices, which sysfs shows by namespace
// (class/infiniband); the classes of the nodes it shows whole.

import (
	"errors"
	"path/filepath"
	"slices"

	"github.com/hostler-dev/hostler/topology/sysfs"
)

// CharDevices returns the nodes of the RDMA device as topology.RDMADevice has them,
// none if there is no such device. The kernel numbers them anew when the device changes its
// network namespace. Sys and dev are as in the reader's Config.
func CharDevices(sys, dev, device string) ([]string, error) {
	root := sysfs.Root(sys)
	var nodes []string
	var errs []error
	for _, class := range charDeviceClasses {
		entries, err := root.Names("class", class)
		errs = append(errs, err)
		for _, entry := range entries {
			if root.OptionalText("class", class, entry, "ibdev") == device {
				nodes = append(nodes, filepath.Join("/dev/infiniband", entry))
			}
		}
	}
	if len(nodes) > 0 {
		nodes = append(nodes, sharedCharDevices(dev)...)
	}
	slices.Sort(nodes)
	return nodes, errors.Join(errs...)
}
