// Package pci reads the PCI tree of a machine: every function with its place
// under root complex, root port and switches, the NUMA nodes with their sockets and
// distances. The place is taken from the path that /sys/bus/pci/devices/<address>
// links to, which mirrors the hardware hierarchy; that is also how
// k8s.io/dynamic-resource-allocation/deviceattribute finds the standard pcieRoot.
package pci

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/hostler-dev/hostler/topology"
	"github.com/hostler-dev/hostler/topology/sysfs"
)

// Function is one PCI function.
type Function struct {
	Placement topology.Placement
	// Class is the 24-bit class code: 0x020000 an Ethernet controller, 0x030200 a 3D controller.
	Class              uint32
	VendorID, DeviceID string // "10de", "2330"
	// Driver is the bound kernel driver, "" if none.
	Driver string
	// PF is the address of the physical function if this is a virtual one.
	PF string
	// NumVFs and TotalVFs of a physical function with SR-IOV.
	NumVFs, TotalVFs int
	// VFs are the addresses of its virtual functions, by VF number.
	VFs map[int]string
}

// Base classes, from the PCI code and ID assignment specification.
const (
	classNetwork = 0x02
	classDisplay = 0x03
	classBridge  = 0x06
	vendorNVIDIA = "10de"
)

// IsNetwork tells network and InfiniBand controllers.
func (f *Function) IsNetwork() bool { return f.Class>>16 == classNetwork }

// IsNVIDIAGPU tells NVIDIA's display and 3D controllers.
func (f *Function) IsNVIDIAGPU() bool {
	return f.Class>>16 == classDisplay && f.VendorID == vendorNVIDIA
}

// Tree is the PCI tree and the NUMA nodes of a machine.
type Tree struct {
	// Functions by canonical address.
	Functions map[string]*Function
	// Bridges are all PCI bridges, sorted by address.
	Bridges   []topology.Bridge
	NUMANodes []topology.NUMANode
	// Problems that cost a whole function or node, and no other.
	Problems []topology.Problem

	kinds map[string]portKind
}

// Read reads the tree under a sysfs root, "/sys" on a real machine. The error
// means that there is nothing to be seen at all; a machine without PCI has an empty tree.
func Read(root string) (*Tree, error) {
	sys := sysfs.Root(root)
	if _, err := os.Stat(sys.Path("devices")); err != nil {
		return nil, fmt.Errorf("read the PCI tree: %w; is sysfs mounted at %s?", err, root)
	}
	addresses, err := sys.Names("bus", "pci", "devices")
	if err != nil {
		return nil, fmt.Errorf("list the PCI functions: %w", err)
	}
	t := &Tree{Functions: make(map[string]*Function, len(addresses)), kinds: map[string]portKind{}}
	t.readNUMANodes(sys)
	for _, address := range addresses {
		if err := t.readFunction(sys, address); err != nil {
			t.problem("PCI function "+address, err)
		}
	}
	for _, address := range slices.Sorted(maps.Keys(t.Functions)) {
		f := t.Functions[address]
		f.Placement.PCIeSwitch = t.nearestSwitch(f.Placement.Path)
		if f.Class>>16 == classBridge && f.Class>>8 == 0x0604 {
			t.Bridges = append(t.Bridges, bridge(f))
		}
	}
	return t, nil
}

func (t *Tree) problem(subject string, err error) {
	t.Problems = append(t.Problems, topology.Problem{Subject: subject, Message: err.Error()})
}

func (t *Tree) readFunction(sys sysfs.Root, address string) error {
	pci, err := topology.CanonicalPCI(address)
	if err != nil {
		return err
	}
	target, err := os.Readlink(sys.Path("bus", "pci", "devices", address))
	if sysfs.Absent(err) {
		return nil // removed since the listing
	}
	if err != nil {
		return fmt.Errorf("find its place in the tree: %w", err)
	}
	f := &Function{Placement: topology.Placement{PCI: pci, NUMANode: -1, Socket: -1}}
	f.Placement.PCIeRoot, f.Placement.Path = placeInPath(target)
	folder := []string{"bus", "pci", "devices", address}
	at := func(name string) []string { return append(folder[:len(folder):len(folder)], name) }
	class, err := sys.Text(at("class")...)
	if sysfs.Absent(err) {
		return nil
	}
	number, err := strconv.ParseUint(strings.TrimPrefix(class, "0x"), 16, 32)
	if err != nil {
		return fmt.Errorf("its class is %q, which is not a class code", class)
	}
	f.Class = uint32(number)
	f.VendorID = strings.TrimPrefix(sys.OptionalText(at("vendor")...), "0x")
	f.DeviceID = strings.TrimPrefix(sys.OptionalText(at("device")...), "0x")
	f.Driver = sys.LinkBase(at("driver")...)
	t.placeInNUMA(f, sys.OptionalInt(-1, at("numa_node")...))
	if f.Class>>8 == 0x0604 {
		t.kinds[pci] = readPortKind(sys.Path(at("config")...))
	}
	if f.IsNetwork() {
		f.readSRIOV(sys, folder)
	}
	t.Functions[pci] = f
	return nil
}

// placeInPath takes ".../pci0000:16/0000:16:01.0/0000:17:00.0/0000:18:00.0" apart
// into the root complex and the bridges above the function.
func placeInPath(target string) (root string, bridges []string) {
	elements := strings.Split(target, "/")
	for _, element := range elements[:len(elements)-1] {
		if strings.HasPrefix(element, "pci") && strings.Contains(element, ":") {
			if root == "" {
				root = element
			}
			// Behind Intel VMD a second hierarchy begins, with root ports of its own.
			bridges = nil
			continue
		}
		if pci, err := topology.CanonicalPCI(element); err == nil && root != "" {
			bridges = append(bridges, pci)
		}
	}
	return root, bridges
}

func (t *Tree) placeInNUMA(f *Function, node int) {
	if node < 0 {
		return
	}
	for _, n := range t.NUMANodes {
		if n.ID == node {
			f.Placement.NUMANode, f.Placement.Socket = node, n.Socket
			return
		}
	}
	t.problem("NUMA node of PCI function "+f.Placement.PCI,
		fmt.Errorf("the firmware says %d, a node that the machine does not have; treated as unknown", node))
}

func (f *Function) readSRIOV(sys sysfs.Root, folder []string) {
	at := func(name string) []string { return append(folder[:len(folder):len(folder)], name) }
	if pf := sys.LinkBase(at("physfn")...); pf != "" {
		if pci, err := topology.CanonicalPCI(pf); err == nil {
			f.PF = pci
		}
		return
	}
	f.TotalVFs = sys.OptionalInt(0, at("sriov_totalvfs")...)
	f.NumVFs = sys.OptionalInt(0, at("sriov_numvfs")...)
	if f.NumVFs == 0 {
		return
	}
	f.VFs = make(map[int]string, f.NumVFs)
	for number := range f.TotalVFs {
		if pci, err := topology.CanonicalPCI(sys.LinkBase(at("virtfn" + strconv.Itoa(number))...)); err == nil {
			f.VFs[number] = pci
		}
		if len(f.VFs) == f.NumVFs {
			break
		}
	}
}

func bridge(f *Function) topology.Bridge {
	b := topology.Bridge{
		PCI: f.Placement.PCI, PCIeRoot: f.Placement.PCIeRoot,
		VendorID: f.VendorID, DeviceID: f.DeviceID, NUMANode: f.Placement.NUMANode,
	}
	if n := len(f.Placement.Path); n > 0 {
		b.Parent = f.Placement.Path[n-1]
	}
	return b
}
