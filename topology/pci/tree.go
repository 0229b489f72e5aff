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
	"strings"

	"github.com/hostler-dev/hostler/topology"
	"github.com/hostler-dev/hostler/topology/sysfs"
)

// Tree is the PCI tree and the NUMA nodes of a machine.
type Tree struct {
	// Functions by canonical address.
	Functions map[string]*Function
	// Bridges are all PCI bridges, sorted by address.
	Bridges   []topology.Bridge
	NUMANodes []topology.NUMANode
	// Problems that cost an attribute, or a whole function or node, and no other.
	Problems []topology.Problem

	// told are the bridges whose config space says what kind of port they are.
	told map[string]topology.PortKind
	// aboveDevice are the bridges that have something other than a bridge right below.
	aboveDevice map[string]bool
	// sockets of NUMA nodes, those without CPUs included.
	sockets map[int]int
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
	t := &Tree{Functions: make(map[string]*Function, len(addresses)), told: map[string]topology.PortKind{}, aboveDevice: map[string]bool{}}
	t.readNUMANodes(sys)
	for _, address := range addresses {
		if err := t.readFunction(sys, address); err != nil {
			t.problem("PCI function "+address, err)
		}
	}
	t.relate()
	return t, nil
}

func (t *Tree) problem(subject string, err error) {
	t.Problems = append(t.Problems, topology.Problem{Subject: subject, Message: err.Error()})
}

// relate draws the conclusions that need all functions.
func (t *Tree) relate() {
	for _, f := range t.Functions {
		if n := len(f.Placement.Path); n > 0 && !f.IsBridge() {
			t.aboveDevice[f.Placement.Path[n-1]] = true
		}
		// VFs may go between the listing of functions and of links, and come the other way round.
		maps.DeleteFunc(f.VFs, func(_ int, vf string) bool { return t.Functions[vf] == nil })
	}
	for _, address := range slices.Sorted(maps.Keys(t.Functions)) {
		f := t.Functions[address]
		f.Placement.PCIeSwitch = t.nearestSwitch(f.Placement.Path)
		if f.IsBridge() {
			t.Bridges = append(t.Bridges, t.bridge(f))
		}
	}
}

func (t *Tree) bridge(f *Function) topology.Bridge {
	above := len(f.Placement.Path)
	b := topology.Bridge{
		PCI: f.Placement.PCI, PCIeRoot: f.Placement.PCIeRoot,
		VendorID: f.VendorID, DeviceID: f.DeviceID, NUMANode: f.Placement.NUMANode,
		Port: t.ports(append(f.Placement.Path[:above:above], f.Placement.PCI))[above],
	}
	if above > 0 {
		b.Parent = f.Placement.Path[above-1]
	}
	return b
}

// placeInPath takes ".../pci0000:16/0000:16:01.0/0000:17:00.0/0000:18:00.0" apart
// into the root complex and the bridges above the function. What lies above the
// root complex (a platform device on Arm, VMBus on Hyper-V) does not matter.
func placeInPath(target string) (root string, bridges []string) {
	elements := strings.Split(target, "/")
	for _, element := range elements[:len(elements)-1] {
		if isRootComplex(element) {
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

// isRootComplex tells "pci0000:16", a domain and a bus.
func isRootComplex(element string) bool {
	bus, ok := strings.CutPrefix(element, "pci")
	_, err := topology.CanonicalPCI(bus + ":00.0")
	return ok && err == nil
}

func (t *Tree) placeInNUMA(f *Function, node int) {
	if node < 0 {
		return
	}
	socket, ok := t.sockets[node]
	if !ok {
		t.problem("NUMA node of PCI function "+f.Placement.PCI,
			fmt.Errorf("the firmware says %d, a node that the machine does not have; treated as unknown", node))
		return
	}
	f.Placement.NUMANode, f.Placement.Socket = node, socket
}
