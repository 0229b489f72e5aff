// ConnectX-8 Data Direct: a second PCI function of the card, under the GPU's own
// PCIe switch, through which the card reaches GPU memory. It carries no netdev and is
// not offered; it only tells where the NIC's data enters PCIe towards GPUs, which
// the NIC's own place does not (there, the CPU's root complex is nearest).
//
// The function has an ID of its own (mlx5_data_direct_pci_table in the kernel's
// drivers/infiniband/hw/mlx5/data_direct.c). Which NIC it belongs to is in the vital
// product data. The kernel compares its keyword VU with what the NIC's firmware answers,
// which sysfs does not show; a NIC with the same VU is the one. rdma-core's rdma_topo
// compares the keyword V3, a UUID that all functions of one card share; where a
// card has one such interface, that decides too.

package nic

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/hostler-dev/hostler/topology"
	"github.com/hostler-dev/hostler/topology/pci"
	"github.com/hostler-dev/hostler/topology/sysfs"
)

const (
	vendorMellanox     = "15b3"
	deviceDataDirect   = "2100"
	keywordCard        = "V3"
	keywordFunction    = "VU"
	largestVPD         = 32 << 10 // the address in VPD has 15 bits
	dataDirectProblems = "Data Direct"
)

func isDataDirect(f *pci.Function) bool {
	return f.VendorID == vendorMellanox && f.DeviceID == deviceDataDirect
}

// productData remembers vital product data: reading it takes a config cycle for
// every four bytes, and it is the same as long as the device is.
type productData struct {
	mu    sync.Mutex
	known map[productFile]map[string]string
}

// productFile is the file of one device: the kernel numbers sysfs files anew for
// a device that is plugged in where another was.
type productFile struct {
	pci   string
	inode uint64
}

func (p *productData) keywords(sys sysfs.Root, address string) (map[string]string, error) {
	name := sys.Path("bus", "pci", "devices", address, "vpd")
	info, err := os.Stat(name)
	if sysfs.Absent(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	file := productFile{pci: address}
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		file.inode = stat.Ino
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if keywords, ok := p.known[file]; ok {
		return keywords, nil
	}
	raw, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	keywords := readOnlyKeywords(raw[:min(len(raw), largestVPD)])
	p.known[file] = keywords
	return keywords, nil
}

// dataInterfaces are the machine's Data Direct functions.
type dataInterfaces struct {
	functions []*pci.Function
	identity  []map[string]string
	claimed   []bool
}

// dataDirect sets NIC.DataDirect of the cards that have it. On a machine without
// such cards, which is most, it reads nothing.
func (r *Reader) dataDirect(functions []*function, tree *pci.Tree) []topology.Problem {
	var d dataInterfaces
	for _, f := range tree.Functions {
		if isDataDirect(f) {
			d.functions = append(d.functions, f)
		}
	}
	if len(d.functions) == 0 {
		return nil
	}
	slices.SortFunc(d.functions, func(a, b *pci.Function) int { return strings.Compare(a.Placement.PCI, b.Placement.PCI) })
	problems := d.identify(r)
	for _, f := range functions {
		if f.nic.Kind != topology.PF || f.nic.VendorID != vendorMellanox {
			continue
		}
		own, err := r.products.keywords(r.sys, f.nic.Placement.PCI)
		if err != nil {
			f.problem("vital product data", err)
			continue
		}
		switch candidates := d.of(own); len(candidates) {
		case 0: // a card without
		case 1:
			place := candidates[0].Placement
			f.nic.DataDirect = &place
		default:
			f.problem(dataDirectProblems, fmt.Errorf("the card has %d Data Direct interfaces, and its vital product data does not say which is this function's", len(candidates)))
		}
	}
	return append(problems, d.orphans()...)
}

func (d *dataInterfaces) identify(r *Reader) []topology.Problem {
	d.identity, d.claimed = make([]map[string]string, len(d.functions)), make([]bool, len(d.functions))
	var problems []topology.Problem
	for i, f := range d.functions {
		var err error
		if d.identity[i], err = r.products.keywords(r.sys, f.Placement.PCI); err != nil {
			problems = append(problems, topology.Problem{Subject: dataDirectProblems, Message: fmt.Sprintf("the vital product data of %s, which tells its card, cannot be read: %v", f.Placement.PCI, err)})
			d.claimed[i] = true // of this one no more need be said
		}
	}
	return problems
}

// of are the interfaces of a NIC with that vital product data.
func (d *dataInterfaces) of(own map[string]string) []*pci.Function {
	for _, keyword := range []string{keywordFunction, keywordCard} {
		var same []*pci.Function
		for i := range d.functions {
			if own[keyword] != "" && d.identity[i][keyword] == own[keyword] {
				same, d.claimed[i] = append(same, d.functions[i]), true
			}
		}
		if len(same) > 0 {
			return same
		}
	}
	return nil
}

func (d *dataInterfaces) orphans() []topology.Problem {
	var problems []topology.Problem
	for i, f := range d.functions {
		if !d.claimed[i] {
			problems = append(problems, topology.Problem{Subject: dataDirectProblems, Message: fmt.Sprintf("%s is the Data Direct interface of a card, but no NIC has the same %s or %s in its vital product data: GPUs are not paired through it", f.Placement.PCI, keywordFunction, keywordCard)})
		}
	}
	return problems
}
