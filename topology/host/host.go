// Package host reads one machine: the PCI tree, then the NICs in it and what is
// stacked on them. Together with nvml.Source it is all that a topology.Observer needs:
//
//	gpus := nvml.NewSource(nvml.Config{DriverRoot: "/driver-root"})
//	defer gpus.Close()
//	observer := topology.NewObserver(topology.ObserverConfig{
//		Hardware: host.New(host.Config{NodeAddresses: addresses}),
//		GPUs:     gpus,
//		Watchers: []topology.Watcher{nic.Watch, uevent.Watch},
//	})
//	go observer.Run(ctx)
//	snapshots, stop := observer.Subscribe()
//
// A single look, as `hostler topology` takes, is observer.Observe(ctx).
package host

import (
	"cmp"
	"context"
	"maps"
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
	// APIServerAddresses are those of the API servers; the NIC that leads there is an uplink.
	APIServerAddresses []netip.Addr
	// CNIConfig is the folder of the node's CNI configurations, whose parents are
	// uplinks; "" is none.
	CNIConfig string
	// Kernel answers for the host's network namespace, nil is netlink in the calling process's.
	Kernel nic.Kernel
}

// Reader implements topology.HardwareReader. It remembers what takes long to
// read and does not change, so it is worth keeping.
type Reader struct {
	sys  string
	nics *nic.Reader
}

// New makes a Reader.
func New(cfg Config) *Reader {
	return &Reader{
		sys: cmp.Or(cfg.Sys, "/sys"),
		nics: nic.New(nic.Config{
			Sys: cfg.Sys, Dev: cfg.Dev, Kernel: cfg.Kernel,
			NodeAddresses: cfg.NodeAddresses, APIServerAddresses: cfg.APIServerAddresses, CNIConfig: cfg.CNIConfig,
		}),
	}
}

// ReadHardware reads the kernel's view of the machine.
func (r *Reader) ReadHardware(ctx context.Context) (topology.Hardware, error) {
	tree, err := pci.Read(r.sys)
	if err != nil {
		return topology.Hardware{}, err
	}
	inventory, problems := r.nics.Read(ctx, tree)
	hardware := topology.Hardware{
		Placements: make(map[string]topology.Placement, len(tree.Functions)),
		NICs:       inventory.NICs, StackedLinks: inventory.StackedLinks, RDMANamespaces: inventory.RDMANamespaces,
		Bridges: tree.Bridges, NUMANodes: tree.NUMANodes,
		Problems: slices.Concat(tree.Problems, problems),
	}
	for _, address := range slices.Sorted(maps.Keys(tree.Functions)) {
		function := tree.Functions[address]
		hardware.Placements[address] = function.Placement
		switch {
		case isOurs(function):
			hardware.GPUFunctions = append(hardware.GPUFunctions, topology.GPUFunction{PCI: address, Bound: function.Driver == driverName})
		case function.IsNVSwitch():
			hardware.NVSwitches = append(hardware.NVSwitches, topology.NVSwitch{Placement: function.Placement})
		}
	}
	return hardware, nil
}

// isOurs tells GPUs that the accelerator driver has or could have. One that is
// bound to another driver (vfio-pci, nouveau), or reserved for one while it changes
// hands, belongs to somebody else.
func isOurs(f *pci.Function) bool {
	may := func(driver string) bool { return driver == "" || driver == driverName }
	return f.IsNVIDIAGPU() && may(f.Driver) && (f.Driver != "" || may(f.DriverOverride))
}

// Uplinks looks again at the given NICs, and says of those on which the node lives
// now why it does, by NIC name. It is for the moment before a NIC is given away. An
// error means that the network could not be read; no NIC may be given away then.
func (r *Reader) Uplinks(ctx context.Context, nics []topology.NIC) (map[string]string, error) {
	return r.nics.Uplinks(ctx, nics)
}
