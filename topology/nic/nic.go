// Package nic finds the network functions of a machine: PFs and VFs with their
// netdevs and RDMA devices, and which of them the node itself lives on.
//
// Two sources answer two questions. Sysfs says what a function is: its
// address, driver, netdev name, RDMA device. Netlink says whether the netdev is
// here, in what state and with which addresses. A netdev that moved to a pod is gone
// from netlink; the function remains, with its identity and without a Link.
package nic

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"k8s.io/klog/v2"

	"github.com/hostler-dev/hostler/topology"
	"github.com/hostler-dev/hostler/topology/pci"
	"github.com/hostler-dev/hostler/topology/sysfs"
)

// Config says where to look.
type Config struct {
	// Sys is where sysfs is mounted, "" is /sys.
	Sys string
	// Dev is where device nodes are, "" is /dev. Character devices are always
	// reported by their path under /dev.
	Dev string
	// NodeAddresses are the addresses by which the cluster knows this node: the
	// NIC that carries one is an uplink even where no default route uses it.
	NodeAddresses []netip.Addr
	// APIServerAddresses are those of the API servers, rather than of the
	// service before them: the NIC that leads there is an uplink.
	APIServerAddresses []netip.Addr
	// CNIConfig is the folder of the node's CNI configurations: what they name as
	// master, bridge or device is an uplink. "" reads none; a folder that is absent is an empty one.
	CNIConfig string
	// Kernel answers for the host's network namespace, nil is netlink in the
	// calling process's namespace.
	Kernel Kernel
}

// Inventory is what the Reader finds.
type Inventory struct {
	// NICs, sorted by PCI address.
	NICs []topology.NIC
	// StackedLinks are the node's netdevs over those of the NICs, sorted by name.
	StackedLinks []topology.StackedLink
	// RDMANamespaces as in topology.Snapshot.
	RDMANamespaces string
}

// Reader reads the NICs. It may be used by several goroutines at once, and is
// worth keeping: it remembers what takes long to read and does not change.
type Reader struct {
	sys                    sysfs.Root
	dev                    string
	nodeAddresses, servers []netip.Addr
	cniConfig              string
	kernel                 Kernel
	rdma                   rdmaSource
	products               productData
}

// New makes a Reader.
func New(cfg Config) *Reader {
	r := &Reader{
		sys: sysfs.Root(cfg.Sys), dev: cfg.Dev, kernel: cfg.Kernel, cniConfig: cfg.CNIConfig,
		nodeAddresses: unmapped(cfg.NodeAddresses), servers: unmapped(cfg.APIServerAddresses),
		products: productData{known: map[productFile]map[string]string{}},
	}
	if r.sys == "" {
		r.sys = "/sys"
	}
	if r.dev == "" {
		r.dev = "/dev"
	}
	if r.kernel == nil {
		r.kernel = Netlink{}
	}
	r.rdma = newRDMASource(r.sys)
	return r
}

// unmapped are addresses without the IPv6 form of IPv4 ones, which no route has.
func unmapped(addresses []netip.Addr) []netip.Addr {
	plain := make([]netip.Addr, len(addresses))
	for i, a := range addresses {
		plain[i] = a.Unmap()
	}
	return plain
}

// function is a NIC under construction: the netdev names that sysfs lists for
// it belong to its identity, whether or not the namespace still has them.
type function struct {
	nic     topology.NIC
	netdevs []string // the function's own netdev first, representors after it
}

func (f *function) problem(subject string, err error) {
	f.nic.Problems = append(f.nic.Problems, topology.Problem{Subject: subject, Message: err.Error()})
}

// Read returns the NICs among the functions of the tree with what is stacked on
// them, and the problems that concern none of them alone.
func (r *Reader) Read(ctx context.Context, tree *pci.Tree) (Inventory, []topology.Problem) {
	var problems []topology.Problem
	rdma, err := r.rdma.index(r.sys, r.dev)
	if err != nil {
		problems = append(problems, topology.Problem{Subject: "RDMA devices", Message: err.Error()})
	}
	var functions []*function
	for _, address := range slices.Sorted(maps.Keys(tree.Functions)) {
		if f := r.identify(tree.Functions[address], rdma); f != nil {
			functions = append(functions, f)
		}
	}
	numberVFs(functions, tree)
	problems = append(problems, r.dataDirect(functions, tree)...)

	network, err := observe(r.kernel, r.nodeAddresses)
	if err != nil {
		problems = append(problems, topology.Problem{Subject: "network of the node", Message: err.Error()})
		klog.FromContext(ctx).V(4).Info("The node's network could not be read completely; every NIC counts as an uplink", "err", err)
	}
	for _, f := range functions {
		r.enrich(f, network)
	}
	r.firmware(functions, rdma)
	podNetworks, faults := readPodNetworks(r.cniConfig)
	problems = append(problems, faults...)
	v := judge(network, r.stackOf(network), interests{nodeAddresses: r.nodeAddresses, servers: r.servers, podNetworks: podNetworks})
	problems = append(problems, markUplinks(functions, v, err)...)

	inventory := Inventory{NICs: make([]topology.NIC, len(functions))}
	over := map[int]bool{}
	for i, f := range functions {
		inventory.NICs[i] = f.nic
		for _, netdev := range f.netdevs {
			if link, ok := network.byName[netdev]; ok {
				over[link.Index] = true
			}
		}
	}
	inventory.StackedLinks = v.stacked(over)
	if inventory.RDMANamespaces, err = r.rdmaNamespaces(); err != nil {
		problems = append(problems, topology.Problem{Subject: "RDMA devices", Message: err.Error()})
	}
	return inventory, problems
}

