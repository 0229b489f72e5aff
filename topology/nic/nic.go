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
	// Kernel answers for the host's network namespace, nil is netlink in the
	// calling process's namespace.
	Kernel Kernel
}

// Reader reads the NICs.
type Reader struct {
	sys           sysfs.Root
	dev           string
	nodeAddresses []netip.Addr
	kernel        Kernel
	rdma          rdmaSource
}

// New makes a Reader.
func New(cfg Config) *Reader {
	r := &Reader{sys: sysfs.Root(cfg.Sys), dev: cfg.Dev, nodeAddresses: cfg.NodeAddresses, kernel: cfg.Kernel}
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

// function is a NIC under construction: the netdev names that sysfs lists for
// it belong to its identity, whether or not the namespace still has them.
type function struct {
	nic     topology.NIC
	netdevs []string // the function's own netdev first, representors after it
}

// Read returns the NICs among the functions of the tree, sorted by PCI address,
// and the problems that concern none of them alone.
func (r *Reader) Read(ctx context.Context, tree *pci.Tree) ([]topology.NIC, []topology.Problem) {
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

	network, err := observe(r.kernel)
	if err != nil {
		problems = append(problems, topology.Problem{Subject: "network of the node", Message: err.Error()})
		klog.FromContext(ctx).V(4).Info("The node's network could not be read completely; every NIC counts as an uplink", "err", err)
	}
	for _, f := range functions {
		r.enrich(f, network)
	}
	problems = append(problems, markUplinks(functions, network, r.sys, r.nodeAddresses, err)...)
	nics := make([]topology.NIC, len(functions))
	for i, f := range functions {
		nics[i] = f.nic
	}
	return nics, problems
}

// identify decides whether a function is a NIC and reads what makes it one. A
// network controller with a driver stays a NIC while its netdev is in a pod.
func (r *Reader) identify(f *pci.Function, rdma *rdmaIndex) *function {
	address := f.Placement.PCI
	netdevs := r.netdevs(address)
	device := rdma.forFunction(address, netdevs)
	if len(netdevs) == 0 && device == nil && (!f.IsNetwork() || f.Driver == "") {
		return nil
	}
	nic := topology.NIC{
		Name: topology.NICName(address), Kind: topology.PF, VFID: -1,
		NumVFs: f.NumVFs, TotalVFs: f.TotalVFs,
		Driver: f.Driver, VendorID: f.VendorID, DeviceID: f.DeviceID,
		RDMA: device, Placement: f.Placement,
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
			f.nic.Problems = append(f.nic.Problems, topology.Problem{
				Subject: "VF number", Message: fmt.Sprintf("%s has a physfn link but its PF %s lists no virtfn link to it", f.nic.Placement.PCI, f.nic.Parent),
			})
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
