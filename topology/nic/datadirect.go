// ConnectX-8 Data Direct: a second PCI function of the card, under the GPU's own
// PCIe switch, through which the card reaches GPU memory. It carries no netdev and is
// not offered; it only tells where the NIC's data enters PCIe towards GPUs, which
// the NIC's own place does not (there, the CPU's root complex is nearest).
//
// The function has an ID of its own (mlx5_data_direct_pci_table in the kernel's
// drivers/infiniband/hw/mlx5/data_direct.c). Which NIC it belongs to says the keyword V3
// of the vital product data, a UUID that all functions of one card share, as rdma-core's
// rdma_topo has it. The kernel itself compares the keyword VU, a UUID of the
// function, with what the NIC's firmware answers; that answer is not in sysfs, and
// VU is used only to choose where a card has several.

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

// dataDirect sets NIC.DataDirect of the cards that have it. On a machine without
// such cards, which is most, it reads nothing.
func (r *Reader) dataDirect(functions []*function, tree *pci.Tree) []topology.Problem {
	var interfaces []*pci.Function
	for _, f := range tree.Functions {
		if isDataDirect(f) {
			interfaces = append(interfaces, f)
		}
	}
	if len(interfaces) == 0 {
		return nil
	}
	slices.SortFunc(interfaces, func(a, b *pci.Function) int { return strings.Compare(a.Placement.PCI, b.Placement.PCI) })
	var problems []topology.Problem
	identity := make([]map[string]string, len(interfaces))
	claimed := make([]bool, len(interfaces))
	for i, f := range interfaces {
		var err error
		if identity[i], err = r.products.keywords(r.sys, f.Placement.PCI); err != nil {
			problems = append(problems, topology.Problem{Subject: dataDirectProblems, Message: fmt.Sprintf("the vital product data of %s, which tells its card, cannot be read: %v", f.Placement.PCI, err)})
			claimed[i] = true // of this one no more need be said
		}
	}
	for _, f := range functions {
		if f.nic.Kind != topology.PF || f.nic.VendorID != vendorMellanox {
			continue
		}
		own, err := r.products.keywords(r.sys, f.nic.Placement.PCI)
		if err != nil {
			f.problem("vital product data", err)
			continue
		}
		var candidates []int
		for i := range interfaces {
			if card := own[keywordCard]; card != "" && identity[i][keywordCard] == card {
				candidates = append(candidates, i)
				claimed[i] = true
			}
		}
		if len(candidates) > 1 {
			f.chooseInterface(&candidates, interfaces, identity, own[keywordFunction])
		}
		if len(candidates) == 1 {
			place := interfaces[candidates[0]].Placement
			f.nic.DataDirect = &place
		}
	}
	for i, f := range interfaces {
		if !claimed[i] {
			problems = append(problems, topology.Problem{Subject: dataDirectProblems, Message: fmt.Sprintf("%s is the Data Direct interface of a card, but no NIC has the same %s in its vital product data: GPUs are not paired through it", f.Placement.PCI, keywordCard)})
		}
	}
	return problems
}

// chooseInterface leaves the one of a card's interfaces that bears the function's own identity.
func (f *function) chooseInterface(candidates *[]int, interfaces []*pci.Function, identity []map[string]string, own string) {
	all := make([]string, len(*candidates))
	for i, candidate := range *candidates {
		all[i] = interfaces[candidate].Placement.PCI
	}
	*candidates = slices.DeleteFunc(*candidates, func(i int) bool { return own == "" || identity[i][keywordFunction] != own })
	if len(*candidates) != 1 {
		f.problem(dataDirectProblems, fmt.Errorf("the card has the interfaces %s, and its vital product data does not say which is this function's", strings.Join(all, ", ")))
	}
}