// passthrough are drivers that hand a function to a virtual machine or to a
// program, without netdev or RDMA device: nothing is left to offer.
var passthrough = []string{"vfio-pci", "mlx5_vfio_pci", "pci-stub", "pciback", "xen-pciback", "uio_pci_generic", "igb_uio"}

// identify decides whether a function is a NIC and reads what makes it one. A
// network controller with a driver stays a NIC while its netdev is in a pod.
func (r *Reader) identify(f *pci.Function, rdma *rdmaIndex) *function {
	if isDataDirect(f) || slices.Contains(passthrough, f.Driver) {
		return nil
	}
	address := f.Placement.PCI
	netdevs := Netdevs(r.sys, address)
	device, problems := rdma.forFunction(address, netdevs)
	if len(netdevs) == 0 && device == nil && (!f.IsNetwork() || f.Driver == "") {
		return nil
	}
	nic := topology.NIC{
		Name: topology.NICName(address), Kind: topology.PF, VFID: -1,
		NumVFs: f.NumVFs, TotalVFs: f.TotalVFs,
		Driver: f.Driver, VendorID: f.VendorID, DeviceID: f.DeviceID,
		RDMA: device, Placement: f.Placement, Problems: problems,
	}
	if f.PF != "" {
		nic.Kind, nic.Parent = topology.VF, topology.NICName(f.PF)
	}
	return &function{nic: nic, netdevs: netdevs}
}

// numberVFs gives VFs their number at the PF, which only the PF's folder tells.
func numberVFs(functions []*function, tree *pci.Tree) {
	numbers := map[string]int{}
	for _, f := range tree.Functions {
		for number, vf := range f.VFs {
			numbers[vf] = number
		}
	}
	for _, f := range functions {
		if f.nic.Kind != topology.VF {
			continue
		}
		number, ok := numbers[f.nic.Placement.PCI]
		if !ok {
			f.problem("VF number", fmt.Errorf("%s has a physfn link but its PF %s lists no virtfn link to it", f.nic.Placement.PCI, f.nic.Parent))
			continue
		}
		f.nic.VFID = number
	}
}

// enrich adds the netdev as the host's network namespace shows it.
func (r *Reader) enrich(f *function, network *network) {
	if len(f.netdevs) == 0 {
		return
	}
	name := f.netdevs[0]
	state, ok := network.byName[name]
	if !ok {
		return
	}
	link := &topology.Link{
		Name: name, Index: state.Index, MAC: state.MAC, MTU: state.MTU, Type: state.Type, Up: state.Up,
		Addresses: network.addresses[state.Index],
	}
	// -1 and EINVAL both mean "no carrier, no speed".
	link.SpeedMbps = max(0, r.sys.OptionalInt(0, "class", "net", name, "speed"))
	f.nic.Link = link
}

// firmware fills in the version, which is one for the whole card: VFs have their PF's.
func (r *Reader) firmware(functions []*function, rdma *rdmaIndex) {
	asker, canAsk := r.kernel.(FirmwareReader)
	versions := map[string]string{}
	for _, f := range functions {
		if f.nic.Kind == topology.VF {
			continue
		}
		if f.nic.RDMA != nil {
			f.nic.Firmware = rdma.firmware(f.nic.RDMA.Name)
		}
		if f.nic.Firmware == "" && f.nic.Link != nil && canAsk {
			version, err := asker.Firmware(f.nic.Link.Name)
			if err != nil {
				f.problem("firmware", err)
			}
			f.nic.Firmware = version
		}
		versions[f.nic.Name] = f.nic.Firmware
	}
	for _, f := range functions {
		if f.nic.Kind == topology.VF {
			f.nic.Firmware = versions[f.nic.Parent]
		}
	}
}
