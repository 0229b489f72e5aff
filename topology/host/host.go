// Package host reads one machine: the PCI tree, then the NICs in it. Together
// with nvml.Source it is all that a topology.Observer needs:
//
//	gpus := nvml.NewSource(nvml.Config{DriverRoot: "/driver-root"})
//	defer gpus.Close()
//	observer := topology.NewObserver(topology.ObserverConfig{
//		Hardware: host.New(host.Config{NodeAddresses: addresses}),
//		GPUs:     gpus,
//		Watchers: []topology.Watcher{nic.Watch},
//	})
//	go observer.Run(ctx)
//	snapshots, stop := observer.Subscribe()
//
// A single look, as `hostler topology` takes, is observer.Observe(ctx).
package host

import (
	"cmp"
	"context"
	"net/netip"
	"slices"

	"github.com/hostler-dev/hostler/topology"
	"github.com/hostler-dev/hostler/topology/nic"
	"github.com/hostler-dev/hostler/topology/pci"
)

// driverName is the kernel driver that is in charge of NVIDIA GPUs.
const driverName = "nvidia"

// Config says where the machine is seen.
type Config struct {
	// Sys is where sysfs is mounted, "" is /sys.
	Sys string
	// Dev is where device nodes are, "" is /dev.
	Dev string
	// NodeAddresses by which the cluster knows this node; the NIC that carries one is an uplink.
	NodeAddresses []netip.Addr
	// Kernel answers for the host's network namespace, nil is netlink in the calling process's.
	Kernel nic.Kernel
}

// Reader implements topology.HardwareReader.
type Reader struct {
	sys  string
	nics *nic.Reader
}

// New makes a Reader.
func New(cfg Config) *Reader {
	return &Reader{
		sys:  cmp.Or(cfg.Sys, "/sys"),
		nics: nic.New(nic.Config{Sys: cfg.Sys, Dev: cfg.Dev, NodeAddresses: cfg.NodeAddresses, Kernel: cfg.Kernel}),
	}
}

// ReadHardware reads the kernel's view of the machine.
func (r *Reader) ReadHardware(ctx context.Context) (topology.Hardware, error) {
	tree, err := pci.Read(r.sys)
	if err != nil {
		return topology.Hardware{}, err
	}
	hardware := topology.Hardware{
		Placements: make(map[string]topology.Placement, len(tree.Functions)),
		Bridges:    tree.Bridges, NUMANodes: tree.NUMANodes, Problems: tree.Problems,
	}
	for address, function := range tree.Functions {
		hardware.Placements[address] = function.Placement
		if function.IsNVIDIAGPU() && (function.Driver == driverName || function.Driver == "") {
			hardware.GPUFunctions = append(hardware.GPUFunctions, topology.GPUFunction{PCI: address, Bound: function.Driver == driverName})
		}
	}
	slices.SortFunc(hardware.GPUFunctions, func(a, b topology.GPUFunction) int { return cmp.Compare(a.PCI, b.PCI) })
	inventory, problems := r.nics.Read(ctx, tree)
	hardware.NICs = inventory.NICs
	hardware.Problems = append(hardware.Problems, problems...)
	return hardware, nil
}
